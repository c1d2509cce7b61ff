from collections.abc import Callable
from typing import Any

from ._core import NativeAllocator
from .protocols import Allocator

def is_native(allocator: object) -> bool: ...

class Wrapping(NativeAllocator):
    @property
    def upstream(self) -> Allocator: ...

class Counting(Wrapping):
    def __init__(self, upstream: Allocator) -> None: ...
    def _read(self) -> tuple[int, ...]: ...
    def _set_peaks(self, size: int, count: int) -> None: ...

class Sampled(Wrapping):
    def __init__(
        self,
        upstream: Allocator,
        every: int,
        seed: int,
        slots: int,
        room: int,
        faults: bool,
        stack: Callable[[], str],
    ) -> None: ...
    @property
    def sampled(self) -> int: ...
    @property
    def missed(self) -> int: ...
    def check(self) -> int: ...
    def _found(self, *facts: Any) -> None: ...
