"""The work that every program of these tests does, and checks."""

import pytest

WORK = """
import gc, sys

def work(seed=0, rounds=1):
    "Allocate in all domains, check every content."
    for r in range(rounds):
        trees = [{i: [i, str(i * 7919), (i, seed)] for i in range(40)} for _ in range(60)]
        buffers = [bytearray([n % 251]) * (37 * n + 1) for n in range(150)]
        texts = [("%d" % n) * (n % 90 + 1) for n in range(800)]
        for buffer in buffers:
            buffer.extend(buffer)
        del trees[::2], buffers[::3]
        assert all(t[i] == [i, str(i * 7919), (i, seed)] for t in trees for i in (0, 39))
        assert all(set(b) == {b[0]} for b in buffers)
        assert all(t == t[:len(str(n))] * (n % 90 + 1) for n, t in enumerate(texts))
    return True

def rss():
    return int(open('/proc/self/statm').read().split()[1]) * 4096 / 2**20
"""


@pytest.fixture
def run(python):
    """Run a program that has `work()`, `rss()` (MiB) and their text `WORK` at hand; see ``python``."""
    return lambda code, *args, **options: python(f"WORK = {WORK!r}\n{WORK}{code}", *args, **options)
