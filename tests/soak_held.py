"""What the soak holds: objects with known contents, and work in subinterpreters."""

from __future__ import annotations

import random
import sys
import tracemalloc

MIB = 1 << 20


class Wrong(Exception):
    """Contents, a status or a statistic that is not what it has to be."""


def pattern(key, size):
    """``size`` bytes that tell of their ``key`` and of their place."""
    return (b"%016x" % (key * 0x9E3779B97F4A7C15 % (1 << 64)) * (size // 16 + 1))[:size]


class Store:
    """Objects with known contents; one thread's at a time."""

    def __init__(self, seed, most=150):
        self.chance, self.most = random.Random(seed), most
        self.held = []

    def make(self):
        """Something new: what checks it, and itself."""
        chance = self.chance
        key, size = chance.randrange(1 << 30), int(2 ** chance.uniform(0, 17))
        kind = chance.choice(KINDS)
        if chance.random() < 0.01:
            size = chance.randrange(MIB, 12 * MIB) if kind in LARGE else size
        return kind, key, size, kind.make(key, size)

    def step(self):
        """Make, change, or check and drop one."""
        chance = self.chance
        if len(self.held) < self.most and chance.random() < 0.55:
            self.held.append(self.make())
        elif self.held:
            at = chance.randrange(len(self.held))
            kind, key, size, what = self.held[at]
            kind.check(key, size, what)
            if chance.random() < 0.5 and kind.resize:
                size = max(1, int(size * chance.choice((0.3, 0.9, 1.1, 3)))) % (16 * MIB)
                self.held[at] = kind, key, size, kind.resize(key, size, what)
            else:
                self.held[at] = self.held[-1]
                self.held.pop()

    def check(self):
        for kind, key, size, what in self.held:
            kind.check(key, size, what)

    def clear(self):
        self.check()
        self.held.clear()


class Buffers:
    """RAW in `hybrid`: larger than 512 bytes, or changing their size."""

    def make(key, size):
        return bytearray(pattern(key, size))

    def check(key, size, what):
        if what != pattern(key, size):
            raise Wrong(f"a buffer of {size} bytes has other contents")

    def resize(key, size, what):
        del what[size:]
        if len(what) < size:
            what.extend(pattern(key, size)[len(what) :])
        return what


class Texts(Buffers):
    def make(key, size):
        return pattern(key, size).decode()

    def check(key, size, what):
        Buffers.check(key, size, what.encode())

    resize = None


class Objects:
    """Small ones, many at a time."""

    def make(key, size):
        return [(key + i, str(key + i)) for i in range(size % 500)], {key + i: i for i in range(9)}

    def check(key, size, what):
        tuples, numbers = what
        right = all(a == key + i and b == str(a) for i, (a, b) in enumerate(tuples))
        if not right or len(tuples) != size % 500 or numbers != {key + i: i for i in range(9)}:
            raise Wrong("objects have other contents")

    resize = None


class Arrays:
    """NumPy's, where it is."""

    numpy = None

    def make(key, size):
        return Arrays.numpy.arange(key, key + size // 8 + 1) + 1

    def check(key, size, what):
        if not (what == Arrays.numpy.arange(key + 1, key + size // 8 + 2)).all():
            raise Wrong(f"an array of {size} bytes has other contents")

    def resize(key, size, what):
        what.resize(size // 8 + 1, refcheck=False)
        what[:] = Arrays.numpy.arange(key + 1, key + size // 8 + 2)
        return what


KINDS = [Buffers, Texts, Objects]
LARGE = [Buffers, Texts, Arrays]


class Interpreters:
    """Subinterpreters, by whichever module this Python has."""

    code = (
        "held = [{'k': (i, str(i), [i] * (i % 70))} for i in range(3000)]\n"
        "assert all(h['k'][1] == str(i) for i, h in enumerate(held))\n"
        "del held[::2]; big = [bytes(n * 9) for n in range(700)]; del held, big\n"
    )

    def __init__(self):
        try:
            import _interpreters as module
        except ImportError:
            import _xxsubinterpreters as module
        self.module = module
        self.isolated = sys.version_info >= (3, 12)  # with a lock of its own

    def run(self, isolated):
        # While tracemalloc traces, CPython 3.9 to 3.11 waits for ever when another
        # interpreter is made (PyGILState_Ensure in _PyConfig_Copy), and 3.12 aborts.
        tracemalloc.stop()
        module = self.module
        if hasattr(module, "exec"):
            number = module.create("isolated" if isolated else "legacy")
            failed = module.exec(number, self.code)
        else:
            number = module.create(isolated=isolated)
            failed = module.run_string(number, self.code)
        module.destroy(number)
        if failed:
            raise Wrong(f"in a subinterpreter: {failed}")
