"""Several allocators, one sequence of operations: all that is visible must agree.

Not visible: addresses, usable sizes, statistics, and whether a block could be
resized in place.  `run_conformance_test` holds those against the contract.
"""

from __future__ import annotations

from .errors import ConformanceError
from .operations import Driver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from hypothesis import settings as Settings

    from alloc.protocols import Allocator

    from .operations import Operation


def compare(
    factories: Mapping[str, Callable[[], Allocator]],
    operations: Sequence[Operation],
    *,
    raw: bool = True,
) -> None:
    """Drive one allocator of each kind through the operations, side by side.

    Raises `ConformanceError` (rule ``differential``) at the first disagreement.
    """
    drivers = {name: Driver(factory(), raw=raw) for name, factory in factories.items()}
    try:
        for number, operation in enumerate(operations):
            what = f"operation {number}, {operation}"
            _agree(what, {name: driver.apply(operation) for name, driver in drivers.items()})
            _agree(
                f"contents after {what}", {n: driver.contents() for n, driver in drivers.items()}
            )
    finally:
        for driver in drivers.values():
            driver.close()


def _agree(what: str, seen: Mapping[str, Any]) -> None:
    (first, expected), *others = seen.items()
    for name, found in others:
        if found != expected:
            raise ConformanceError(
                "differential", f"{what}: {first} {_short(expected)}, but {name} {_short(found)}"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 400 else text[:400] + "..."


def run_differential_test(
    factories: Mapping[str, Callable[[], Allocator]],
    *,
    settings: Settings | None = None,
    raw: bool = True,
    max_length: int = 40,
) -> None:
    """`compare` over sequences that Hypothesis draws; it reports the shortest.

    ``factories`` maps names to what makes an allocator; two at least.
    """
    if len(factories) < 2:
        raise ValueError("nothing to compare: one allocator cannot disagree with itself")
    from hypothesis import HealthCheck, given
    from hypothesis import settings as Settings

    from .strategies import operations

    if settings is None:
        settings = Settings(deadline=None, suppress_health_check=list(HealthCheck))

    @settings
    @given(operations(max_length))
    def agree(sequence: list[Operation]) -> None:
        compare(factories, sequence, raw=raw)

    agree()
