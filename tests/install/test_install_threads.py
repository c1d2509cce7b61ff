"""Threads, forks, interpreters and ends of processes under install()."""

import subprocess
import sys

import pytest
from defaults import MODE
from patience import seconds

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_jemalloc]

MODES = pytest.mark.parametrize(
    "mode", [pytest.param("arenas", marks=pytest.mark.needs_pymalloc), "hybrid", "full"]
)


@pytest.mark.needs_pymalloc
def test_install_and_uninstall_in_turns_while_eight_threads_allocate(run):
    code = """
import alloc, threading, time, itertools
stop = threading.Event()
failed = []
def loop(seed):
    try:
        while not stop.is_set():
            work(seed)
    except BaseException as error:
        failed.append(repr(error))
threads = [threading.Thread(target=loop, args=(n,)) for n in range(8)]
for t in threads: t.start()
turns = 0
for mode in itertools.cycle(['hybrid', 'full', 'arenas']):
    assert not alloc.install(mode, numpy=False).refused
    time.sleep(0.02)
    if turns % 5 == 0: alloc.trim()
    alloc.uninstall()
    turns += 1
    if turns == 60: break
stop.set()
for t in threads: t.join()
print(failed, turns)
"""
    assert run(code) == "[] 60"


@MODES
def test_many_short_threads(run, mode):
    code = f"""
import alloc, threading
alloc.install({mode!r}, numpy=False)
box = []
for n in range(100):
    threads = [threading.Thread(target=lambda: box.append([str(i) * 20 for i in range(50)]))
               for _ in range(10)]
    for t in threads: t.start()
    for t in threads: t.join()
assert len(box) == 1000 and all(texts[7] == '7' * 20 for texts in box)
print(work())
"""
    assert run(code) == "True"


@MODES
def test_daemon_threads_at_exit(run, mode):
    code = f"""
import alloc, threading, time
alloc.install({mode!r}, numpy=False)
def loop():
    while True:
        work()
for _ in range(4):
    threading.Thread(target=loop, daemon=True).start()
time.sleep(0.2)
print('end')
"""
    for _ in range(3):
        assert run(code) == "end"


def test_exit_in_a_thread_and_status(run):
    code = """
import alloc, sys, threading
alloc.install(numpy=False)
t = threading.Thread(target=sys.exit, args=(3,)); t.start(); t.join()
work()
sys.exit(5)
"""
    assert run(code, status=5) == ""


@MODES
def test_fork_with_threads_running(run, mode):
    code = f"""
import alloc, os, threading, warnings
warnings.simplefilter('ignore')            # forks among threads of our own making
alloc.install({mode!r}, numpy=False)
stop = threading.Event()
def loop():
    while not stop.is_set(): work()
threads = [threading.Thread(target=loop) for _ in range(2)]
for t in threads: t.start()
for n in range(40):
    pid = os.fork()
    if pid == 0:
        work()
        assert alloc.installed().routed
        os._exit(11)
    assert os.waitpid(pid, 0)[1] == 11 << 8
stop.set()
for t in threads: t.join()
print(work())
"""
    assert run(code) == "True"


@pytest.mark.needs_pymalloc
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_a_fork_of_a_quiet_program_warns_of_nothing_and_threads_come_back(run):
    code = """
import alloc, os, time
alloc.install(numpy=False)
def tasks(): return len(os.listdir('/proc/self/task'))
held = [bytes(900) for _ in range(40_000)]; objects = [object() for _ in range(100_000)]
del held, objects
assert tasks() > 1, 'no thread that gives memory back'
for n in range(3):
    pid = os.fork()                        # an error under -W error, were there threads
    if pid == 0:
        held = [bytes(900) for _ in range(40_000)]; peak = rss(); del held
        for _ in range(60):
            time.sleep(0.1)
            if rss() < peak - 25 and tasks() > 1:
                os._exit(0)
        print(peak, rss(), tasks(), flush=True)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert alloc.installed().routed
assert tasks() > 1
print('fine')
"""
    assert run(code, before=["-W", "error"]) == "fine"


def test_a_child_forked_from_a_thread_comes_to_its_end(run):
    code = f"""
import alloc, os, threading, time, warnings
warnings.simplefilter('ignore')
alloc.install(numpy=False)
work()
def forks(out):
    pid = os.fork()
    if pid == 0:
        held = [bytes(900) for _ in range(40_000)]; objects = [object() for _ in range(100_000)]
        del held, objects
        time.sleep(0.3)
        return                              # the thread's function returns: the child's end
    deadline = time.time() + {seconds(20)}
    while time.time() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return out.append(status)
        time.sleep(0.05)
    os.kill(pid, 9)
    out.append('the child never came to its end')
out = []
t = threading.Thread(target=forks, args=(out,)); t.start(); t.join()
print(out)
"""
    assert run(code) == "[0]"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path, method):
    program = tmp_path / "pooled.py"
    program.write_text(
        f"""
import alloc, multiprocessing, warnings
warnings.simplefilter('ignore')
alloc.install(numpy=False)

def job(n):
    texts = [str(i) * n for i in range(2000)]
    return len(''.join(texts)), alloc.installed().python

if __name__ == '__main__':
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        print(sorted(set(pool.map(job, [3] * 8))))
"""
    )
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"[(20670, {MODE!r})]\n"), done.stderr


def test_subprocess_and_execv(run):
    code = """
import alloc, os, subprocess, sys
alloc.install(numpy=False)
work()
for _ in range(10):
    assert subprocess.run([sys.executable, '-c', 'print(6)'], stdout=-1).stdout == b'6\\n'
os.execv(sys.executable, [sys.executable, '-c', 'import alloc; print(bool(alloc.installed()))'])
"""
    assert run(code) == "False"


@MODES
def test_subinterpreters_that_share_the_gil(run, mode):
    code = f"""
import alloc
try:
    import _interpreters as api
    create = lambda: api.create('legacy')
    execute = api.exec
except ImportError:
    import _xxsubinterpreters as api
    create = (lambda: api.create(isolated=False)) if sys.version_info >= (3, 9) else api.create
    execute = api.run_string
alloc.install({mode!r}, numpy=False)
ids = []
for n in range(3):
    ids.append(create())
    execute(ids[-1], WORK + "work(rounds=2); kept = [str(i) * 9 for i in range(20000)]")
work()
alloc.trim()
for i in ids:
    execute(i, "assert kept == [str(i) * 9 for i in range(20000)]")
    api.destroy(i)
print(work())
"""
    assert run(code) == "True"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 684 begins with 3.12")
@MODES
def test_subinterpreters_with_a_gil_of_their_own(run, mode):
    code = f"""
import alloc, threading
try:
    import _interpreters as api
    create = lambda: api.create('isolated')
    execute = api.exec
except ImportError:
    import _xxsubinterpreters as api
    create = lambda: api.create(isolated=True)
    execute = api.run_string
alloc.install({mode!r}, numpy=False)
ids = [create() for _ in range(3)]
threads = [threading.Thread(target=execute, args=(i, WORK + "work(rounds=6)")) for i in ids]
for t in threads: t.start()
for _ in range(10): work(); alloc.trim()
for t in threads: t.join()
for i in ids: api.destroy(i)
print(work())
"""
    assert run(code) == "True"
