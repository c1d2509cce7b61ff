"""One run of a command, watched from outside: time, memory over time, page faults.

Memory is the resident set of the command's process and all that it started, added up
every 10 ms from ``/proc``: pages that processes share count once for each.
"""

import os
import select
import signal
import subprocess
import tempfile
import time

INTERVAL = 0.01
TAIL = 0.1
"""Part of a run that counts as its end."""

LAST = 5
"""Samples that are its end at least."""

PATIENCE = 10.0
"""Seconds that a process has to end after SIGTERM."""


class Failed(Exception):
    """Why a run does not count."""


class Run:
    """What one run came to."""

    def __init__(self):
        self.seconds = self.cpu = 0.0
        self.peak = self.end = self.faults = self.processes = 0
        self.status = None
        self.failed = None
        self.curve = []

    def as_dict(self):
        """Without the curve."""
        return {name: value for name, value in vars(self).items() if name != "curve"}


def memory(pid):
    """Bytes now and at most so far, of one process; ``None`` if it has gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            text = file.read()
    except OSError:
        return None
    found = []
    for name in (b"VmRSS:", b"VmHWM:"):
        at = text.find(name)
        found.append(int(text[at + len(name) :].split(None, 1)[0]) << 10 if at >= 0 else 0)
    return found


def family(pid):
    """The process and all its descendants."""
    found, waiting = [], [pid]
    while waiting:
        parent = waiting.pop()
        found.append(parent)
        try:
            for thread in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{thread}/children") as file:
                    waiting += [int(word) for word in file.read().split()]
        except OSError:
            continue
    return found


class Watch:
    """Samples of one command while it runs."""

    def __init__(self, pid):
        self.pid = pid
        self.began = time.monotonic()
        self.curve = []
        self.highest = {}
        self.members = [pid]
        self.peak_sum = 0

    def sample(self):
        """Take one."""
        if len(self.curve) % 5 == 0:
            self.members = family(self.pid)
        total = 0
        for pid in self.members:
            found = memory(pid)
            if found is not None:
                total += found[0]
                self.highest[pid] = max(found[1], self.highest.get(pid, 0))
        if total:  # nothing is resident of a process that is ending
            self.curve.append((time.monotonic() - self.began, total))
            self.peak_sum = max(self.peak_sum, total)

    def peak(self):
        """The most: by the kernel for one process, by the samples for several."""
        return max([self.peak_sum, *self.highest.values()])

    def end(self, since=None):
        """Median of the last part of the run, or of what came after ``since``."""
        if not self.curve:
            return 0
        if since is None:
            since = self.curve[-1][0] * (1 - TAIL)
        sizes = [size for moment, size in self.curve if moment >= since]
        sizes = sizes if len(sizes) >= LAST else [size for _, size in self.curve[-LAST:]]
        return sorted(sizes)[len(sizes) // 2]


def tail(file):
    """The last line that says something."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 4000))
    lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def run(command, environ, timeout=None, expected=(0,), load=None):
    """Run it once; a failure is in the result.  ``load`` is a `Load` for services."""
    result = Run()
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=errors, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            result.failed = f"{command[0]}: {error.strerror}"
            return result
        watch = Watch(process.pid)
        try:
            finish = _serve if load else _wait
            usage, seconds, since = finish(process, watch, timeout, load)
            if load is None and result.failed is None and process.returncode not in expected:
                raise Failed(f"{describe(process.returncode)}: {tail(errors)}".rstrip(": "))
        except Failed as error:
            result.failed = str(error)
            if load is not None and tail(errors):
                result.failed += f" ({tail(errors)})"
            usage = None
        finally:
            kill(process)
    result.status = process.returncode
    if usage is not None:
        result.seconds = seconds
        result.cpu = usage.ru_utime + usage.ru_stime
        result.faults = usage.ru_minflt + usage.ru_majflt
        result.peak, result.end = watch.peak(), watch.end(since)
        result.processes = len(watch.highest)
        result.curve = watch.curve
    return result


def describe(status):
    """An exit status in words."""
    if status is not None and status < 0:
        try:
            return f"ended by {signal.Signals(-status).name}"
        except ValueError:
            return f"ended by signal {-status}"
    return f"exit status {status}"


def _ended(process):
    """The resource usage, if it has ended; takes the status from the kernel."""
    pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    if not pid:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def _watched(process, watch, until):
    """Sample until the process has ended, which gives its usage, or ``until()`` is true."""
    try:
        handle = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        handle = None
    poll = select.poll()
    if handle is not None:
        poll.register(handle, select.POLLIN)
    try:
        while True:
            watch.sample()
            usage = _ended(process)
            if usage is not None or until():
                return usage
            poll.poll(INTERVAL * 1000)
    finally:
        if handle is not None:
            os.close(handle)


def _wait(process, watch, timeout, _):
    """To the end of the command."""
    limit = None if timeout is None else watch.began + timeout
    usage = _watched(process, watch, lambda: limit is not None and time.monotonic() > limit)
    if usage is None:
        raise Failed(f"ran longer than {timeout:g} s")
    return usage, time.monotonic() - watch.began, None


class Load:
    """A second process that puts a service under load."""

    def __init__(self, command, ready=None, settle=2.0):
        self.command = command
        self.ready = ready
        self.settle = settle

    def is_ready(self):
        """Whether the service accepts connections."""
        import socket

        if self.ready is None:
            return True
        try:
            socket.create_connection(self.ready, timeout=1).close()
        except OSError:
            return False
        return True


def _serve(process, watch, timeout, load):
    """A service: until it is ready, under load, and for a moment after it."""
    limit = time.monotonic() + (timeout or 600.0)

    def late():
        return time.monotonic() > limit

    def during(until, what):
        if _watched(process, watch, lambda: until() or late()) is not None:
            raise Failed(f"the service ended {what}: {describe(process.returncode)}")
        if late():
            raise Failed(f"{what} it took longer than {timeout or 600:g} s")

    during(load.is_ready, "before it was ready")
    with tempfile.TemporaryFile() as errors:
        began = time.monotonic()
        try:
            loader = subprocess.Popen(
                load.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors
            )
        except OSError as error:
            raise Failed(f"the load cannot run: {error}") from None
        try:
            during(lambda: loader.poll() is not None, "under load")
            seconds = time.monotonic() - began
            if loader.returncode:
                text = tail(errors)
                raise Failed(f"the load failed, {describe(loader.returncode)}: {text}".rstrip(": "))
        finally:
            if loader.poll() is None:
                loader.kill()
                loader.wait()
    settled = time.monotonic() + load.settle
    during(lambda: time.monotonic() > settled, "after the load")
    since = time.monotonic() - watch.began - load.settle / 2
    limit = time.monotonic() + PATIENCE
    # The curve ends here: what a service frees when it is told to go says nothing.
    last = Watch(process.pid)
    process.terminate()
    usage = _watched(process, last, late)
    if usage is None:
        raise Failed(f"the service did not end within {PATIENCE:g} s of SIGTERM")
    return usage, seconds, since


def kill(process):
    """Nothing of a run outlives it: its session is asked to go, and then made to."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            break
        limit = time.monotonic() + 2
        while process.returncode is None and number == signal.SIGTERM:
            if _ended(process) is not None or time.monotonic() > limit:
                break
            time.sleep(INTERVAL)
    if process.returncode is None:
        process.wait()
