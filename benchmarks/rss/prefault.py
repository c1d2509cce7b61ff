"""What pages cost by fault, and asked for by the extent: python benchmarks/rss/prefault.py

128 MiB each time, one byte of each page written; CPU time, medians.  Linux 5.14.
"""

import mmap
import resource
import statistics

SIZE = 128 << 20
STEPS = (0, 32 << 10, 64 << 10, 256 << 10, 1 << 20)
POPULATE_WRITE = 23  # the module has no name for it
ROUNDS = 7


def spent(step):
    """Microseconds for each page; ``step`` bytes are asked for at once, 0: none."""
    memory = mmap.mmap(-1, SIZE)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    view = memoryview(memory)
    began = resource.getrusage(resource.RUSAGE_SELF)
    for start in range(0, SIZE, step or 1 << 20):
        if step:
            memory.madvise(POPULATE_WRITE, start, step)
        for at in range(start, start + (step or 1 << 20), mmap.PAGESIZE):
            view[at] = 1
    ended = resource.getrusage(resource.RUSAGE_SELF)
    view.release()
    memory.close()
    seconds = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    return seconds * 1e6 / (SIZE // mmap.PAGESIZE)


found = {step: [] for step in STEPS}
for _ in range(ROUNDS):
    for step in STEPS:
        found[step].append(spent(step))
faults = statistics.median(found[0])
print(f"by faults: {faults:.2f} us a page")
for step in STEPS[1:]:
    now = statistics.median(found[step])
    print(f"{step >> 10} KiB at once: {now:.2f} us a page, {now / faults:.2f} times")
