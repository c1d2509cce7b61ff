from typing import SupportsIndex, final

from ._core import NativeAllocator
from .protocols import Allocator

@final
class Upstream:
    def __new__(cls, allocator: Allocator | None) -> Upstream: ...

@final
class Pool(NativeAllocator):
    carves: bool

    def __init__(
        self,
        block_size: SupportsIndex,
        *,
        align: SupportsIndex = 16,
        chunk: SupportsIndex = 65536,
        limit: SupportsIndex | None = None,
        upstream: Allocator | None = None,
    ) -> None: ...
    @property
    def upstream(self) -> Allocator: ...
    @property
    def block_size(self) -> int: ...
    @property
    def held(self) -> int: ...
    @property
    def live(self) -> int: ...
