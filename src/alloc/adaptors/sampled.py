"""`SampledGuard`: one block in N is guarded by OS pages; cheap enough for production."""

from __future__ import annotations

import os
import sys
import warnings

from alloc._default import decision
from alloc._select import implementation
from alloc.errors import BackendUnavailableError

from . import _stacks
from .crimes import (
    Crime,
    DoubleFree,
    GuardWarning,
    InvalidFree,
    Overrun,
    SizeMismatch,
    Underrun,
)
from .guard import POLICIES, _guards

if implementation != "cython":
    raise BackendUnavailableError("SampledGuard needs the compiled core")

from alloc._adaptors import Sampled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from alloc.protocols import Allocator

_KINDS: tuple[type[Crime], ...] = (Overrun, Underrun, DoubleFree, InvalidFree, SizeMismatch)
"""In the order of ``_c/guard.h``."""


class SampledGuard(Sampled):
    """Puts one block in ``every`` (on average, by dice from ``seed``) on OS pages of its
    own, next to pages that nobody may touch; all other requests go to ``upstream``, a
    native allocator, for two compares more.

    A touch behind a guarded block's pages, before them, or after its free is a fault at
    that instruction.  What stays within its pages, and double, invalid and wrongly sized
    frees, are found at the free.  At most ``slots`` blocks of up to ``room`` bytes are
    guarded at once; freed ones stay untouchable until their slot is needed again.

    ``policy`` as for `Guard`; what a `Block` finds when it goes home is not raised but
    given to ``sys.unraisablehook``.  ``faults``: explain faults on stderr, block and
    stacks, by a SIGSEGV handler that then lets the earlier one have it; the default is
    to do so unless the process belongs to a host.  Needs the compiled core.
    """

    def __init__(
        self,
        upstream: Allocator,
        *,
        every: int = 1000,
        seed: int = 0,
        policy: str = "raise",
        slots: int = 256,
        room: int = 1 << 18,
        faults: bool | None = None,
    ) -> None:
        if sys.platform == "win32":
            raise BackendUnavailableError("SampledGuard needs a POSIX system")
        if policy not in POLICIES:
            raise ValueError(f"policy is one of {', '.join(POLICIES)}, got {policy!r}")
        if not 1 <= every < 1 << 31 or not 1 <= slots <= 1 << 16 or not 1 <= room <= 1 << 30:
            raise ValueError("every, slots and room are at least 1, and within reason")
        if faults is None:
            faults = decision().embedding == "standalone"
        seed &= (1 << 64) - 1
        super().__init__(upstream, every, seed, slots, room, faults, _stacks.take_text)
        self.policy = policy
        self.crimes: list[Crime] = []
        """What was found, under the policy ``collect``."""
        _guards.add(self)

    def __del__(self) -> None:
        if hasattr(self, "crimes"):
            self.check()  # raw blocks may be live still

    def _found(
        self,
        crime: int,
        address: int,
        start: int,
        size: int,
        align: int,
        offset: int,
        named: int,
        named_align: int,
        born: str,
        died: str,
    ) -> None:
        """Called by the table."""
        kind = _KINDS[crime]
        block = f"the block of {size} bytes at {start:#x}"
        if kind is SizeMismatch:
            detail = f"free of {block} names {named} bytes"
        elif kind is DoubleFree:
            detail = f"free of {block}"
        elif kind is InvalidFree:
            detail = f"free of {address:#x}, byte {offset} of {block}"
        elif kind is Underrun:
            detail = f"{-offset} bytes before the start of {block}"
        else:
            detail = f"byte {offset - size + 1} behind the end of {block}"
        found = kind(detail, start, size, offset, None, None, _stacks.take(8))
        found.allocated = [line.strip() for line in born.splitlines()]
        # The free that finds a crime is not the one that freed it.
        earlier = died if kind in (DoubleFree, InvalidFree) else ""
        found.freed = [line.strip() for line in earlier.splitlines()] or None
        if self.policy == "raise":
            raise found
        if self.policy == "warn":
            warnings.warn(GuardWarning(str(found)), stacklevel=3)
        elif self.policy == "collect":
            self.crimes.append(found)
        else:
            sys.stderr.write(f"alloc.adaptors.SampledGuard: {found}\n")
            sys.stderr.flush()
            os.abort()
