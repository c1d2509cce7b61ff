"""The process is Python's own, but another program's code started it."""

import re
import shutil
import subprocess
import time

from launching import (
    HERE,
    HOSTED,
    REPORT,
    REPORTING,
    SECONDS,
    Failure,
    ask,
    free_port,
    module,
    serving,
)
from registry import standalone


@standalone("pytest")
def _(kit):
    return _pytest(kit)


@standalone("pytest-xdist", "needs_xdist")
def _(kit):
    module("xdist", "pytest-xdist")
    return _pytest(kit, "-p", "xdist", "-n", "2")


def _pytest(kit, *options):
    test = kit.script("def test_it():\n    report.emit()\n", "test_it.py")
    command = [kit.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, test]
    return kit.run(command, cwd=kit.place)


def _gunicorn(kit, worker):
    """A real server, asked over loopback; the answer is the report."""
    module("gunicorn")
    if worker == "gevent":
        module("gevent")
    options = ["--workers", "2", "--worker-class", worker, "--graceful-timeout", "1"]
    command = [kit.python, "-m", "gunicorn", *options, "--bind", "127.0.0.1:0", "report:wsgi"]
    log = kit.path("gunicorn.log")
    with serving(command, log, cwd=HERE, env=kit.environ()) as server:
        return ask(_port(server, log))


def _port(server, log):
    deadline = time.monotonic() + SECONDS
    while True:
        found = re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", log.read_text())
        if found:
            return int(found[1])
        if server.poll() is not None or time.monotonic() > deadline:
            raise Failure(f"gunicorn does not listen:\n{log.read_text()}")
        time.sleep(0.05)


standalone("gunicorn, sync worker", "needs_gunicorn")(lambda kit: _gunicorn(kit, "sync"))
standalone("gunicorn, gthread worker", "needs_gunicorn")(lambda kit: _gunicorn(kit, "gthread"))
standalone("gunicorn, gevent worker", "needs_gunicorn", "needs_gevent")(
    lambda kit: _gunicorn(kit, "gevent")
)


def _uvicorn(kit, workers):
    module("uvicorn")
    port = free_port()
    options = ["--workers", workers, "--port", str(port)]
    command = [kit.python, "-m", "uvicorn", *options, "report:asgi"]
    with serving(command, kit.path("uvicorn.log"), cwd=HERE, env=kit.environ()) as server:
        return ask(port, server)


standalone("uvicorn", "needs_uvicorn")(lambda kit: _uvicorn(kit, "1"))
standalone("uvicorn, two workers", "needs_uvicorn")(lambda kit: _uvicorn(kit, "2"))

CELERY = """
import os, signal
from celery import Celery, signals

app = Celery("tasks", broker="memory://", backend="cache+memory://")

@app.task(name="emit")
def emit():
    report.emit()
    os.kill({leader}, signal.SIGTERM)

@signals.worker_ready.connect
def ready(**_):
    emit.delay()
"""
"""A worker that gives itself its one task; the worker's leader then ends."""


def _celery(kit, pool):
    module("celery")
    leader = "os.getppid()" if pool == "prefork" else "os.getpid()"
    place = kit.path("celery")
    place.mkdir()
    (place / "tasks.py").write_text(f"{HOSTED}\n{CELERY.format(leader=leader)}")
    options = ["--pool", pool, "--concurrency", "1", "--without-gossip", "--without-mingle"]
    command = [kit.python, "-m", "celery", "-A", "tasks", "worker", *options]
    return kit.run([*command, "--loglevel", "warning"], cwd=place, C_FORCE_ROOT="1")


standalone("celery, prefork worker", "needs_celery")(lambda kit: _celery(kit, "prefork"))
standalone("celery, solo worker", "needs_celery")(lambda kit: _celery(kit, "solo"))

NOTEBOOK = """
import jupyter_client.manager
manager, client = jupyter_client.manager.start_new_kernel(kernel_name="python3")
answer = client.execute_interactive({code!r}, timeout={seconds})
manager.shutdown_kernel(now=True)
assert answer["content"]["status"] == "ok", answer
"""


@standalone("ipykernel", "needs_ipykernel")
def _(kit):
    """A cell of a notebook."""
    module("ipykernel")
    driver = kit.path("notebook.py")
    driver.write_text(NOTEBOOK.format(code=REPORTING, seconds=SECONDS))
    return kit.run([kit.python, str(driver)], ALLOC_TEST_BUSY="1")


@standalone("PyInstaller, one folder", "needs_pyinstaller")
def _(kit):
    """Frozen with the packages, by the hooks that they bring; it needs nothing else of them."""
    module("PyInstaller")
    place = kit.path("frozen")
    places = [f"--{name}path={place / name}" for name in ("dist", "work", "spec")]
    command = [kit.python, "-m", "PyInstaller", "--onedir", "--noconfirm", "--log-level=WARN"]
    done = subprocess.run(
        [*command, *places, f"--paths={kit.packages}", REPORT],
        capture_output=True,
        text=True,
        check=False,
        env=kit.environ(),
    )
    if done.returncode != 0:
        raise Failure(done.stdout + done.stderr)
    report = kit.run([str(place / "dist" / "report" / "report")], ALLOC_TEST_PATH="")
    if not report["package"].startswith(str(place)):
        raise Failure(f"alloc came from {report['package']}, not from the folder")
    shutil.rmtree(place)
    return report
