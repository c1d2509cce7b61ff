"""Free pages between live small blocks of jemalloc's, given back by the keeper and `trim()`."""

import pytest
from patience import seconds

pytestmark = [
    pytest.mark.needs_core,
    pytest.mark.needs_jemalloc,
    pytest.mark.needs_kernel,
]

# Of 40 MB in bytes objects of 1 to 4 KB, one in a hundred stays.
DROP = """
import time
import alloc
from alloc import _route

def resident():
    with open('/proc/self/statm', encoding='ascii') as file:
        return int(file.read().split()[1]) * 4096

def drop():
    made = [bytes([i % 251]) * (1000 + i * 37 % 3000) for i in range(16_000)]
    kept = made[::100]
    return kept

def check(kept):
    for i, one in enumerate(kept):
        assert one == bytes([i * 100 % 251]) * (1000 + i * 3700 % 3000)

def wait(done):
    end = time.monotonic() + {limit}
    while not done() and time.monotonic() < end:
        time.sleep(0.05)
    return done()
""".replace("{limit}", str(seconds(60)))


@pytest.mark.parametrize("mode", ["hybrid", "full"])
def test_the_keeper_gives_them_back_when_nothing_moves(run, mode):
    code = f"""
alloc.install({mode!r}, numpy=False)
kept = drop()
# Each survivor leaves most of a slab of 16 to 64 KiB.
print(wait(lambda: _route.figures()['slab_bytes'] > 2 << 20))
check(kept)
again = drop()
check(again), check(kept)
"""
    assert run(DROP + code) == "True"


def test_blocks_of_5_to_14_kib_leave_their_pages_though_a_neighbour_stays(run):
    code = """
alloc.install('full', numpy=False)
made = [bytes([i % 251]) * (5000 + i * 97 % 9000) for i in range(3000)]
kept = made[::50]
most = resident()
del made
print(wait(lambda: resident() < most - (20 << 20)), _route.figures()['slab_bytes'] > 1 << 20)
for i, one in enumerate(kept):
    assert one == bytes([i * 50 % 251]) * (5000 + i * 4850 % 9000)
"""
    assert run(DROP + code) == "True True"


def test_some_kilobytes_are_worth_a_short_walk(run):
    code = """
alloc.install('full', numpy=False)
made = [bytes([i]) * 1900 for i in range(60)]
kept = made[::20]
del made
alloc.jemalloc.command('thread.tcache.flush')
print(wait(lambda: _route.figures()['slab_bytes'] > 0))
print(all(one == bytes([i * 20]) * 1900 for i, one in enumerate(kept)))
"""
    assert run(DROP + code) == "True\nTrue"


def test_the_resident_set_falls_by_them(run):
    code = """
alloc.install(numpy=False, preset='throughput')     # where the keeper leaves them
kept = drop()
before, idle = resident(), _route.figures()['slab_bytes']
done = alloc.trim()
print(idle, done.slabs > 2 << 20, before - resident() > 2 << 20, 'slabs' in str(done))
check(kept)
print(alloc.trim().slabs < 1 << 20)
"""
    assert run(DROP + code) == "0 True True True\nTrue"


def test_not_after_uninstall(run):
    code = """
alloc.install(numpy=False)
kept = drop()
alloc.uninstall()
time.sleep(0.5)
before = _route.figures()['slab_walks']
del kept[::2]
time.sleep(1)
print(_route.figures()['slab_walks'] - before, wait(lambda: not _route.keeping()))
"""
    assert run(DROP + code) == "0 True"


def test_while_threads_work_and_children_are_forked(run):
    code = """
import os, threading
alloc.install('full', numpy=False)
over, bad = [False], []
def work(seed):
    held = {}
    turn = seed
    while not over[0]:
        turn += 1
        size = 500 + turn * 7919 % 9000
        held[turn % 300] = (bytearray([turn % 256]) * size, turn % 256)
        block, mark = held.get(turn * 31 % 300, (b'', 0))
        if any(byte != mark for byte in block[::97]):
            bad.append((size, mark))
threads = [threading.Thread(target=work, args=(i * 1000,)) for i in range(3)]
for thread in threads: thread.start()
end = time.monotonic() + 3
forks = 0
while time.monotonic() < end:
    kept = drop()
    alloc.trim()
    check(kept)
    child = os.fork()
    if not child:
        again = drop()
        alloc.trim()
        check(again), check(kept)
        os._exit(0)
    forks += os.waitpid(child, 0)[1] == 0
    time.sleep(0.05)
over[0] = True
for thread in threads: thread.join()
print(bad, forks > 0)
"""
    assert run(DROP + code) == "[] True"
