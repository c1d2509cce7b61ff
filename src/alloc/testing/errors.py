"""What the kit raises.  All are ``AssertionError``, so a test runner reports a failure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .recording import Record


class ConformanceError(AssertionError):
    """An allocator broke a rule of the contract."""

    rule: str
    """Short name of the rule, as docs/testing.md lists them."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(rule, detail)
        self.rule = rule
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"


class TableError(ConformanceError):
    """A C table broke a rule of ``alloc.h``."""


class FailureCheckError(AssertionError):
    """Base of what `check_all_allocation_failures` finds."""


class NeverAllocatedError(FailureCheckError):
    """The function never allocated through ``alloc``, so nothing was tested."""


class SwallowedFailureError(FailureCheckError):
    """An allocation failed, and the function returned as if it had not."""


class MishandledFailureError(FailureCheckError):
    """An allocation failed, and something else came out of the function.

    A deliberate translation, ``raise X from error``, is not mishandled.
    """


class NondeterministicError(FailureCheckError):
    """The function did not allocate the same way in each run."""


class LeakError(AssertionError):
    """Memory was still live where it should not be."""

    leaks: tuple[Record, ...]
    """One record for each live block or address, with its place."""

    def __init__(self, where: str, leaks: Sequence[Record]) -> None:
        super().__init__(where, leaks)
        self.where = where
        self.leaks = tuple(leaks)

    def __str__(self) -> str:
        total = sum(leak.size for leak in self.leaks)
        lines = [f"{self.where}: {len(self.leaks)} live, {total} bytes"]
        lines += [f"  {leak}" for leak in self.leaks[:20]]
        if len(self.leaks) > 20:
            lines.append(f"  and {len(self.leaks) - 20} more")
        return "\n".join(lines)


class AllocationBudgetError(AssertionError):
    """More was allocated than `assert_allocations` allows."""
