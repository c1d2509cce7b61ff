"""Public names that ``import alloc`` does not pay for until they are used."""

from __future__ import annotations

HOMES = {
    "AllocError": "errors",
    "Arena": "_arena",
    "BackendUnavailableError": "errors",
    "Bump": "regions",
    "Check": "_verify",
    "Decision": "_decide",
    "DoubleFreeError": "errors",
    "EMPTY_ADDRESS": "layout",
    "Facts": "_probe",
    "GlobalAllocatorConflict": "errors",
    "HeapMisuseError": "errors",
    "HeapStatistics": "_ledger",
    "Installed": "_installing",
    "InvalidFreeError": "errors",
    "Layout": "layout",
    "Ledger": "_ledger",
    "LedgerDifference": "_ledger",
    "MAX_SIZE": "layout",
    "Pool": "regions",
    "SizeMismatchError": "errors",
    "Trimmed": "_trim",
    "UseAfterFreeError": "errors",
    "Verification": "_verify",
    "_C_API": "_capi",
    "decide": "_decide",
    "decision": "_default",
    "facts": "_default",
    "get_include": "_lazy",
    "global_allocator": "_default",
    "install": "_installing",
    "installed": "_installing",
    "ledger": "_gather",
    "probe": "_probe",
    "set_global_allocator": "_default",
    "StatsServer": "_serve",
    "serve_stats": "_serve",
    "trim": "_trim",
    "trim_async": "_trim",
    "uninstall": "_installing",
    "using": "_default",
    "verify": "_verify",
}
"""Name to the module of this package that defines it."""

MODULES = ("adaptors", "errors", "jemalloc", "layout")
"""Modules that are attributes of the package before anybody imports them."""


UNTAKEN = {"_capi", "_default", "_installing", "_verify"}
"""Importing one of these takes the decision, which is for the first use to do."""


def load_all() -> None:
    """Load them at once, all that two threads could come to first by different ways."""
    from importlib import import_module

    for name in sorted({*HOMES.values(), *MODULES, "_explain", "_kernel", "_numpy_hook"} - UNTAKEN):
        import_module(f"alloc.{name}")


def find(name: str) -> object:
    """The public name ``name``; from then on an attribute of the package as any other."""
    import sys

    package = sys.modules["alloc"]
    if name in HOMES:
        from importlib import import_module

        found = getattr(import_module(f"alloc.{HOMES[name]}"), name)
    elif name in MODULES:
        from importlib import import_module

        found = import_module(f"alloc.{name}")
    elif name == "__version__":
        from importlib.metadata import version

        found = version("pyalloc")
    else:
        raise AttributeError(f"module 'alloc' has no attribute {name!r}")
    setattr(package, name, found)
    return found


def get_include() -> str:
    """The directory to compile C code against: it holds ``alloc/alloc.h``."""
    import os

    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "include")
