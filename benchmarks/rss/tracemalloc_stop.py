"""What tracemalloc.stop() leaves in the C library's heap; without us, glibc 2.33 or newer.

python benchmarks/rss/tracemalloc_stop.py

CPython up to 3.12 does not free the stacks it has kept, one for each place that
allocated.  Why tests/soak.py traces in children there.
"""

import ctypes
import sys
import tracemalloc

FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
TURNS = 2000


class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS.split()]


def in_use():
    return mallinfo2().uordblks


def turn(frames):
    tracemalloc.start(frames)
    held = bytearray(1000)
    tracemalloc.stop()
    del held


mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Info
print(f"CPython {sys.version.split()[0]}")
for frames in (1, 4):
    for _ in range(TURNS):
        turn(frames)
    before = in_use()
    for _ in range(TURNS):
        turn(frames)
    left = (in_use() - before) / TURNS
    print(f"start({frames}), one place that allocates, stop(): {left:.0f} bytes more")
