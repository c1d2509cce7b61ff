"""`serve_stats()`: the ledger of this process, for its owner, over a local socket."""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 1
CREDENTIALS = struct.Struct("3i")
"""``struct ucred``: pid, uid, gid."""


def directory() -> str:
    """Where the sockets of this user are; made with mode 0700 where it is not there.

    Raises ``PermissionError`` for one that others made or may enter.
    """
    place = os.path.join(_runtime(), f"pyalloc-{os.geteuid()}")
    try:
        os.mkdir(place, 0o700)
    except FileExistsError:
        pass
    check(place)
    return place


def _runtime() -> str:
    """A directory that lives as long as the machine is up."""
    own = f"/run/user/{os.geteuid()}"
    return own if os.path.isdir(own) and os.access(own, os.W_OK) else "/tmp"


def check(place: str) -> None:
    """Raise ``PermissionError`` unless it is a directory of ours that nobody else may enter."""
    found = os.lstat(place)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{place} is not this user's directory")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"{place} may be entered by others: chmod 700 it")


def path_of(pid: int) -> str:
    """The socket of a process of this user."""
    return os.path.join(directory(), f"{pid}.sock")


def peer(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other side, from the kernel."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, uid, _ = CREDENTIALS.unpack(data)
    return pid, uid


# Before the class: PyPy allows no annotation of what was named global above it.
_server: StatsServer | None = None


class StatsServer:
    """What `serve_stats` gives; `close` ends it.  A context manager."""

    def __init__(self) -> None:
        self.path = path_of(os.getpid())
        self._pid = os.getpid()
        try:
            os.unlink(self.path)  # of an earlier process with this number
        except FileNotFoundError:
            pass
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(self.path)
        self._socket.listen(4)
        self._wake, self._woken = os.pipe()
        self._thread = threading.Thread(target=self._run, name="alloc-stats", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        import select

        wanted = [self._socket.fileno(), self._wake]
        while True:
            ready = select.select(wanted, [], [])[0]
            if self._wake in ready:
                return
            try:
                connection, _ = self._socket.accept()
            except OSError:
                continue
            with connection:
                try:
                    self._answer(connection)
                except OSError:
                    continue  # the reader has gone

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(2)
        if peer(connection)[1] != os.geteuid():
            return
        import json

        from ._gather import ledger
        from ._installing import installed

        now = {"version": VERSION, "pid": self._pid, "ledger": ledger().as_dict()}
        now["installed"] = str(installed())
        connection.sendall(json.dumps(now).encode() + b"\n")

    def close(self) -> None:
        """End the thread and take the socket away.  Twice is fine; in a forked child it
        closes the child's copies only."""
        global _server
        if self._socket.fileno() < 0:
            return
        if os.getpid() == self._pid:
            os.write(self._woken, b"x")
            self._thread.join(5)
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                pass
        self._socket.close()
        os.close(self._wake)
        os.close(self._woken)
        if _server is self:
            _server = None

    def __enter__(self) -> StatsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_lock = threading.Lock()


def _in_child() -> None:
    global _lock
    _lock = threading.Lock()
    if _server is not None:
        _server.close()


def serve_stats() -> StatsServer:
    """Let ``python -m alloc top PID`` of the same user read this process's ledger.

    Starts one daemon thread and a Unix socket in a directory of mode 0700; whoever
    connects is asked for by ``SO_PEERCRED`` and gets nothing unless it is the same user.
    Once in a process: a further call returns the same server.  A forked child does not
    serve until it calls this.  Nothing starts it but this call, in a guest too.

    Raises ``OSError`` where a socket cannot be made, ``PermissionError`` if its directory
    belongs to others.  Any thread.  Linux.
    """
    global _server
    if not hasattr(socket, "SO_PEERCRED"):
        raise OSError("serve_stats() needs SO_PEERCRED, which Linux has")
    with _lock:
        if _server is None:
            import atexit

            _server = StatsServer()
            atexit.register(_server.close)
            if not _hooked:
                _hooked.append(True)
                os.register_at_fork(after_in_child=_in_child)
        return _server


_hooked: list[bool] = []


def ask(pid: int) -> dict[str, Any]:
    """What the process tells of itself now.

    Raises ``FileNotFoundError`` if it does not serve, ``PermissionError`` if who answers
    is another process or user, ``OSError`` or ``ValueError`` for a broken answer.
    """
    import json

    if not hasattr(socket, "SO_PEERCRED"):
        raise OSError("asking needs SO_PEERCRED, which Linux has")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(path_of(pid))
        other, user = peer(connection)
        if (other, user) != (pid, os.geteuid()):
            raise PermissionError(f"process {other} of user {user} answers for {pid}")
        data = b""
        while not data.endswith(b"\n"):
            part = connection.recv(1 << 16)
            if not part:
                raise OSError("it closed the connection")
            data += part
    found: dict[str, Any] = json.loads(data)
    return found
