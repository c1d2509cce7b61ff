"""What an allocator under test declares not to promise, so that those rules drop out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Capabilities:
    """The whole contract by default; each absence is declared.

    What ``allocator.capabilities`` itself promises (``owns``, ``checked``) is
    always held against it.
    """

    addresses: bool = True
    """Blocks have addresses that memory can be reached at.  Absent: no raw half either."""

    buffers: bool = True
    """Blocks have ``view``, and exported buffers hold them in place."""

    raw: bool = True
    """The C-shaped half: malloc, calloc, realloc, aligned_alloc, free_sized, resize."""

    unsized: bool = True
    """``free``, ``realloc`` and ``usable_size`` need no layout.  Absent: ``free_sized`` only."""

    usable_size: bool = True
    """``usable_size`` is offered."""

    owns: bool = True
    """``owns`` is offered."""

    statistics: bool = True
    """``statistics()`` is offered.  If it counts ``blocks``, the count is held to be exact."""

    threads: bool = True
    """May be used by several threads at once (tested where there are threads)."""

    collected: bool = True
    """A block that is dropped is freed (tested where reference counts do it at once)."""

    recycles: bool = True
    """Freed memory is used again soon.  Absent in quarantines and bump allocators."""

    bounded: bool = False
    """May refuse an ordinary request with ``AllocError``: it has a limit.

    Hypothesis needs it to refuse the same sequence in the same place each time.
    """

    max_size: int = 1 << 20
    """The largest size to try, in bytes, beside the absurd ones."""

    max_align: int = 1 << 16
    """The largest alignment to try, in bytes."""

    def __post_init__(self) -> None:
        if not self.addresses and not self.buffers:
            raise ValueError("without addresses and buffers no contents can be checked")
        if not self.addresses and self.raw:
            object.__setattr__(self, "raw", False)
