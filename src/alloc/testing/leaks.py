"""Context managers that count: leaks, and how much was allocated."""

from __future__ import annotations

import gc

from .errors import AllocationBudgetError, LeakError
from .recording import recording

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from .recording import Recorder


class assert_no_leaks:
    """What is allocated through ``alloc`` inside is free at the end.

    A block counts as leaked while something refers to it and nobody freed it;
    an address, while nobody freed it.  Sees the current thread or task.

    Raises `LeakError` naming each place, unless the body itself raised.
    """

    def __init__(self) -> None:
        self._recording = recording()

    def __enter__(self) -> Recorder:
        self._recorder = self._recording.__enter__()
        return self._recorder

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._recording.__exit__(kind, value, traceback)
        if kind is not None:
            return
        if self._recorder.leaks():
            gc.collect()
            found = self._recorder.leaks()
            if found:
                raise LeakError("not freed", found)


class assert_allocations:
    """What is allocated through ``alloc`` inside stays within a budget.

    ``max_count``: requests, a growing resize or realloc included; requests for
    0 bytes are none.  ``max_bytes``: their bytes, all together.  ``peak``: bytes
    live at one time.  ``None`` is no limit.  As requested, without rounding.

    Raises `AllocationBudgetError`, unless the body itself raised.
    """

    def __init__(
        self,
        *,
        max_count: int | None = None,
        max_bytes: int | None = None,
        peak: int | None = None,
    ) -> None:
        self._limits = (("allocations", max_count), ("bytes", max_bytes), ("bytes at once", peak))
        self._recording = recording()

    def __enter__(self) -> Recorder:
        self._recorder = self._recording.__enter__()
        return self._recorder

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        recorder = self._recorder
        counted = (len(recorder.requests), recorder.bytes, recorder.peak)
        places = list(recorder.places)
        self._recording.__exit__(kind, value, traceback)
        if kind is not None:
            return
        over = [
            f"{found} {what}, {limit} allowed"
            for found, (what, limit) in zip(counted, self._limits)
            if limit is not None and found > limit
        ]
        if over:
            raise AllocationBudgetError("; ".join(over) + _busiest(places))


def _busiest(places: list[str]) -> str:
    """The places that allocated most often."""
    ranking = sorted(set(places), key=places.count, reverse=True)[:5] if places else []
    return "".join(f"\n  {places.count(place)} times at {place}" for place in ranking)
