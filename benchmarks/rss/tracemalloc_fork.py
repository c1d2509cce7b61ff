"""Forks in threads while tracemalloc traces: some children hang, without us.

python benchmarks/rss/tracemalloc_fork.py [SECONDS]

A thread that was being started held tracemalloc's lock at the fork; in the child nobody
gives it back, and CPython 3.13.0 asks for memory before it could.  Why tests/soak.py does
not trace while it forks.
"""

import os
import signal
import sys
import threading
import time
import tracemalloc
import warnings

PATIENCE = 15  # seconds

warnings.simplefilter("ignore", DeprecationWarning)
forks, hung = [], []


def fork():
    child = os.fork()
    if child == 0:
        os._exit(0)
    forks.append(child)
    for _ in range(PATIENCE * 100):
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.01)
    hung.append(child)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def churn():
    while not ended.is_set():
        _ = [bytearray(n * 37) for n in range(200)]
        time.sleep(0.001)


ended = threading.Event()
others = [threading.Thread(target=churn) for _ in range(3)]
tracemalloc.start(2)
for thread in others:
    thread.start()
until = time.monotonic() + float(sys.argv[1] if len(sys.argv) > 1 else 150)
while time.monotonic() < until:
    threads = [threading.Thread(target=fork) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
ended.set()
print(f"CPython {sys.version.split()[0]}: {len(forks)} forks, {len(hung)} children hung")
