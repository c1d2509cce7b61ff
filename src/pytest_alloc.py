"""The pytest plugin: a ``leaks`` fixture and two markers.  Inert unless used.

``leaks``: the test fails if it leaves memory of ``alloc`` behind.
``@pytest.mark.alloc_no_leaks``: the same, as a marker.
``@pytest.mark.alloc_limit(max_count=, max_bytes=, peak=)``: a budget.

Both speak of what the test function itself allocates, not of its other fixtures.

A module beside the package, because pytest loads it in every run of an
environment that has it installed: ``alloc`` is imported only by a test that asks.
"""

from __future__ import annotations

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any


def pytest_configure(config: pytest.Config) -> None:
    for line in (
        "alloc_no_leaks: the test may leave no memory of alloc behind",
        "alloc_limit(max_count, max_bytes, peak): a budget for the test's use of alloc",
    ):
        config.addinivalue_line("markers", line)


@pytest.fixture
def leaks() -> Iterator[Any]:
    """Fail the test if memory of ``alloc`` outlives it, naming where it was allocated.

    The value is the recorder: ``leaks.leaks()`` lists what is live so far.
    """
    from alloc.testing.leaks import assert_no_leaks

    with assert_no_leaks() as recorder:
        yield recorder


@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, None]:
    no_leaks = pyfuncitem.get_closest_marker("alloc_no_leaks")
    limit = pyfuncitem.get_closest_marker("alloc_limit")
    if no_leaks is None and limit is None:
        yield
        return
    from alloc.testing.leaks import assert_allocations, assert_no_leaks

    scopes: list[Any] = []
    if limit is not None:
        scopes.append(assert_allocations(*limit.args, **limit.kwargs))
    if no_leaks is not None:
        scopes.append(assert_no_leaks())
    for scope in scopes:
        scope.__enter__()
    outcome = yield
    error = outcome.excinfo
    for scope in reversed(scopes):
        try:
            scope.__exit__(*(error or (None, None, None)))
        except AssertionError as found:
            error = (type(found), found, found.__traceback__)
            outcome.force_exception(found)
