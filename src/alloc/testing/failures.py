"""Failure injection: every allocation of a function fails once."""

from __future__ import annotations

import gc
import traceback

from .errors import (
    LeakError,
    MishandledFailureError,
    NeverAllocatedError,
    NondeterministicError,
    SwallowedFailureError,
)
from .recording import recording

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from alloc.protocols import Allocator

    from .recording import Recorder


def check_all_allocation_failures(
    fn: Callable[..., Any],
    *args: Any,
    allocator: Allocator | None = None,
    recovers: bool = False,
    max_allocations: int = 10_000,
    **named: Any,
) -> int:
    """Call ``fn`` again and again, with its allocation 0, 1, 2, ... failing.

    Returns how many allocations were made to fail.  Counted are allocations
    through ``alloc`` in this thread: allocate, malloc, calloc, aligned_alloc,
    realloc, and a block's resize that grows and may move.  ``fn`` gets ``args``
    and ``named`` and must do the same each time.  ``recovers`` allows it to
    return normally though an allocation failed.

    Raises what ``fn`` itself raises undisturbed, and

    * `NeverAllocatedError`: there is nothing to fail;
    * `NondeterministicError`: another run allocated differently;
    * `SwallowedFailureError`: it failed, and ``fn`` returned normally;
    * `MishandledFailureError`: another exception than the failure came out,
      and not ``from`` it;
    * `LeakError`: memory was still live after the call.

    Zig: ``std.testing.checkAllAllocationFailures``.
    """
    with recording(allocator) as recorder:
        upstream = recorder.upstream
        first = _undisturbed(recorder, fn, args, named, "undisturbed")
        if not first:
            raise NeverAllocatedError(
                f"{_name(fn)} allocated nothing through alloc: no failure was tested"
            )
        if len(first) > max_allocations:
            raise ValueError(
                f"{len(first)} allocations are more than max_allocations={max_allocations}"
            )
        places = recorder.places
        recorder.start(upstream)
        again = _undisturbed(recorder, fn, args, named, "run again")
        if len(again) > len(first):
            raise NondeterministicError(
                f"{_name(fn)}, run again: {len(again)} allocations, and {len(first)} at first"
            )
        _same(fn, first, again, len(first), "run again")
        for number in range(len(first)):
            recorder.start(upstream, number)
            when = f"with allocation {number} failing ({places[number]})"
            _disturbed(recorder, fn, args, named, when, recovers)
            _same(fn, first, recorder.requests, number + 1, when)
    return len(first)


def _undisturbed(
    recorder: Recorder, fn: Callable[..., Any], args: Any, named: Any, when: str
) -> list[tuple[str, int, int]]:
    fn(*args, **named)
    _leakless(recorder, fn, when)
    return recorder.requests


def _disturbed(
    recorder: Recorder, fn: Callable[..., Any], args: Any, named: Any, when: str, recovers: bool
) -> None:
    """One run; the exception and its frames are gone when the leaks are counted."""
    outcome = ""
    try:
        fn(*args, **named)
    except Exception as error:
        if recorder.failure is None:
            raise NondeterministicError(
                f"{_name(fn)} raised {type(error).__name__} {when}, before it came to that"
            ) from error
        if not _stems_from(error, recorder.failure):
            raise MishandledFailureError(
                f"{_name(fn)} raised {type(error).__name__}: {error} {when}"
            ) from error
        outcome = "raised"
        _clear(error)
    if recorder.failure is None:
        raise NondeterministicError(
            f"{_name(fn)} did not come to allocation {recorder.fail_at}, {when}"
        )
    if not outcome and not recovers:
        raise SwallowedFailureError(f"{_name(fn)} returned normally {when}")
    _clear(recorder.failure)
    _leakless(recorder, fn, when)


def _stems_from(error: BaseException, failure: BaseException) -> bool:
    """It is the failure, or was raised ``from`` it, or groups it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is failure:
            return True
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            waiting.append(one.__cause__)
            waiting.extend(getattr(one, "exceptions", ()))
    return False


def _clear(error: BaseException | None) -> None:
    """Let go of the frames that an exception and its causes hold, and of their blocks."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if error.__traceback__ is not None:
            # The kit's own frames still run and are left alone by clear_frames.
            traceback.clear_frames(error.__traceback__)
            error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _same(
    fn: Callable[..., Any], first: list[Any], other: list[Any], length: int, when: str
) -> None:
    """The first ``length`` requests are those of the first run."""
    if first[:length] == other[:length]:
        return
    for i, (a, b) in enumerate(zip(first, other)):
        if a != b:
            was, now = _request(a), _request(b)
            raise NondeterministicError(
                f"{_name(fn)}, {when}: request {i} was {was} at first, and is now {now}"
            )
    raise NondeterministicError(
        f"{_name(fn)}, {when}: {len(other)} allocations, and {len(first)} at first"
    )


def _request(request: tuple[str, int, int]) -> str:
    call, size, align = request
    return f"{call} of {size} bytes at alignment {align}"


def _leakless(recorder: Recorder, fn: Callable[..., Any], when: str) -> None:
    if recorder.leaks():
        gc.collect()
        if recorder.leaks():
            raise LeakError(f"{_name(fn)} {when}", recorder.leaks())


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__qualname__", None) or repr(fn)
