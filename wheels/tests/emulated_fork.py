"""What a reserved range costs a fork under qemu-user: stock Python, nothing of ours; as root.

    python wheels/tests/emulated_fork.py

jemalloc-sys reserves addresses (PROT_NONE), which costs a kernel nothing.  qemu 7.2 keeps
a record for each page of them, and each fork copies the page tables of these records.
`in_tree.py` therefore gives the emulated suite 16 GiB of addresses.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trees import inside, tree

CODE = """
import mmap, os, sys, time
from ctypes import CDLL, c_int, c_long, c_size_t, c_void_p

libc = CDLL(None)
libc.mmap.restype = c_void_p
libc.mmap.argtypes = [c_void_p, c_size_t, c_int, c_int, c_int, c_long]
size = int(sys.argv[1]) << 30
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
begun = time.time()
if size and libc.mmap(None, size, 0, flags, -1, 0) == c_void_p(-1).value:
    sys.exit("refused")
reserving = time.time() - begun
begun = time.time()
for _ in range(10):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
forking = (time.time() - begun) / 10
with open("/proc/self/status") as file:
    rss = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
print(f"{sys.argv[1]:>4} GiB: {reserving:.1f} s to reserve,",
    f"{forking * 1000:.0f} ms a fork, RSS {rss >> 10} MiB")
"""


def main():
    place = tree("aarch64")
    for size in ("0", "8", "64", "512"):
        if inside(place, "python3", "-c", CODE, size):
            sys.exit(1)


main()
