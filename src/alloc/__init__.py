"""The allocator that this Python process should have.

``import alloc`` finds out whether Python is the application or a guest in a host.
The first use picks the allocator of the functions below, and records why:
``alloc.decision()``.  Neither touches anything else in the process.
"""

from sys import version_info as _version

from ._select import backend as _backend
from ._select import early as _early
from ._select import implementation

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


def __getattr__(name: str) -> object:
    from alloc._lazy import find

    return find(name)


def __dir__() -> "list[str]":
    return sorted({*globals(), *__all__})


def _first_use() -> None:
    from alloc._default import ensure

    ensure()


_backend.on_first_use(_first_use)
if _early:
    from . import _default as _default

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import adaptors as adaptors
    from . import errors as errors
    from . import jemalloc as jemalloc
    from . import layout as layout
    from ._arena import Arena as Arena
    from ._decide import Decision as Decision
    from ._decide import decide as decide
    from ._default import decision as decision
    from ._default import facts as facts
    from ._default import global_allocator as global_allocator
    from ._default import set_global_allocator as set_global_allocator
    from ._default import using as using
    from ._gather import ledger as ledger
    from ._installing import Installed as Installed
    from ._installing import install as install
    from ._installing import installed as installed
    from ._installing import uninstall as uninstall
    from ._lazy import get_include as get_include
    from ._ledger import HeapStatistics as HeapStatistics
    from ._ledger import Ledger as Ledger
    from ._ledger import LedgerDifference as LedgerDifference
    from ._probe import Facts as Facts
    from ._probe import probe as probe
    from ._serve import StatsServer as StatsServer
    from ._serve import serve_stats as serve_stats
    from ._trim import Trimmed as Trimmed
    from ._trim import trim as trim
    from ._trim import trim_async as trim_async
    from ._verify import Check as Check
    from ._verify import Verification as Verification
    from ._verify import verify as verify
    from .errors import AllocError as AllocError
    from .errors import BackendUnavailableError as BackendUnavailableError
    from .errors import DoubleFreeError as DoubleFreeError
    from .errors import GlobalAllocatorConflict as GlobalAllocatorConflict
    from .errors import HeapMisuseError as HeapMisuseError
    from .errors import InvalidFreeError as InvalidFreeError
    from .errors import SizeMismatchError as SizeMismatchError
    from .errors import UseAfterFreeError as UseAfterFreeError
    from .layout import EMPTY_ADDRESS as EMPTY_ADDRESS
    from .layout import MAX_SIZE as MAX_SIZE
    from .layout import Layout as Layout
    from .regions import Bump as Bump
    from .regions import Pool as Pool

# A tuple: garbage collections need not visit one of strings.
__all__ = (
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
    "StatsServer",
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
    "serve_stats",
    "set_global_allocator",
    "trim",
    "trim_async",
    "uninstall",
    "usable_size",
    "using",
    "verify",
)

if _version < (3, 9, 3):
    # There a thread could be given a module that another was still importing, where the
    # import is a relative one (bpo-43517): no thread is to be the first.
    from alloc._lazy import load_all as _load_all

    _load_all()
