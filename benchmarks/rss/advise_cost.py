"""What giving pages back costs by the range: madvise() for each against process_madvise().

python benchmarks/rss/advise_cost.py [--ranges 5000]

Ranges of 12 KiB, a page between them, as in pymalloc's pools; CPU time of the thread that
gives them back, alone and while another thread runs.
"""

import argparse
import ctypes
import hashlib
import mmap
import statistics
import threading
import time

LIBC = ctypes.CDLL(None, use_errno=True)
PROCESS_MADVISE, SELF, DONTNEED, PAGE, TOGETHER = 440, -10000, 4, 4096, 64


class Range(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def spent(count, together):
    """Microseconds of CPU time for each range."""
    pages = mmap.mmap(-1, count * 4 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    base = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    ctypes.memset(base, 1, len(pages))
    ranges = [Range(base + (4 * i + 1) * PAGE, 3 * PAGE) for i in range(count)]
    batches = [
        (Range * len(part))(*part)
        for part in (ranges[i : i + TOGETHER] for i in range(0, count, TOGETHER))
    ]
    begin = time.thread_time()
    if together:
        for batch in batches:
            done = LIBC.syscall(
                PROCESS_MADVISE, SELF, batch, ctypes.c_size_t(len(batch)), DONTNEED, 0
            )
            if done != len(batch) * 3 * PAGE:
                raise SystemExit(f"process_madvise() is refused: errno {ctypes.get_errno()}")
    else:
        for one in ranges:
            LIBC.madvise(ctypes.c_void_p(one.base), ctypes.c_size_t(one.length), DONTNEED)
    return (time.thread_time() - begin) / count * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranges", type=int, default=5000)
    count = parser.parse_args().ranges
    stop = threading.Event()

    def work():  # without Python's lock
        while not stop.is_set():
            hashlib.pbkdf2_hmac("sha256", b"x", b"y", 20_000)

    print("| | madvise, µs for each range | process_madvise, 64 at a time |\n|---|---|---|")
    for name in ("alone", "another thread runs"):
        thread = threading.Thread(target=work)
        if name != "alone":
            thread.start()
        each, together = ([spent(count, way) for _ in range(7)] for way in (False, True))
        print(f"| {name} | {statistics.median(each):.2f} | {statistics.median(together):.2f} |")
    stop.set()
    thread.join()


if __name__ == "__main__":
    main()
