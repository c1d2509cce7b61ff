"""The allocator that this Python process should have.

``import alloc`` finds out whether Python is the application or a guest in a host,
picks the allocator of the functions below, and records why: ``alloc.decision()``.
It touches nothing else in the process.
"""

from __future__ import annotations

from ._decide import Decision, decide
from ._default import decision, facts, global_allocator, set_global_allocator, using
from ._lazy import __getattr__ as __getattr__
from ._lazy import get_include
from ._probe import Facts, probe
from ._select import backend as _backend
from ._select import implementation
from .errors import (
    AllocError,
    BackendUnavailableError,
    DoubleFreeError,
    GlobalAllocatorConflict,
    HeapMisuseError,
    InvalidFreeError,
    SizeMismatchError,
    UseAfterFreeError,
)
from .layout import EMPTY_ADDRESS, MAX_SIZE, Layout

Block = _backend.Block
Jemalloc = _backend.Jemalloc
System = _backend.System
aligned_alloc = _backend.aligned_alloc
allocate = _backend.allocate
calloc = _backend.calloc
current_allocator = _backend.current_allocator
free = _backend.free
malloc = _backend.malloc
realloc = _backend.realloc
usable_size = _backend.usable_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import adaptors as adaptors
    from . import jemalloc as jemalloc
    from ._arena import Arena as Arena
    from ._gather import ledger as ledger
    from ._installing import Installed as Installed
    from ._installing import install as install
    from ._installing import installed as installed
    from ._installing import uninstall as uninstall
    from ._ledger import HeapStatistics as HeapStatistics
    from ._ledger import Ledger as Ledger
    from ._ledger import LedgerDifference as LedgerDifference
    from ._trim import Trimmed as Trimmed
    from ._trim import trim as trim
    from ._trim import trim_async as trim_async
    from ._verify import Check as Check
    from ._verify import Verification as Verification
    from ._verify import verify as verify
    from .regions import Bump as Bump
    from .regions import Pool as Pool

__all__ = [
    "EMPTY_ADDRESS",
    "MAX_SIZE",
    "AllocError",
    "Arena",
    "BackendUnavailableError",
    "Block",
    "Bump",
    "Check",
    "Decision",
    "DoubleFreeError",
    "Facts",
    "GlobalAllocatorConflict",
    "HeapMisuseError",
    "HeapStatistics",
    "Installed",
    "InvalidFreeError",
    "Jemalloc",
    "Layout",
    "Ledger",
    "LedgerDifference",
    "Pool",
    "SizeMismatchError",
    "System",
    "Trimmed",
    "UseAfterFreeError",
    "Verification",
    "adaptors",
    "aligned_alloc",
    "allocate",
    "calloc",
    "current_allocator",
    "decide",
    "decision",
    "facts",
    "free",
    "get_include",
    "global_allocator",
    "implementation",
    "install",
    "installed",
    "jemalloc",
    "ledger",
    "malloc",
    "probe",
    "realloc",
    "set_global_allocator",
    "trim",
    "trim_async",
    "uninstall",
    "usable_size",
    "using",
    "verify",
]
