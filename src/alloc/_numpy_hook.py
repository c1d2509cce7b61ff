"""Reaches NumPy's core when it is imported, now or later, without importing it."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

CORES = ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath")
"""NumPy 2, NumPy 1.  In NumPy 2 the second one exists as well: an alias of the first."""


class _Loader:
    """The real loader, and a call when it is done."""

    def __init__(self, loader: Any, arrived: Callable[[Any], None]) -> None:
        self._loader = loader
        self._arrived = arrived

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None:
            spec.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._arrived(module)


class _Finder:
    """First on ``sys.meta_path`` until NumPy's core is asked for, then gone."""

    def __init__(self, arrived: Callable[[Any], None]) -> None:
        self.arrived = arrived

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in CORES:
            return None
        for finder in list(sys.meta_path):
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self.arrived)  # type: ignore[assignment]
                self.remove()
                return spec
        return None

    def remove(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)


def attach_now_or_on_import(arrived: Callable[[Any], None]) -> None:
    """Call ``arrived`` with NumPy's core, now if it is imported, else when it is."""
    for name in CORES:
        module = sys.modules.get(name)
        if hasattr(module, "_ARRAY_API"):
            arrived(module)
            return
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(arrived))
