"""The process is Python's own: plain ways, other names and launchers, children, stacks."""

import json
import os
import pty
import shutil
import subprocess
import zipapp
import zipfile

from launching import HERE, REPORT, REPORTING, SECONDS, Failure, Missing, loader, module
from registry import standalone

# --- plain ways -------------------------------------------------------------------------

PLAIN = {
    "script": [REPORT],
    "-c": ["-c", REPORTING],
    "-X importtime": ["-X", "importtime", REPORT],
    "-X dev": ["-X", "dev", REPORT],
    "-I": ["-I", REPORT],
    "-S": ["-S", REPORT],
    "-E": ["-E", REPORT],
    "-OO -W error": ["-OO", "-W", "error", REPORT],
}
for _name, _arguments in PLAIN.items():
    standalone(_name)(lambda kit, arguments=_arguments: kit.run([kit.python, *arguments]))

for _value in ("malloc", "debug"):
    standalone(f"PYTHONMALLOC={_value}")(
        lambda kit, value=_value: kit.run([kit.python, REPORT], PYTHONMALLOC=value)
    )


@standalone("-m module")
def _(kit):
    return kit.run([kit.python, "-m", "report"], cwd=HERE)


@standalone("stdin")
def _(kit):
    return kit.run([kit.python], stdin=REPORTING)


def _repl(kit, **environ):
    """Type a line at an interactive prompt, as a person does."""
    report = kit.path("report.json")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [kit.python, "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env=kit.environ(ALLOC_TEST_REPORT=str(report), **environ),
    )
    os.close(theirs)
    seen = b""
    try:
        while b">>> " not in seen:
            seen += os.read(ours, 4096)
        os.write(ours, f"{REPORTING}\rexit()\r".encode())
        while True:
            seen += os.read(ours, 4096)
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
        process.wait(SECONDS)
    if not report.exists():
        raise Failure(f"the prompt reported nothing: {seen.decode(errors='replace')}")
    return json.loads(report.read_text())


standalone("REPL, TERM=dumb")(lambda kit: _repl(kit, TERM="dumb"))
standalone("REPL, TERM=xterm")(lambda kit: _repl(kit, TERM="xterm"))


# --- another name, another launcher -------------------------------------------------------


@standalone("symlink with another name")
def _(kit):
    link = kit.path("snake")
    link.symlink_to(os.path.realpath(kit.python))
    return kit.run([str(link), REPORT])


@standalone("renamed copy")
def _(kit):
    copy = kit.path("database")
    shutil.copy(os.path.realpath(kit.python), copy)
    return kit.run([str(copy), REPORT], PYTHONHOME=kit.home)


@standalone("exec -a")
def _(kit):
    return kit.run(["an odd name", REPORT], executable=kit.python, PYTHONHOME=kit.home)


@standalone("through ld.so")
def _(kit):
    return kit.run([loader(kit.python), kit.python, REPORT])


@standalone("through a shell")
def _(kit):
    return kit.run(["sh", "-c", '"$@"; exit $?', "sh", kit.python, REPORT])


@standalone("a C main that calls Py_BytesMain", "needs_cc")
def _(kit):
    return kit.run([kit.host("main.c"), REPORT], PYTHONHOME=kit.home)


@standalone("zipapp")
def _(kit):
    source, archive = kit.path("app"), kit.path("app.pyz")
    source.mkdir()
    shutil.copy(REPORT, source / "__main__.py")
    zipapp.create_archive(source, archive, interpreter=kit.python)
    return kit.run([str(archive)])


def _venv(kit, *options):
    """The scripts of a new virtual environment."""
    place = kit.path("venv")
    done = subprocess.run(
        [kit.python, "-m", "venv", *options, str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Missing(f"this Python cannot make a venv: install python3-venv\n{done.stdout}")
    return place / "bin"


@standalone("python of a venv", "needs_venv")
def _(kit):
    return kit.run([str(_venv(kit, "--without-pip") / "python"), REPORT])


WHEEL = {
    "entry.py": REPORTING.replace("report.emit()", "main = report.emit") + "\n",
    "entry-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: entry\nVersion: 1\n",
    "entry-1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "entry-1.dist-info/entry_points.txt": "[console_scripts]\nentry = entry:main\n",
    "entry-1.dist-info/RECORD": "",
}


@standalone("console script", "needs_venv")
def _(kit):
    scripts = _venv(kit)
    wheel = kit.place / "entry-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in WHEEL.items():
            archive.writestr(name, text)
    done = subprocess.run(
        [str(scripts / "python"), "-m", "pip", "install", "--no-index", "--no-deps", str(wheel)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Failure(done.stdout + done.stderr)
    return kit.run([str(scripts / "entry")])


# --- children, threads, stacks ------------------------------------------------------------

PROCESS = """
import multiprocessing
if __name__ == "__main__":
    child = multiprocessing.get_context({method!r}).Process(target=report.emit)
    child.start(); child.join(); sys.exit(child.exitcode)
"""
for _method in ("spawn", "fork", "forkserver"):
    _text = PROCESS.format(method=_method)
    standalone(f"multiprocessing {_method}")(
        lambda kit, text=_text: kit.run([kit.python, kit.script(text)])
    )

SCRIPTS = {
    "thread": """
import threading
thread = threading.Thread(target=report.emit); thread.start(); thread.join()
""",
    "thread with a small stack": """
import threading
threading.stack_size(256 * 1024)
thread = threading.Thread(target=report.emit); thread.start(); thread.join()
""",
    "forked child": """
import os
child = os.fork()
if child == 0:
    report.emit(); os._exit(0)
assert os.waitpid(child, 0)[1] == 0
""",
    "child forked by a thread": """
import os, threading
def work():
    child = os.fork()
    if child == 0:
        report.emit(); os._exit(0)
    os.waitpid(child, 0)
thread = threading.Thread(target=work); thread.start(); thread.join()
""",
    "daemon, forked twice": """
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        report.emit()
    else:
        os.wait()
    os._exit(0)
os.wait()
""",
    "deep recursion": """
def dig(depth):
    return dig(depth - 1) if depth else report.emit()
dig(900)
""",
    "signal handler": """
import signal
signal.signal(signal.SIGUSR1, lambda *_: report.emit())
signal.raise_signal(signal.SIGUSR1)
""",
    "asyncio": """
import asyncio
async def main():
    report.emit()
asyncio.run(main())
""",
}
for _name, _text in SCRIPTS.items():
    standalone(_name)(lambda kit, text=_text: kit.run([kit.python, kit.script(text)]))


@standalone("subinterpreter", implementation=None)
def _(kit):
    return kit.run(
        [
            kit.python,
            kit.script(f"""
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
failed = interpreters.run_string(interpreters.create(), {REPORTING!r})
sys.exit(str(failed) if failed else 0)
"""),
        ]
    )


@standalone("greenlet", "needs_gevent")
def _(kit):
    module("greenlet")
    text = "import greenlet; greenlet.greenlet(report.emit).switch()"
    return kit.run([kit.python, kit.script(text)])


@standalone("gevent", "needs_gevent")
def _(kit):
    module("gevent")
    text = "import gevent.monkey; gevent.monkey.patch_all(); gevent.spawn(report.emit).get()"
    return kit.run([kit.python, kit.script(text)])


def _limited(kit, limit):
    limited = ["sh", "-c", f'ulimit -s {limit} && exec "$@"', "sh"]
    return kit.run([*limited, kit.python, REPORT])


standalone("ulimit -s 128")(lambda kit: _limited(kit, "128"))
standalone("ulimit -s unlimited")(lambda kit: _limited(kit, "unlimited"))
