"""The log of `Logging`: what a record holds, and both ways to write and read it."""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, NamedTuple

    class Event(NamedTuple):
        """One operation.  What does not apply is 0."""

        time: int
        thread: int
        op: str
        align: int
        address: int
        size: int
        result: int
else:
    from collections import namedtuple

    Event = namedtuple("Event", "time thread op align address size result")

OPERATIONS = ("grant", "zeroed", "resize", "regrant", "release")
"""``grant`` and ``zeroed``: ``size`` bytes were asked for, ``result`` is the address.
``resize``: in place to ``size`` bytes, ``result`` is 1 if so.  ``regrant``: to ``size``
bytes, ``result`` is the address.  ``release``: ``size`` is the caller's, or 0.  A
``result`` of 0 is a refusal."""

MAGIC = b"alloclog\x01\0\0\0\0\0\0\0"
RECORD = struct.Struct("<QIBBHQQQ")
"""Nanoseconds since the log began, the thread's number, operation, log2 of the
alignment, 0, address, size, result.  40 bytes, little-endian."""
HEAD = "time,thread,op,align,address,size,result\n"


def pack(event: Event) -> bytes:
    """An event as a binary record."""
    time, thread, op, align, address, size, result = event
    number = OPERATIONS.index(op)
    return RECORD.pack(time, thread, number, align.bit_length() - 1, 0, address, size, result)


def line(event: Event) -> str:
    """An event as a line of CSV."""
    time, thread, op, align, address, size, result = event
    return f"{time},{thread},{op},{align},{address:#x},{size},{result:#x}\n"


def read(file: IO[bytes]) -> Iterator[Event]:
    """The events of a log of either format.

    Raises ``ValueError`` for what is none, or was cut off inside a record.
    """
    start = file.read(len(MAGIC))
    if start == MAGIC:
        while True:
            chunk = file.read(RECORD.size * 4096)
            if len(chunk) % RECORD.size:
                raise ValueError("the log ends inside a record")
            for time, thread, op, align, _, address, size, result in RECORD.iter_unpack(chunk):
                if op >= len(OPERATIONS):
                    raise ValueError(f"the log names an operation {op}, which nobody knows")
                yield Event(time, thread, OPERATIONS[op], 1 << align, address, size, result)
            if not chunk:
                return
    text = start + file.readline()
    if text != HEAD.encode():
        raise ValueError("not a log of alloc.adaptors.Logging")
    for number, row in enumerate(file, 2):
        fields = row.decode().rstrip("\r\n").split(",")
        if len(fields) != 7 or fields[2] not in OPERATIONS:
            raise ValueError(f"line {number} is no record: {row[:80]!r}")
        time, thread, op, *numbers = fields
        yield Event(int(time), int(thread), op, *(int(word, 0) for word in numbers))
