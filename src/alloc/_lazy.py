"""Public names that ``import alloc`` does not pay for until they are used."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOMES = {
    "_C_API": "_capi",
    "Arena": "_arena",
    "Bump": "regions",
    "Check": "_verify",
    "HeapStatistics": "_ledger",
    "Installed": "_installing",
    "Ledger": "_ledger",
    "LedgerDifference": "_ledger",
    "Pool": "regions",
    "Trimmed": "_trim",
    "Verification": "_verify",
    "install": "_installing",
    "installed": "_installing",
    "ledger": "_gather",
    "trim": "_trim",
    "trim_async": "_trim",
    "uninstall": "_installing",
    "verify": "_verify",
}
"""Name to the module of this package that defines it."""

MODULES = ("adaptors", "jemalloc")
"""Modules that are attributes of the package before anybody imports them."""


def __getattr__(name: str) -> Any:
    if name in HOMES:
        from importlib import import_module

        return getattr(import_module(f"alloc.{HOMES[name]}"), name)
    if name in MODULES:
        from importlib import import_module

        return import_module(f"alloc.{name}")
    if name == "__version__":
        from importlib.metadata import version

        return version("pyalloc")
    raise AttributeError(f"module 'alloc' has no attribute {name!r}")


def get_include() -> str:
    """The directory to compile C code against: it holds ``alloc/alloc.h``."""
    import os

    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "include")
