"""The kit's front door: one call that holds an allocator against the contract."""

from __future__ import annotations

import random
import sys

from . import _contract
from ._raw import RawSubject
from ._threads import check_threads
from .capabilities import Capabilities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis import settings as Settings

    from alloc.protocols import Allocator

EVERYTHING = Capabilities()

# WebAssembly may be built with threads; Pyodide is not.
THREADS = sys.platform not in ("emscripten", "wasi") or (
    getattr(getattr(sys, "_emscripten_info", None), "pthreads", False)
)


def run_conformance_test(
    factory: Callable[[], Allocator],
    *,
    capabilities: Capabilities = EVERYTHING,
    settings: Settings | None = None,
    check: Callable[[Allocator], object] | None = None,
) -> None:
    """Hold the allocators that ``factory`` makes against the whole contract.

    ``factory`` is called for each example and may return the same object each
    time.  ``settings`` are Hypothesis's; without them the loaded profile holds,
    with no deadline.  ``check(allocator)`` is called after every operation, for
    invariants of the allocator's own.

    Raises `ConformanceError` with the broken rule.  Needs Hypothesis.  In a test
    file of yours::

        def test_conformance():
            alloc.testing.run_conformance_test(MyAllocator)
    """
    from ._machine import run_machine

    _directed(factory, capabilities)
    run_machine(factory, capabilities, settings, check)


def run_conformance_core(
    factory: Callable[[], Allocator],
    *,
    capabilities: Capabilities = EVERYTHING,
    check: Callable[[Allocator], object] | None = None,
    seed: int = 0,
    steps: int = 500,
) -> None:
    """The same rules without Hypothesis: seeded, and a failure is not made smaller.

    For places where Hypothesis cannot be had.
    """
    _directed(factory, capabilities)
    subject = RawSubject(factory(), capabilities)
    dice = random.Random(seed)
    for _ in range(steps):
        subject.run(_step, subject, dice)
        subject.run(subject.steady)
        if check is not None:
            check(subject.allocator)
    subject.run(subject.finish)


def _directed(factory: Callable[[], Allocator], capabilities: Capabilities) -> None:
    for check in _contract.checks(RawSubject(factory(), capabilities)):
        subject = RawSubject(factory(), capabilities)
        subject.run(check, subject)
        subject.run(subject.finish)
    if capabilities.threads and THREADS:
        check_threads(factory(), capabilities)


def _step(subject: RawSubject, dice: random.Random) -> None:
    """One random operation that is possible now."""
    promised = subject.capabilities
    size = min(promised.max_size, dice.choice((0, 1, 15, 16, 17, 100, 4095, 4096, 4097, 70000)))
    align = min(promised.max_align, 1 << dice.randrange(14))
    blocks = [held for held in subject.held if held.block is not None]
    raws = [held for held in subject.held if held.block is None]
    choices: list[Callable[[], object]] = [
        lambda: subject.scope(size, dice.random() < 0.5),
        lambda: subject.recycle(size, align),
        lambda: subject.exhaust(dice.choice(blocks) if blocks else None, size),
    ]
    if len(subject.held) < 24:
        choices += [lambda: subject.allocate(size, align, dice.random() < 0.5)] * 4
    if blocks:
        held = dice.choice(blocks)
        choices += [
            lambda: subject.resize(held, size, dice.random() < 0.5),
            lambda: subject.free(held),
        ]
        if promised.buffers:
            choices.append(lambda: subject.export(held, size))
    if promised.raw:
        choices += [subject.free_nothing, lambda: subject.recycle_raw(size)]
        choices.append(lambda: subject.exhaust_raw(dice.choice(raws) if raws else None, size))
        if len(subject.held) < 24:
            choices += [lambda: subject.malloc(size), lambda: subject.calloc(size, 1)]
            choices.append(lambda: subject.aligned_alloc(align, size))
        if promised.owns:
            choices.append(subject.owned)
    if raws:
        one = dice.choice(raws)
        choices += [lambda: subject.resize_raw(one, size), lambda: subject.free_raw(one, True)]
        if promised.unsized:
            choices.append(lambda: subject.realloc(one, size))
        if "checked" in subject.allocator.capabilities:
            choices.append(lambda: subject.misuse(one))
    dice.choice(choices)()
