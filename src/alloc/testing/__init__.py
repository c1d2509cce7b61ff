"""Tests for allocators, and for code that allocates.

Paste this to hold an allocator of your own against the contract::

    import alloc.testing

    def test_conformance():
        alloc.testing.run_conformance_test(MyAllocator)

Importing this package costs nothing; only what runs Hypothesis needs Hypothesis.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .capabilities import Capabilities as Capabilities
    from .conformance import run_conformance_core as run_conformance_core
    from .conformance import run_conformance_test as run_conformance_test
    from .differential import run_differential_test as run_differential_test
    from .errors import AllocationBudgetError as AllocationBudgetError
    from .errors import ConformanceError as ConformanceError
    from .errors import FailureCheckError as FailureCheckError
    from .errors import LeakError as LeakError
    from .errors import MishandledFailureError as MishandledFailureError
    from .errors import NeverAllocatedError as NeverAllocatedError
    from .errors import NondeterministicError as NondeterministicError
    from .errors import SwallowedFailureError as SwallowedFailureError
    from .errors import TableError as TableError
    from .failures import check_all_allocation_failures as check_all_allocation_failures
    from .leaks import assert_allocations as assert_allocations
    from .leaks import assert_no_leaks as assert_no_leaks
    from .table_checks import check_table as check_table

_HOMES = {
    "Capabilities": "capabilities",
    "run_conformance_core": "conformance",
    "run_conformance_test": "conformance",
    "run_differential_test": "differential",
    "AllocationBudgetError": "errors",
    "ConformanceError": "errors",
    "FailureCheckError": "errors",
    "LeakError": "errors",
    "MishandledFailureError": "errors",
    "NeverAllocatedError": "errors",
    "NondeterministicError": "errors",
    "SwallowedFailureError": "errors",
    "TableError": "errors",
    "check_all_allocation_failures": "failures",
    "assert_allocations": "leaks",
    "assert_no_leaks": "leaks",
    "check_table": "table_checks",
}
_MODULES = ("operations", "strategies")

__all__ = [
    "AllocationBudgetError",
    "Capabilities",
    "ConformanceError",
    "FailureCheckError",
    "LeakError",
    "MishandledFailureError",
    "NeverAllocatedError",
    "NondeterministicError",
    "SwallowedFailureError",
    "TableError",
    "assert_allocations",
    "assert_no_leaks",
    "check_all_allocation_failures",
    "check_table",
    "run_conformance_core",
    "run_conformance_test",
    "run_differential_test",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, *_MODULES])
