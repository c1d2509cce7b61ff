"""`python -m alloc run` against plain python: the program must not see a difference."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile

import pytest
from defaults import MODE

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_jemalloc]

PROBE = '''"""A program that tells all it can see of how it was started."""
import json, os, sys

def show(value):
    text = repr(value)
    return text[: text.index(" at 0x")] if " at 0x" in text else text

names = {name: show(value) for name, value in globals().items() if name not in ("json", "os", "sys", "show")}
names.pop("names", None)
print(json.dumps({
    "names": sorted(names.items()),
    "argv": sys.argv,
    "path": sys.path,
    "main": sys.modules["__main__"].__dict__ is globals(),
    "excepthook": sys.excepthook is sys.__excepthook__,
    "warnoptions": sys.warnoptions,
    "orig": sys.orig_argv[-1] if hasattr(sys, "orig_argv") else None,
    "flags": str(sys.flags),
    "cwd": os.getcwd(),
    "last": hasattr(sys, "last_traceback"),
}))
'''

RAISE = """
import sys
def inner(): raise ValueError("from inside")
def outer():
    try:
        {}["missing"]
    except KeyError:
        inner()
outer()
"""

PLAIN = [sys.executable]
RUN = [sys.executable, "-m", "alloc", "run"]
PROCESS = [*RUN, "--scope", "process"]


@pytest.fixture
def place(tmp_path):
    """Programs of each kind."""
    (tmp_path / "script.py").write_text(PROBE)
    (tmp_path / "boom.py").write_text(RAISE)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "__main__.py").write_text(PROBE)
    (tmp_path / "package" / "module.py").write_text(PROBE)
    (tmp_path / "package" / "boom.py").write_text(RAISE)
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "__main__.py").write_text(PROBE)
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", PROBE)
    (tmp_path / "exploding").mkdir()
    (tmp_path / "exploding" / "__main__.py").write_text(RAISE)
    (tmp_path / "link.py").symlink_to(tmp_path / "directory" / "__main__.py")
    return tmp_path


def start(command, place, stdin=None, **env):
    full = {k: v for k, v in os.environ.items() if not k.startswith("ALLOC_")}
    done = subprocess.run(
        command,
        cwd=place,
        env={**full, **env},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def same(place, *program, flags=(), stdin=None):
    plain = start([*PLAIN, *flags, *program], place, stdin)
    for ours in (RUN, PROCESS):
        assert start([PLAIN[0], *flags, *ours[1:], *program], place, stdin) == plain
    return plain


PROGRAMS = {
    "script": ["script.py", "one", "-m", "--two"],
    "absolute script": ["{place}/script.py"],
    "symbolic link": ["link.py"],
    "module": ["-m", "package.module", "x"],
    "package": ["-m", "package"],
    "relative script": ["./script.py"],
    "script from above": ["directory/../script.py"],
    "directory": ["directory", "a"],
    "directory with a dot": ["./directory"],
    "zip file": ["archive.zip", "b"],
    "code": ["-c", PROBE, "c", "-d"],
}


@pytest.mark.parametrize("flags", [(), ("-X", "dev"), ("-I",), ("-O", "-W", "error")], ids=str)
@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_program_sees_what_it_sees_under_python(place, kind, flags):
    if flags == ("-I",) and "site-packages" not in sys.modules["alloc"].__file__:
        pytest.fail("-I needs an installed package: this test is for `make test`")
    if flags == ("-I",) and kind in ("module", "package"):
        return  # plain python does not find them either
    program = [word.format(place=place) if "{place}" in word else word for word in PROGRAMS[kind]]
    status, out, err = same(place, *program, flags=flags)
    assert status == 0 and json.loads(out)["main"], err


@pytest.mark.parametrize(
    "program",
    [["boom.py"], ["-m", "package.boom"], ["exploding"], ["-c", "def f(): 1/0\nf()"]],
    ids=" ".join,
)
def test_an_error_ends_it_with_the_same_traceback(place, program):
    if program[0] == "-c" and sys.version_info >= (3, 13):
        # 3.13 shows the source of -c, by a table that only the interpreter fills.
        status, _, err = start([*RUN, *program], place)
        assert status == 1 and err.count("<string>") == 2 and "run.py" not in err
        return
    status, out, err = same(place, *program)
    assert status == 1 and out == "" and err.startswith("Traceback")


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(7)",
        "import sys; sys.exit('a message')",
        "import sys; sys.exit()",
        "raise SystemExit(True)",
        "raise SystemExit([1, 2])",
        "import os; os._exit(9)",
        "import atexit; atexit.register(print, 'first'); atexit.register(print, 'second')",
        "import threading, sys; t = threading.Thread(target=sys.exit, args=(3,)); t.start(); t.join()",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import sys; sys.excepthook = lambda *a: print('hooked', a[0].__name__); 1/0",
        "import sys; sys.stdout.close()",
        "print(input())",
    ],
)
def test_ends_as_under_python(place, code):
    (place / "ends.py").write_text(code)
    same(place, "ends.py", stdin="typed\n")


def test_syntax_errors_and_missing_files(place):
    (place / "wrong.py").write_text("def f(:\n")
    same(place, "wrong.py")
    same(place, "-m", "package.nothing_here")
    status, _, err = start([*RUN, "nothing.py"], place)
    assert (status, err.startswith("python -m alloc run: can't open file 'nothing.py'")) == (
        2,
        True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(place, number):
    # Ready once it sleeps: the traceback names the line.
    (place / "sleeps.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    ends = []
    for command in (PLAIN, RUN, PROCESS):
        process = subprocess.Popen(
            [*command, "sleeps.py"], cwd=place, stdout=-1, stderr=-1, text=True
        )
        assert process.stdout.readline() == "ready\n"
        while not asleep(process.pid):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
        ends.append((process.returncode, err))
    assert ends[0] == ends[1] == ends[2] and ends[0][0] == -number


def asleep(pid):
    """Whether the initial thread waits on a clock and not for a lock or a file."""
    with open(f"/proc/{pid}/wchan") as file:
        place = file.read()
        if "nanosleep" in place or "poll_schedule_timeout" in place:  # up to 3.10 it selects
            return True
    with open(f"/proc/{pid}/syscall") as file:
        return file.read().split()[0] in ("230", "23")  # clock_nanosleep, select


def test_compiled_files_run(place):
    import py_compile

    py_compile.compile(str(place / "script.py"), cfile=str(place / "script.pyc"))
    same(place, "script.pyc", "z")


def test_pickling_and_spawn_find_main(place):
    (place / "pool.py").write_text(
        "import multiprocessing as m, pickle\n"
        "class C: pass\n"
        "def job(n): return n * n\n"
        "if __name__ == '__main__':\n"
        "    assert type(pickle.loads(pickle.dumps(C()))) is C\n"
        "    with m.get_context('spawn').Pool(2) as pool: print(pool.map(job, [1, 2, 3]))\n"
    )
    assert same(place, "pool.py") == (0, "[1, 4, 9]\n", "")


def test_doctest_and_unittest_work_on_main(place):
    (place / "checked.py").write_text(
        '"""\n>>> 1 + 1\n2\n"""\nimport doctest, unittest\n'
        "class T(unittest.TestCase):\n    def test_one(self): pass\n"
        "print(doctest.testmod())\nunittest.main(verbosity=0, exit=False)\n"
    )
    status, out, err = start([*RUN, "checked.py"], place)
    assert status == 0 and "attempted=1" in out and "Ran 1 test" in err


@pytest.mark.needs_pymalloc
def test_the_program_is_routed_and_reports(place):
    (place / "asks.py").write_text("import alloc; print(alloc.installed().routed)")
    status, out, err = start([*RUN, "--install", "full", "--no-numpy", "-v", "asks.py"], place)
    assert (status, out) == (0, "('raw', 'mem', 'obj')\n")
    assert err.startswith("alloc: installed  raw, mem, obj (mode full, preset balanced)")
    status, out, err = start([*RUN, "--report=out.json", "asks.py"], place)
    report = json.loads((place / "out.json").read_text())["installed"]
    assert report["python"] == MODE and report["blocks"] > 0 and err == ""


def test_a_refusal_does_not_stop_the_program(place):
    (place / "asks.py").write_text("import alloc; print(alloc.installed().refused)")
    status, out, err = start([*RUN, "asks.py"], place, ALLOC_DISABLE="1")
    assert (status, out, err) == (0, "('ALLOC_DISABLE=1',)\n", "")
    assert start([*RUN, "--install=off", "asks.py"], place)[:2] == (0, "()\n")


def test_standard_input_is_a_program(place):
    same(place, "-", "a", stdin=PROBE)
    status, _, err = same(place, "-", stdin=RAISE)
    assert status == 1 and '"<stdin>", line' in err
    same(place, "-", flags=("-I",), stdin=PROBE)


@pytest.mark.parametrize("code", ["x = 1", "x = 2; 1/0", "x = 3; raise SystemExit(4)"])
@pytest.mark.parametrize("how", ["-i", "PYTHONINSPECT", "from inside"])
def test_a_prompt_after_the_program_sees_its_names(place, code, how):
    if how == "from inside":
        code = f"import os; os.environ['PYTHONINSPECT'] = '1'; {code}"
    (place / "leaves.py").write_text(code)
    flags, env = (("-i",), {}) if how == "-i" else ((), {how: "1"} if " " not in how else {})
    ends = [
        start([*command, "leaves.py"], place, "print(x, __name__)\n", **env)
        for command in (
            [*PLAIN, *flags],
            [PLAIN[0], *flags, *RUN[1:]],
            [PLAIN[0], *flags, *PROCESS[1:]],
        )
    ]
    assert ends[0] == ends[1] == ends[2]
    # Without a terminal only -i prompts.
    assert ("__main__" in ends[0][1]) == (how == "-i")


def test_a_console_script_of_this_python(place):
    plain = start([os.path.join(os.path.dirname(sys.executable), "pytest"), "--version"], place)
    assert start([*RUN, "pytest", "--version"], place) == plain and plain[0] == 0
    assert start([*PROCESS, "pytest", "--version"], place) == plain
    status, _, err = start([*RUN, "ls"], place)
    assert status == 2 and re.match(r"python -m alloc run: \S+ is not a script of this Python", err)


@pytest.mark.parametrize(
    ("head", "ours"),
    [
        ("#!{python}", True),
        ("#! {python} -E", True),
        ('#!"{python}" -s', True),
        ("#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''", True),
        ("#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''", True),
        ("#!/usr/bin/env python", True),
        ("#!{base}", False),
        ("#!/bin/sh\necho", False),
        ("print()", False),
    ],
)
def test_scripts_on_path(place, head, ours):
    base = os.path.realpath(sys.executable)
    if os.path.dirname(base) == os.path.dirname(sys.executable):
        pytest.fail("the tests want a virtual environment, as `make test` has it")
    (place / "bin").mkdir()
    script = place / "bin" / "hello"
    script.write_text(head.format(python=sys.executable, base=base) + "\nprint('hello')\n")
    script.chmod(0o755)
    path = f"{place / 'bin'}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    status, out, err = start([*RUN, "hello"], place, PATH=path)
    assert (status, out) == ((0, "hello\n") if ours else (2, "")), err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to run"),
        (["--install", "all", "x.py"], "--install all: use one of hybrid, arenas, full, off"),
        (["--preset"], "--preset needs a value"),
        (["--fast", "x.py"], "unknown option --fast"),
        (["-m"], "-m needs a value"),
        (["--scope", "host", "x.py"], "--scope host: use one of python, process"),
        (
            ["--allocator=tcmalloc", "x.py"],
            "--allocator tcmalloc: use one of system, jemalloc, arena",
        ),
        (
            ["--scope=process", "--install=arenas", "x.py"],
            "--scope process with --install arenas: use hybrid or full",
        ),
        (["--children", "x.py"], "--children is for --scope process"),
        (["--verbose=yes", "x.py"], "unknown option --verbose"),
        (
            ["--report", "no/such/r.json", "-c", "1"],
            "--report no/such/r.json: No such file or directory",
        ),
        (
            ["--report", "/proc/r.json", "-c", "1"],
            "--report /proc/r.json: No such file or directory",
        ),
    ],
)
def test_wrong_usage(place, words, message):
    assert start([*RUN, *words], place) == (2, "", f"python -m alloc run: {message}\n")
