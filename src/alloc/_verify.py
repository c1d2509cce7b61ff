"""Checks that the decision holds in this process, by doing and not by saying."""

from __future__ import annotations

from alloc._record import Record

from . import _default
from ._probe import process
from ._select import backend, core_error, implementation
from .errors import BackendUnavailableError
from .layout import EMPTY_ADDRESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as record

    from .protocols import Allocator, Block
else:
    from ._record import record

SIZES = (1, 8, 64, 513, 4096, 65_536, 3_000_000)
ALIGNS = (1, 16, 64, 4096)


@record(frozen=True)
class Check(Record):
    """One claim and whether it holds."""

    name: str
    """The claim."""
    ok: bool
    """Whether it holds."""
    detail: str = ""
    """What was seen."""


@record(frozen=True)
class Verification(Record):
    """All claims; true if every one holds.  ``str()`` gives one line for each."""

    checks: tuple[Check, ...]
    """In the order they were made."""

    @property
    def ok(self) -> bool:
        """Whether every claim holds."""
        return all(check.ok for check in self.checks)

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return "\n".join(
            f"{'ok ' if check.ok else 'BAD'}  {check.name}: {check.detail}" for check in self.checks
        )


class _Failed(Exception):
    pass


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise _Failed(text)


def _in_force() -> str:
    decision, current = _default.decision(), _default.global_allocator()
    _require(
        current.name == decision.allocator,
        f"decided {decision.allocator}, in force is {current.name}",
    )
    return f"{current.name}, rule {decision.rule}"


def _embedding() -> str:
    if implementation != "cython":
        return f"not read: {core_error}"
    known = _default.facts().stack
    verdict, _, _, detail = process.scan_stack()
    now = {1: "main", 0: "guest"}.get(verdict)
    # A thread or a fork of the initial thread must see what the import saw.
    _require(now == known, f"the stack said {known} at import and says {now} now ({detail})")
    return f"the stack says {now}"


def _address(block: Block) -> int | None:
    """The block's address, or ``None`` where the interpreter cannot tell it."""
    try:
        return block.address
    except BackendUnavailableError:  # no ctypes: isolated subinterpreters, a hidden libpython
        return None


def _contract(allocator: Allocator) -> str:
    for size in SIZES:
        for align in ALIGNS:
            with allocator.allocate(size, align, zeroed=True) as block:
                where = f"{size} bytes at alignment {align}"
                address = _address(block)
                if address is not None:
                    _require(address % align == 0, f"{where}: misaligned")
                    _require(allocator.owns(address), f"{where}: not owned")
                _require(block.usable_size >= size, f"{where}: usable size too small")
                _require(block.view[-1] == 0 and block.view[0] == 0, f"{where}: not zero")
                block.view[0] = 1
                block.resize(size + 100_000)
                _require(block.view[0] == 1, f"{where}: contents lost in resize")
                _require((_address(block) or 0) % align == 0, f"{where}: misaligned by resize")
    with allocator.allocate(0) as block:
        _require(block.address == EMPTY_ADDRESS, "an empty block has an address")
    return f"{len(SIZES) * len(ALIGNS)} layouts allocated, zeroed, resized, freed"


def _counted(allocator: Allocator) -> str:
    """The allocator's own counters see a block come and go."""
    size = 3 << 20
    if allocator.name == "jemalloc":
        read = backend.Jemalloc().read
        before, freed = read("thread.allocated"), read("thread.deallocated")
        with allocator.allocate(size) as block:
            base, length = backend.Jemalloc().range
            _require(base <= block.address < base + length, "a block outside jemalloc's range")
            _require(read("thread.allocated") - before >= size, "jemalloc did not count a block")
        _require(read("thread.deallocated") - freed >= size, "jemalloc did not count a free")
        return "jemalloc's thread.allocated and thread.deallocated moved, the block is in its range"
    if allocator.name == "system" and implementation == "cython":
        with allocator.allocate(size) as block:
            _require(not _jemalloc_owns(block.address), "a System block in jemalloc's range")
        served = process.glibc_serves()
        return f"malloc is served by {process.describe_malloc()}" + (
            ", whose accounts show a block" if served == 1 else ""
        )
    before_blocks = allocator.statistics().blocks
    with allocator.allocate(size):
        now = allocator.statistics().blocks
        counted = before_blocks is None or now is None or now == before_blocks + 1
        _require(counted, "the allocator did not count a block")
    _require(allocator.statistics().blocks == before_blocks, "the allocator did not count a free")
    return "its count of blocks rose and fell" if before_blocks is not None else "keeps no count"


def _jemalloc_owns(address: int) -> bool:
    return bool(backend.jemalloc_owns(address))


def verify() -> Verification:
    """Check the decision by allocating, reading counters and scanning the stack again.

    Takes some milliseconds and a few megabytes for a moment; leaves nothing
    behind.  Other threads may go on meanwhile.  Never raises for a claim that
    fails: it is in the result.
    """
    current = _default.global_allocator()
    claims: tuple[tuple[str, Callable[[], str]], ...] = (
        ("the decision is in force", _in_force),
        ("the embedding is as it was at import", _embedding),
        (f"{current.name} keeps the contract", lambda: _contract(current)),
        (f"{current.name} really serves", lambda: _counted(current)),
    )
    checks = []
    for name, claim in claims:
        try:
            checks.append(Check(name, True, claim()))
        except Exception as error:
            text = str(error) if isinstance(error, _Failed) else repr(error)
            checks.append(Check(name, False, text))
    return Verification(tuple(checks))
