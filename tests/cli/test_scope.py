"""`run --scope process`: the process's malloc is jemalloc, proved, and nobody else's."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig

import pytest

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_jemalloc]

RUN = [sys.executable, "-m", "alloc", "run"]
PROCESS = [*RUN, "--scope", "process"]

NAMES = ("LD_PRELOAD", "MALLOC_CONF", "PYTHONMALLOC", "_ALLOC_PROCESS_SCOPE")
LOOK = f"""
import json, os, subprocess, sys
names = {NAMES!r}
own = {{name: os.environ.get(name) for name in names}}
show = "import os; print(*[os.environ.get(n) for n in %r])" % (names,)
child = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True).stdout.split()
import alloc
ledger = alloc.ledger()
print(json.dumps({{"own": own, "child": child, "malloc": ledger.malloc and ledger.malloc.allocated,
                  "glibc": ledger.glibc and ledger.glibc.in_use, "pid": os.getpid(),
                  "name": __import__("alloc._route")._route.allocator_name(),
                  "threads": ledger.malloc and ledger.malloc.background_threads}}))
"""


def start(command, place=None, before=None, **env):
    full = {k: v for k, v in os.environ.items() if not k.startswith("ALLOC_")}
    full = {**full, **env}
    done = subprocess.run(
        command, cwd=place, env=full, capture_output=True, text=True, timeout=60,
        check=False, preexec_fn=before,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def look(command, **env):
    status, out, err = start([*command, "-c", LOOK], **env)
    assert (status, err) == (0, ""), err
    return json.loads(out)


@pytest.mark.needs_pymalloc
def test_malloc_of_c_libraries_is_jemallocs():
    found = look(PROCESS)
    assert found["malloc"] > 1 << 20 and found["glibc"] is None
    assert look(RUN)["malloc"] is None
    assert look(PROCESS)["name"] == "pymalloc"
    assert look([*PROCESS, "--install", "full"])["name"] == "malloc"
    assert look(PROCESS, ALLOC_INSTALL="full")["name"] == "malloc"


@pytest.mark.needs_pymalloc
def test_the_variables_are_taken_out_unless_asked():
    found = look([*PROCESS, "--install=full"])
    assert set(found["own"].values()) == {None} and set(found["child"]) == {"None"}
    found = look([*PROCESS, "--install=full", "--children"])
    assert found["own"]["LD_PRELOAD"].endswith("libjemalloc.so.2")
    assert found["child"] == [str(found["own"][name]) for name in NAMES]
    assert found["child"][2:] == ["malloc", "None"]


def test_what_the_user_had_set_comes_back(tmp_path):
    import jemalloc_sys

    other = tmp_path / "libother.so"
    shutil.copy(jemalloc_sys.get_library("boot"), other)  # some library that harms nobody
    env = {"LD_PRELOAD": str(other), "MALLOC_CONF": "narenas:3"}
    found = look(PROCESS, **env)
    assert {name: found["own"][name] for name in env} == env
    code = (
        "import alloc; o = alloc.jemalloc.Control('preloaded').options();"
        "print(o['narenas'].value, o['dirty_decay_ms'].value, open('/proc/self/maps').read().count('libother') > 0)"
    )
    assert start([*PROCESS, "-c", code], **env)[1] == "3 500 True\n"
    assert start([*PROCESS, "--preset", "low_memory", "-c", code], **env)[1] == "3 0 True\n"


def test_it_is_the_same_process():
    process = subprocess.Popen([*PROCESS, "-c", LOOK], stdout=-1, text=True)
    out, _ = process.communicate(timeout=60)
    assert json.loads(out)["pid"] == process.pid


def test_background_threads_do_not_make_forks_complain():
    code = (
        "import os, sys, time, warnings\nwarnings.simplefilter('error')\n"
        "x = [bytearray(1 << 16) for _ in range(500)]; del x; time.sleep(0.2)\n"
        "pid = os.fork()\nif not pid: sys.exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "import alloc; print(alloc.jemalloc.Control('preloaded').read('background_thread'))"
    )
    assert start([*PROCESS, "-W", "error", "-c", code])[0] == 2  # -W is the interpreter's
    assert start([*PROCESS, "-c", code]) == (0, "7\nTrue\n", "")
    assert start([*PROCESS, "--preset=low_memory", "-c", code])[1] == "7\nFalse\n"


def refused(command, text, **env):
    status, out, err = start([*command, "-c", "print('ran')"], **env)
    assert (status, out) == (125, ""), err
    assert err.splitlines()[-1].startswith("python -m alloc run: process scope is refused: ")
    assert text in err, err


def test_it_is_refused_where_it_cannot_hold(tmp_path):
    refused(PROCESS, "Python is a guest here", ALLOC_EMBEDDING="guest")
    flags = [sys.executable, "-E", "-m", "alloc", "run", "--scope=process", "--install=full"]
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        refused([*PROCESS, "--install=full"], "which Python without a GIL refuses")
    else:
        refused([*PROCESS, "--install=full"], "and it is debug", PYTHONMALLOC="debug")
        refused(flags, "which -E and -I ignore")
    refused(PROCESS, "mode arenas is none of process scope", ALLOC_INSTALL="arenas")
    refused(PROCESS, "without the compiled core", ALLOC_IMPLEMENTATION="python")


def test_off_is_off():
    for env in ({"ALLOC_DISABLE": "1"}, {"ALLOC_INSTALL": "off"}):
        name, value = next(iter(env.items()))
        status, out, err = start([*PROCESS, "-v", "-c", "print('ran')"], **env)
        assert (status, out, err) == (0, "ran\n", f"alloc: {name}={value}\n")


@pytest.mark.parametrize(
    ("fake", "text"),
    [
        ("missing", "the loader did not load"),
        ("text", "the loader did not load"),
        ("wrong", "is loaded but does not serve malloc"),
        ("a blank", "the loader takes no path with blanks or colons"),
        (None, "jemalloc-sys with a library to preload is needed"),
    ],
)
def test_the_proof_can_fail(tmp_path, fake, text):
    import jemalloc_sys

    path = tmp_path / f"{fake}.so"
    if fake == "text":
        path.write_text("no library")
    elif fake == "wrong":
        shutil.copy(jemalloc_sys.get_library("boot"), path)
    give = "raise FileNotFoundError('none')" if fake is None else f"return {str(path)!r}"
    (tmp_path / "jemalloc_sys.py").write_text(
        f"def get_library(kind):\n    {give}\ndef build_info():\n    return {{}}\n"
    )
    # In front of the real one, and only for the library to preload.
    refused(PROCESS, text, PYTHONPATH=str(tmp_path), ALLOC_DEFAULT="system")


def test_a_mark_from_elsewhere_is_no_proof():
    mark = json.dumps({"pid": 1, "LD_PRELOAD": "nonsense"})
    assert look(PROCESS, _ALLOC_PROCESS_SCOPE=mark)["malloc"] > 1 << 19


@pytest.mark.parametrize("words", [[], ["--scope=process"]], ids=str)
def test_the_allocator_of_alloc_is_as_asked(words):
    code = (
        "import alloc; d = alloc.decision(); print(d.allocator, d.rule, alloc.global_allocator().name);"
        "alloc.set_global_allocator(alloc.System()); print(alloc.decision().rule)"
    )
    for name in ("system", "arena", "jemalloc"):
        status, out, err = start([*RUN, *words, "--allocator", name, "-c", code])
        assert (status, out, err) == (0, f"{name} environment {name}\nexplicit\n", "")
    out = start([*RUN, "--allocator=arena", "-c", code], ALLOC_DISABLE="1")[1]
    assert out.startswith("system disable system")
