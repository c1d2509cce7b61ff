"""`Logging`: every operation, with time and thread, into a file."""

from __future__ import annotations

import os
import time
from _thread import get_ident

from . import _log
from ._base import Forwarding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import IO

    from alloc.protocols import Allocator

BUFFERED = 1024


class Logging(Forwarding):
    """Writes what is asked of it to a file, for ``python -m alloc replay``.

    ``path`` is overwritten; ``format`` is ``binary``, 40 bytes for each operation, or
    ``csv``.  Buffered: `flush` or `close` before the file is read.  After `close`,
    which also happens at the end of a ``with``, it only passes on.  The order is that
    in which calls came back; a forked child writes nothing.
    """

    def __init__(
        self, upstream: Allocator, path: str | os.PathLike[str], *, format: str = "binary"
    ) -> None:
        super().__init__(upstream)
        if format not in ("binary", "csv"):
            raise ValueError(f"format is 'binary' or 'csv', got {format!r}")
        self.path = os.fspath(path)
        self.format = format
        self._file: IO[bytes] | None = open(self.path, "wb")  # noqa: SIM115 - closed by close()
        self._file.write(_log.MAGIC if format == "binary" else _log.HEAD.encode())
        self._process = os.getpid()
        self._begin = time.perf_counter_ns()
        self._lock = self._new_lock()
        self._threads: dict[int, int] = {}
        self._events: list[_log.Event] = []

    def _log(self, op: str, align: int, address: int, size: int, result: int) -> None:
        now = time.perf_counter_ns() - self._begin
        with self._lock:
            thread = self._threads.setdefault(get_ident(), len(self._threads))
            self._events.append(_log.Event(now, thread, op, align, address, size, result))
            if len(self._events) >= BUFFERED:
                self.flush()

    def flush(self) -> None:
        """Write out what is buffered."""
        with self._lock:
            events, self._events = self._events, []
            if self._file is None or self._process != os.getpid():
                return
            if self.format == "binary":
                self._file.write(b"".join(map(_log.pack, events)))
            else:
                self._file.write("".join(map(_log.line, events)).encode())
            self._file.flush()

    def close(self) -> None:
        """End the log.  Nothing the second time."""
        with self._lock:
            self.flush()
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def __enter__(self) -> Logging:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self.close()

    def _grant(self, size: int, align: int, zeroed: bool) -> int:
        result = 0
        try:
            result = super()._grant(size, align, zeroed)
            return result
        finally:
            self._log("zeroed" if zeroed else "grant", align, 0, size, result)

    def _resize(self, address: int, size: int, align: int, new_size: int) -> bool:
        result = False
        try:
            result = super()._resize(address, size, align, new_size)
            return result
        finally:
            self._log("resize", align, address, new_size, int(result))

    def _regrant(self, address: int, size: int, align: int, new_size: int) -> int:
        result = 0
        try:
            result = super()._regrant(address, size, align, new_size)
            return result
        finally:
            self._log("regrant", align, address, new_size, result)

    def _release(self, address: int, size: int, align: int) -> None:
        # Logged first, lest another thread's grant of the same address comes before.
        self._log("release", align, address, size, 0)
        super()._release(address, size, align)

    def __repr__(self) -> str:
        return f"alloc.adaptors.Logging({self.upstream!r}, {self.path!r})"
