"""Public names that ``import alloc`` does not pay for until they are used."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def __getattr__(name: str) -> Any:
    if name == "Arena":
        from ._arena import Arena

        return Arena
    if name == "__version__":
        from importlib.metadata import version

        return version("pyalloc")
    raise AttributeError(f"module 'alloc' has no attribute {name!r}")


def get_include() -> str:
    """The directory to compile C code against: it holds ``alloc/alloc.h``."""
    import os

    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "include")
