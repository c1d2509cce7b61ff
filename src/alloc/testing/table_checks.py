"""Checks of a C table, slot by slot, for whoever ships one.

Needs neither Hypothesis nor a build of ``alloc`` with that table: ctypes calls
the slots.  A table that writes where it must not can take the process with it.
"""

from __future__ import annotations

import ctypes
import random
import threading

from alloc import EMPTY_ADDRESS, MAX_SIZE

from . import _memory
from .errors import TableError
from .table import Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (
    1,
    2,
    7,
    8,
    9,
    15,
    16,
    17,
    24,
    31,
    32,
    33,
    48,
    64,
    65,
    100,
    127,
    128,
    129,
    255,
    256,
    257,
    512,
    1000,
    1024,
    1025,
    2048,
    4095,
    4096,
    4097,
    8192,
    14336,
    16384,
    32769,
    65536,
    65537,
)
ALIGNS = (1, 2, 4, 8, 16, 16, 16, 16, 32, 64, 128, 256, 1024, 4096, 16384)
MOST = 64


def check_table(
    capsule: object, *, rounds: int = 3000, seed: int = 0, threads: bool = True
) -> None:
    """Hold a table against the contract in ``alloc.h``.

    ``capsule`` is named ``alloc.table`` and holds a ``const alloc_table *``.
    ``rounds`` operations are drawn from ``seed``, the same each time.
    ``threads=False`` leaves out the thread check.

    Raises `TableError` with the broken rule.
    """
    table = Table(capsule)
    slots = Slots(table)
    slots.check_foreign()
    slots.check_huge()
    slots.check_recycled()
    slots.check_churn()
    slots.run(random.Random(seed), rounds)
    slots.close()
    if threads:
        check_threads(table)


class Live:
    """A block of a table, filled with the pattern of its seed."""

    __slots__ = ("address", "align", "seed", "size", "usable")

    def __init__(self, address: int, size: int, align: int) -> None:
        self.address, self.size, self.align = address, size, align
        self.usable = size
        self.seed = 0

    def __repr__(self) -> str:
        return f"{self.address:#x} ({self.size} bytes at alignment {self.align})"


