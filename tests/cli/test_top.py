"""`serve_stats()` and `top`: the owner sees the ledger, nobody else sees anything."""

import json
import os
import socket
import stat
import subprocess
import sys

import pytest
from patience import seconds

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_jemalloc, pytest.mark.needs_proc]

ALLOC = [sys.executable, "-m", "alloc"]
SERVES = "import alloc, sys; s = alloc.serve_stats(); print(s.path, flush=True); sys.stdin.read()"


def top(pid, *words, **kept):
    done = subprocess.run(
        [*ALLOC, "top", str(pid), *words], capture_output=True, text=True, timeout=60, **kept
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def server():
    """A process that serves, and the path of its socket."""
    process = subprocess.Popen([sys.executable, "-c", SERVES], stdin=-1, stdout=-1, text=True)
    path = process.stdout.readline().strip()
    yield process, path
    process.communicate("")
    assert process.returncode == 0 and not os.path.exists(path)


def test_top_shows_the_ledger(server):
    status, out, err = top(server[0].pid)
    assert (status, err) == (0, "") and out.startswith(f"process {server[0].pid}\nrss ")
    status, out, _ = top(server[0].pid, "--json", "--count=2", "--every=0.01")
    answers = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and len(answers) == 2
    for answer in answers:
        assert answer["pid"] == server[0].pid
        assert sum(answer["ledger"]["parts"].values()) == answer["ledger"]["process"]["rss"]


def test_only_the_owner_can_open_it(server):
    place = os.path.dirname(server[1])
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o700
    if os.geteuid() != 0:
        pytest.fail("this test becomes another user: run it as root")
    code = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "try: s.connect(sys.argv[1])\nexcept PermissionError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code, server[1]], capture_output=True, text=True)
    assert done.stdout == "refused\n", done.stderr


def test_another_user_gets_nothing_even_when_connected(server):
    # The directory is opened up, as if its mode had failed: the kernel's word still counts.
    # The child connects as another user by a descriptor of the directory.
    place, name = os.path.split(server[1])
    pid = os.fork()
    if not pid:
        answer = None
        try:
            os.chdir(place)
            os.chmod(name, 0o777)
            os.seteuid(65534)
            one = socket.socket(socket.AF_UNIX)
            one.settimeout(seconds(10))
            one.connect(name)
            answer = one.recv(100)
        except PermissionError:
            answer = b""
        finally:
            os._exit(0 if answer == b"" else 9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_process_that_cannot_be_asked():
    assert top(os.getpid())[0] == 1
    assert "does not serve its ledger: start it with" in top(os.getpid())[2]
    status, _, err = top(2**22 - 1)
    assert status == 1 and "there is no process" in err
    assert top("word")[0] == 2 and top(-1)[0] == 2
    code = (
        "import os; os.setgid(65534); os.setuid(65534)\n"
        "from alloc.cli.top import why_not; print(why_not(1, FileNotFoundError()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", "from alloc.cli import top;" + code], capture_output=True, text=True
    )
    assert "process 1 belongs to user 0, not to 65534" in done.stdout, done.stderr


def test_a_directory_of_others_is_refused(tmp_path):
    from alloc import _serve

    (tmp_path / "open").mkdir(mode=0o755)
    os.chmod(tmp_path / "open", 0o755)
    with pytest.raises(PermissionError, match="may be entered by others"):
        _serve.check(str(tmp_path / "open"))
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="is not this user's directory"):
        _serve.check(str(tmp_path / "link"))


def test_forked_children_do_not_serve_and_leave_the_socket():
    code = (
        "import alloc, os, sys\ns = alloc.serve_stats(); assert alloc.serve_stats() is s\n"
        "pid = os.fork()\nif not pid: sys.exit(0)\nos.waitpid(pid, 0)\n"
        "from alloc._serve import ask\nassert os.path.exists(s.path)\n"
        "print(ask(os.getpid())['pid'] == os.getpid()); s.close(); s.close(); print(os.path.exists(s.path))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("True\nFalse\n", "")


def test_run_serves_only_when_asked():
    code = "import sys, os, threading; print(os.getpid(), [t.name for t in threading.enumerate()], flush=True); sys.stdin.read()"
    for words, status in ((["--stats"], 0), ([], 1)):
        process = subprocess.Popen(
            [*ALLOC, "run", *words, "-c", code], stdin=-1, stdout=-1, text=True
        )
        line = process.stdout.readline()
        assert ("alloc-stats" in line) == bool(words)
        assert top(process.pid)[0] == status
        process.communicate("")


def test_in_a_guest_nothing_serves_until_it_is_called():
    code = "import alloc, threading; print(threading.active_count()); print(bool(alloc.serve_stats().path))"
    env = {**os.environ, "ALLOC_EMBEDDING": "guest"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout == "1\nTrue\n", done.stderr


def test_bench_gives_figures():
    done = subprocess.run([*ALLOC, "bench", "--json"], capture_output=True, text=True, timeout=120)
    found = json.loads(done.stdout)["allocate_and_free"]
    assert {"bytearray", "system block", "jemalloc raw", "arena block"} <= set(found)
    assert all(ns > 0 for each in found.values() for ns in each.values())
