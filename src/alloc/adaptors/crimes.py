"""What `Guard` finds: one error for each crime, with the block and three stacks."""

from __future__ import annotations

from alloc.errors import (
    DoubleFreeError,
    HeapMisuseError,
    InvalidFreeError,
    SizeMismatchError,
    UseAfterFreeError,
)

from . import _stacks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._stacks import Stack


class Crime(HeapMisuseError):
    """A caller broke the contract; the message tells all that is known."""

    title = "heap misuse"

    def __init__(
        self,
        detail: str,
        address: int,
        size: int | None = None,
        offset: int | None = None,
        allocated: Stack | None = None,
        freed: Stack | None = None,
        detected: Stack = (),
    ) -> None:
        super().__init__(detail)
        self.address = address
        """Address of the block; for an address of no block, that address."""
        self.size = size
        """Bytes granted; ``None`` where there is no block."""
        self.offset = offset
        """The byte concerned, counted from the block's start; below 0 before it."""
        self.allocated = None if allocated is None else _stacks.lines(allocated)
        """``file:line in function`` where it was allocated, innermost first, or ``None``."""
        self.freed = None if freed is None else _stacks.lines(freed)
        """The same where it was freed."""
        self.detected = _stacks.lines(detected)
        """The same where the crime was found."""

    def __str__(self) -> str:
        parts = [f"{self.title}: {self.args[0]}"]
        stacks = ("allocated", self.allocated), ("freed", self.freed), ("detected", self.detected)
        for word, stack in stacks:
            if stack is not None:
                parts.append(f"  {word} at")
                parts += [f"    {line}" for line in stack] or ["    (no Python frame)"]
        return "\n".join(parts)


class Overrun(Crime):
    """Something wrote behind a block."""

    title = "overrun"


class Underrun(Crime):
    """Something wrote in front of a block."""

    title = "underrun"


class WriteAfterFree(Crime, UseAfterFreeError):
    """Something wrote to a freed block."""

    title = "write after free"


class DoubleFree(Crime, DoubleFreeError):
    """A block was freed, or resized, after it was freed."""

    title = "double free"


class InvalidFree(Crime, InvalidFreeError):
    """An address that is not the start of a block was freed or resized."""

    title = "invalid free"


class SizeMismatch(Crime, SizeMismatchError):
    """A sized free or resize named another layout than the granted one."""

    title = "size mismatch"


class GuardWarning(RuntimeWarning):
    """What the policy ``warn`` warns with."""