class Slots:
    """A table with the model of what it has granted.  One thread's."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.live: list[Live] = []
        self.seed = 0

    # --- the model ---------------------------------------------------------------

    def admit(self, live: Live, slot: str) -> None:
        """A new or changed place keeps every promise about places."""
        if live.address in (0, EMPTY_ADDRESS):
            raise TableError("no memory", f"{slot} granted {live}")
        if live.address % live.align:
            raise TableError("alignment", f"{slot} granted {live}")
        live.usable = self.table.usable_size(live.address)
        if live.usable < live.size:
            raise TableError("usable size", f"usable_size says {live.usable} for {live}")
        if not self.table.owns(live.address):
            raise TableError("owns", f"owns denies {live}")
        for other in self.live:
            if other is not live and (
                live.address < other.address + other.usable
                and other.address < live.address + live.usable
            ):
                raise TableError("overlap", f"{slot} granted {live} within the live {other}")

    def fill(self, live: Live) -> None:
        self.seed += 1
        live.seed = self.seed
        _memory.write(live.address, _memory.pattern(live.seed, live.size))

    def compare(self, live: Live, expected: bytes, rule: str, when: str) -> None:
        found = _memory.read(live.address, len(expected))
        if found != expected:
            raise TableError(rule, f"{when}, {live}: {_memory.first_difference(found, expected)}")

    def verify(self, live: Live, when: str, rule: str = "contents") -> None:
        self.compare(live, _memory.pattern(live.seed, live.size), rule, when)

    def unchanged(self, live: Live, when: str) -> None:
        self.verify(live, when, "refusal")
        usable = self.table.usable_size(live.address)
        if usable != live.usable:
            raise TableError(
                "refusal", f"{when}, {live}: {usable} usable bytes, before {live.usable}"
            )

    # --- one call each ------------------------------------------------------------

    def alloc(self, size: int, align: int, zeroed: bool) -> Live:
        slot = "alloc_zeroed" if zeroed else "alloc"
        live = Live(getattr(self.table, slot)(size, align), size, align)
        self.admit(live, slot)
        if zeroed:
            self.compare(live, bytes(size), "zeroed", slot)
        self.fill(live)
        self.live.append(live)
        return live

    def layout(self, live: Live, sized: bool) -> tuple[int, int]:
        """What the caller says of the block: the granted layout, or nothing."""
        if sized or "unsized" not in self.table.capabilities:
            return live.size, live.align
        return 0, 0

    def dealloc(self, live: Live, sized: bool) -> None:
        self.verify(live, "before dealloc")
        self.live.remove(live)
        self.table.dealloc(live.address, *self.layout(live, sized))

    def resize(self, live: Live, size: int, sized: bool) -> None:
        self.verify(live, "before resize")
        done = self.table.resize(live.address, *self.layout(live, sized), size)
        if done not in (0, 1):
            raise TableError("refusal", f"resize returned {done}")
        if done:
            self.replaced(live, live.address, size, "resize")
        else:
            self.unchanged(live, "after a refused resize")

    def realloc(self, live: Live, size: int, sized: bool) -> None:
        self.verify(live, "before realloc")
        if not sized and "unsized" in self.table.capabilities:
            # Nobody told it the alignment, so malloc's is all it has to keep.
            live.align = min(live.align, 16)
            moved = self.table.realloc(live.address, 0, 0, size)
        else:
            moved = self.table.realloc(live.address, live.size, live.align, size)
        self.replaced(live, moved, size, "realloc")

    def replaced(self, live: Live, address: int, size: int, slot: str) -> None:
        kept = _memory.pattern(live.seed, min(live.size, size))
        live.address, live.size = address, size
        self.admit(live, slot)
        self.compare(live, kept, "contents", f"after {slot}")
        self.fill(live)

    # --- directed ------------------------------------------------------------------

    def check_foreign(self) -> None:
        """``owns`` answers for any pointer; where it is exact, also the truth."""
        buffer = ctypes.create_string_buffer(64)
        for address in (0, 1, EMPTY_ADDRESS, (1 << 64) - 1, ctypes.addressof(buffer)):
            answer = self.table.owns(address)
            if answer not in (0, 1):
                raise TableError("owns", f"owns({address:#x}) is {answer}")
            if answer and "owns" in self.table.capabilities:
                raise TableError("owns", f"ALLOC_CAP_OWNS, and it owns {address:#x}")

    def check_huge(self) -> None:
        """What cannot be had is NULL, and the old block stays as it was."""
        live = self.alloc(100, 16, False)
        for align in (1, 16, 4096):
            for size in (MAX_SIZE - align, MAX_SIZE - 65536 - align):
                for slot in (self.table.alloc, self.table.alloc_zeroed):
                    if slot(size, align):
                        raise TableError(
                            "no memory", f"{slot.__name__}({size}, {align}) is not NULL"
                        )
        for size in (MAX_SIZE - 16, MAX_SIZE - 65536):
            if self.table.resize(live.address, 100, 16, size):
                raise TableError("no memory", f"resize granted {size} bytes")
            self.unchanged(live, "after a refused resize")
            if self.table.realloc(live.address, 100, 16, size):
                raise TableError("no memory", f"realloc granted {size} bytes")
            self.unchanged(live, "after a realloc that found no memory")
        self.dealloc(live, True)

    def check_recycled(self) -> None:
        """Zeroed memory is zero where dirty blocks lay before, and each class stays itself."""
        for size in SIZES:
            for align in (1, 16, 64, 4096, 32768):
                for zeroed in (False, True):
                    held = [self.alloc(size, align, zeroed) for _ in range(3)]
                    for live in held:
                        self.dealloc(live, True)
                # A place that was over-aligned went back to the class it came from.
                for live in [self.alloc(n, 16, False) for n in (size, align, 2 * align)]:
                    self.dealloc(live, True)

    def check_churn(self) -> None:
        """Freed memory is used again (where Linux tells what is resident)."""
        before = _memory.resident()
        if before is None:
            return
        for _ in range(1500):
            self.dealloc(self.alloc(1 << 16, 16, False), True)
        grown = (_memory.resident() or 0) - before
        if grown > 48 << 20:
            raise TableError("recycling", f"94 MiB were freed one by one, and {grown} bytes stayed")

    def run(self, dice: random.Random, rounds: int) -> None:
        for _ in range(rounds):
            self.step(dice)

    def step(self, dice: random.Random) -> None:
        size, align = dice.choice(SIZES), dice.choice(ALIGNS)
        if not self.live or (len(self.live) < MOST and dice.random() < 0.45):
            self.alloc(size, align, dice.random() < 0.3)
            return
        live = dice.choice(self.live)
        sized = dice.random() < 0.5
        action: Callable[[], None] = dice.choice(
            (
                lambda: self.dealloc(live, sized),
                lambda: self.resize(live, size, sized),
                lambda: self.resize(live, max(1, live.size + dice.choice((-1, 1, -16, 16))), sized),
                lambda: self.realloc(live, size, sized),
            )
        )
        action()
        self.verify(dice.choice(self.live) if self.live else self.alloc(8, 8, False), "later")

    def close(self) -> None:
        while self.live:
            self.dealloc(self.live[-1], True)


def check_threads(table: Table, workers: int = 4, rounds: int = 60, batch: int = 64) -> None:
    """Several threads at once, without the GIL while in a slot.

    Batches of bare calls, because checks in between would keep the threads apart.
    """
    errors: list[BaseException] = []
    begin = threading.Barrier(workers)
    everywhere: set[int] = set()  # set operations are atomic under the GIL

    def run(number: int) -> None:
        dice = random.Random(number)
        begin.wait()
        try:
            for round_number in range(rounds):
                size = dice.choice((16, 64, 64, 256))
                mark = (number << 32 | round_number).to_bytes(8, "little")
                held = [table.alloc(size, 16) for _ in range(batch)]
                if not all(held):
                    raise TableError("threads", f"{batch} blocks of {size} bytes: NULL")
                for address in held:
                    if address in everywhere:
                        raise TableError("threads", f"{address:#x} was granted to two threads")
                    everywhere.add(address)
                    _memory.write(address, mark + address.to_bytes(8, "little"))
                for address in held:
                    if _memory.read(address, 16) != mark + address.to_bytes(8, "little"):
                        raise TableError("threads", f"another thread wrote to {address:#x}")
                everywhere.difference_update(held)
                for address in held:
                    table.dealloc(address, size, 16)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
