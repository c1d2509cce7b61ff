"""The threads that give memory back, across forks and at the interpreter's end."""

import subprocess
import sys

import pytest
from defaults import MODE
from patience import seconds

pytestmark = [
    pytest.mark.needs_core,
    pytest.mark.needs_jemalloc,
    pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc"),
]

CHURN = f"""
import alloc, faulthandler, os, threading, time, warnings
from alloc import _route
warnings.simplefilter('ignore')            # forks among threads of our own making
faulthandler.dump_traceback_later({seconds(100)}, exit=True)
def arenas(n=60_000):
    held = [object() for _ in range(n)]
def until(what):
    for _ in range(200):
        if what(): return True
        time.sleep(0.05)
"""


@pytest.mark.parametrize("forks", [1, 2, 4])
def test_threads_that_fork_at_once(run, forks):
    code = (
        CHURN
        + f"""
alloc.install(numpy=False)
failed = []
def forking():
    for n in range(40):
        arenas()
        pid = os.fork()
        if pid == 0:
            ok = alloc.installed().routed and not _route.keeping()
            arenas()
            os._exit(0 if ok and not _route.keeping() else 1)   # a child of a thread: no threads
        if os.waitpid(pid, 0)[1]: failed.append(n)
threads = [threading.Thread(target=forking) for _ in range({forks})]
for t in threads: t.start()
for t in threads: t.join()
arenas()
print(failed, until(_route.keeping), _route.control('background_thread'))
"""
    )
    assert run(code) == "[] True True"


@pytest.mark.needs_pymalloc
def test_forks_while_another_thread_installs(run):
    code = (
        CHURN
        + """
import itertools
alloc.install(numpy=False)
stop = threading.Event()
def installing():
    for mode in itertools.cycle(['hybrid', 'full']):
        alloc.install(mode, numpy=False); alloc.trim(); alloc.uninstall()
        if stop.is_set(): break
threads = [threading.Thread(target=installing) for _ in range(2)]
for t in threads: t.start()
for n in range(30):
    pid = os.fork()
    if pid == 0:
        alloc.installed(); alloc.uninstall()
        done = alloc.install('hybrid', numpy=False)   # the lock of the parent's other thread
        held = [object() for _ in range(300_000)]
        if done.routed and until(_route.keeping): os._exit(0)
        print(done, _route.figures(), flush=True); os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0, n
stop.set()
for t in threads: t.join()
print(alloc.install(numpy=False).python)
"""
    )
    assert run(code) == MODE


def test_install_in_a_child_of_a_thread_starts_no_threads(run):
    code = (
        CHURN
        + """
def forks(out):
    pid = os.fork()
    if pid == 0:
        alloc.install(numpy=False, preset='throughput')
        held = [bytes(900) for _ in range(40_000)]; del held
        arenas()
        out.append(len(os.listdir('/proc/self/task')) - others)
        os._exit(out[0])
    out.append(os.waitpid(pid, 0)[1] >> 8)
out = []
others = len(os.listdir('/proc/self/task')) - 2   # an emulator's own; ours: main, faulthandler's
alloc.install(numpy=False)
t = threading.Thread(target=forks, args=(out,)); t.start(); t.join()
print(out)
"""
    )
    assert run(code) == "[1]"


@pytest.mark.needs_pymalloc
@pytest.mark.parametrize("early", [True, False])
def test_install_by_an_exit_handler_starts_no_thread(run, early):
    """Handlers run last in, first out: one that was there before ours runs after it.
    ``early``: installed before the end as well."""
    code = (
        CHURN
        + f"""
import atexit
def late():
    done = alloc.install('hybrid', numpy=False)
    arenas()
    print(_route.keeping(), done.routed, flush=True)
atexit.register(late)
if {early}:
    alloc.install('hybrid', numpy=False)
    arenas()
    assert _route.keeping()
"""
    )
    assert run(code) == "False ('raw', 'arenas')"


@pytest.mark.needs_pymalloc
def test_install_warns_of_nothing_of_its_own(run):
    code = "import alloc; print(alloc.install(numpy=False).python)"
    options = ["-W", "error"]
    if sys.version_info >= (3, 10):
        options += ["-X", "warn_default_encoding"]
    assert run(code, before=options) == MODE


ALONE = """
import alloc, os, threading, time
from alloc import _route
def threads():
    with open('/proc/self/stat', encoding='ascii') as file:
        return int(file.read().rsplit(')', 1)[1].split()[17])
def until(what):
    for _ in range(400):
        if what(): return True
        objects = [object() for _ in range(400_000)]    # chunks come and go
        del objects
        time.sleep(0.05)
"""


@pytest.mark.parametrize("how", ["os.fork()", "os.forkpty()[0]"])
def test_cpython_warns_of_none_of_our_threads(run, how):
    code = (
        ALONE
        + f"""
alloc.install(numpy=False)
kept = [object() for _ in range(200_000)]
started = until(lambda: threads() > 1)
for _ in range(5):
    pid = {how}
    if not pid: os._exit(7)
    assert os.waitpid(pid, 0)[1] == 7 << 8
print(started, until(lambda: threads() > 1 and _route.keeping()), _route.control('background_thread'))
"""
    )
    assert run(code, before=["-W", "error"]) == "True True True"


LINGER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <time.h>
static void *linger(void *unused) {
    struct timespec a_while = {0, 300000};
    nanosleep(&a_while, 0);
    return unused;
}
int pthread_join(pthread_t thread, void **value) {
    int (*join)(pthread_t, void **) = dlsym(RTLD_NEXT, "pthread_join");
    int error = join(thread, value);
    pthread_create(&thread, 0, linger, 0);
    pthread_detach(thread);
    return error;
}
"""


@pytest.mark.needs_cc
@pytest.mark.parametrize("ours", ["alloc.install(numpy=False)", "jemalloc()"])
def test_a_fork_waits_until_the_kernel_counts_no_thread_of_ours(run, tmp_path, ours):
    """A joined thread is counted for a moment: here, for 0.3 ms."""
    (tmp_path / "linger.c").write_text(LINGER)
    library = str(tmp_path / "linger.so")
    source = str(tmp_path / "linger.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    code = f"""
import os
seen = []
tasks = lambda: os.stat('/proc/self/task').st_nlink
os.register_at_fork(before=lambda: seen.append(tasks()))    # runs after what comes later
none = tasks()
import alloc
def jemalloc():
    alloc.jemalloc.load()
    alloc.jemalloc.set_background_threads(True)
{ours}
kept = [object() for _ in range(200_000)]
started = tasks() - none
pid = os.fork()
if not pid: os._exit(7)
print(os.waitpid(pid, 0)[1] >> 8, started > 0, seen == [none])
"""
    assert run(code, env={"LD_PRELOAD": library}) == "7 True True"


def test_threads_come_back_where_the_main_thread_runs_no_python(run):
    code = (
        ALONE
        + """
import ctypes
alloc.install('hybrid', numpy=False)
kept = [object() for _ in range(200_000)]
def fork():
    pid = os.fork()
    if not pid: os._exit(0)
    os.waitpid(pid, 0)
    done.append(until(lambda: _route.keeping() and _route.control('background_thread')))
    os.write(end, b'.')
done = []
start, end = os.pipe()
thread = threading.Thread(target=fork)
thread.start()
room = ctypes.create_string_buffer(1)
ctypes.CDLL(None).read(start, room, 1)       # in C until the other thread is through
thread.join()
print(done)
"""
    )
    assert run(code, before=["-W", "ignore:This process:DeprecationWarning"]) == "[True]"
