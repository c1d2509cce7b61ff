"""The process is Python's own, but another program's code started it."""

import http.client
import json
import re
import subprocess
import time

from launching import HERE, SECONDS, Failure, module
from registry import standalone


@standalone("pytest")
def _(kit):
    test = kit.script("def test_it():\n    report.emit()\n", "test_it.py")
    return kit.run(
        [kit.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", test], cwd=kit.place
    )


def _gunicorn(kit, worker):
    """A real server, asked over loopback; the answer is the report."""
    module("gunicorn")
    if worker == "gevent":
        module("gevent")
    log = kit.path("gunicorn.log")
    command = [
        kit.python,
        "-m",
        "gunicorn",
        "--workers",
        "2",
        "--worker-class",
        worker,
        "--graceful-timeout",
        "1",
    ]
    with open(log, "w") as output:
        server = subprocess.Popen(
            [*command, "--bind", "127.0.0.1:0", "report:wsgi"],
            cwd=HERE,
            env=kit.environ(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        status, body = _get(_port(server, log))
    finally:
        server.terminate()
        server.wait(SECONDS)
    if status != 200:
        raise Failure(f"{status}: {body}\n{log.read_text()}")
    return json.loads(body)


def _port(server, log):
    deadline = time.monotonic() + SECONDS
    while True:
        found = re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", log.read_text())
        if found:
            return int(found[1])
        if server.poll() is not None or time.monotonic() > deadline:
            raise Failure(f"gunicorn does not listen:\n{log.read_text()}")
        time.sleep(0.05)


def _get(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


standalone("gunicorn, sync worker", "needs_gunicorn")(lambda kit: _gunicorn(kit, "sync"))
standalone("gunicorn, gthread worker", "needs_gunicorn")(lambda kit: _gunicorn(kit, "gthread"))
standalone("gunicorn, gevent worker", "needs_gunicorn", "needs_gevent")(
    lambda kit: _gunicorn(kit, "gevent")
)
