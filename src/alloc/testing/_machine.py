"""The Hypothesis state machine: random operations on a `RawSubject`."""

from __future__ import annotations

import gc
import sys
from functools import partial

from hypothesis import HealthCheck
from hypothesis import settings as Settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ._raw import RawSubject
from .strategies import aligns, sizes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from alloc.protocols import Allocator

    from ._subject import Held
    from .capabilities import Capabilities

MOST = 24
"""Live blocks at any time; more would only make each check slower."""

picks = st.integers(0, MOST - 1)
all_sizes = sizes(0, 1 << 20)
modest_sizes = sizes(0, 1 << 14)
all_aligns = aligns(1 << 16)
factors = st.sampled_from([1, 2, 3, 4, 8, 12, 16, 24, 32, 100])


def blocks(machine: Conformance) -> list[Held]:
    return [held for held in machine.subject.held if held.block is not None]


def addresses(machine: Conformance) -> list[Held]:
    return [held for held in machine.subject.held if held.block is None]


def any_block(machine: Conformance) -> bool:
    return bool(blocks(machine))


def any_address(machine: Conformance) -> bool:
    return bool(addresses(machine))


def room(machine: Conformance) -> bool:
    return len(machine.subject.held) < MOST


def raw(machine: Conformance) -> bool:
    return machine.subject.capabilities.raw


def unsized(machine: Conformance) -> bool:
    return raw(machine) and machine.subject.capabilities.unsized


class Conformance(RuleBasedStateMachine):
    """One allocator, driven at random; every rule is a promise."""

    def __init__(
        self,
        factory: Callable[[], Allocator],
        capabilities: Capabilities,
        check: Callable[[Allocator], object] | None,
    ) -> None:
        super().__init__()
        self.subject = RawSubject(factory(), capabilities)
        self.check = check
        self.clean = True

    # A failed operation leaves model and allocator apart: teardown must not
    # report that instead.
    def guarded(self, call: Callable[..., object], *args: object) -> None:
        self.clean = False
        self.subject.run(call, *args)
        self.clean = True

    def fit(self, size: int, align: int = 16) -> tuple[int, int]:
        most = self.subject.capabilities
        return min(size, most.max_size), min(align, most.max_align)

    # --- blocks ------------------------------------------------------------------

    @precondition(room)
    @rule(size=all_sizes, align=all_aligns, zeroed=st.booleans())
    def allocate(self, size: int, align: int, zeroed: bool) -> None:
        self.guarded(self.subject.allocate, *self.fit(size, align), zeroed)

    @precondition(room)
    @rule(size=modest_sizes, count=st.integers(1, 4))
    def allocate_several(self, size: int, count: int) -> None:
        for _ in range(count):
            self.guarded(self.subject.allocate, *self.fit(size))

    @precondition(any_block)
    @rule(pick=picks, size=modest_sizes, move=st.booleans())
    def resize(self, pick: int, size: int, move: bool) -> None:
        self.guarded(self.subject.resize, self.pick(blocks, pick), self.fit(size)[0], move)

    @precondition(any_block)
    @rule(
        pick=picks, delta=st.sampled_from([-1, 1, 0, 8, -8, 16, 64, -64, 4096]), move=st.booleans()
    )
    def resize_slightly(self, pick: int, delta: int, move: bool) -> None:
        held = self.pick(blocks, pick)
        size = self.fit(max(0, held.size + delta))[0]
        self.guarded(self.subject.resize, held, size, move)

    @precondition(any_block)
    @rule(pick=picks)
    def free(self, pick: int) -> None:
        self.guarded(self.subject.free, self.pick(blocks, pick))

    @precondition(lambda self: any_block(self) and self.subject.capabilities.collected)
    @rule(pick=picks)
    def drop(self, pick: int) -> None:
        self.guarded(self.subject.drop, self.pick(blocks, pick))
        if sys.implementation.name != "cpython":
            for _ in range(3):  # view, block, upstream's block: one after the other
                gc.collect()

    @precondition(lambda self: any_block(self) and self.subject.capabilities.buffers)
    @rule(pick=picks, size=modest_sizes)
    def export(self, pick: int, size: int) -> None:
        self.guarded(self.subject.export, self.pick(blocks, pick), self.fit(size)[0])

    @rule(size=modest_sizes, early=st.booleans())
    def scope(self, size: int, early: bool) -> None:
        self.guarded(self.subject.scope, self.fit(size)[0], early)

    @rule(size=modest_sizes, align=all_aligns)
    def recycle(self, size: int, align: int) -> None:
        self.guarded(self.subject.recycle, *self.fit(size, align))

    @rule(pick=picks, below=st.integers(0, 4096))
    def exhaust(self, pick: int, below: int) -> None:
        held = self.pick(blocks, pick) if blocks(self) else None
        self.guarded(self.subject.exhaust, held, below)

    # --- addresses ---------------------------------------------------------------

    @precondition(lambda self: room(self) and raw(self))
    @rule(size=all_sizes)
    def malloc(self, size: int) -> None:
        self.guarded(self.subject.malloc, self.fit(size)[0])

    @precondition(lambda self: room(self) and raw(self))
    @rule(size=modest_sizes, itemsize=factors)
    def calloc(self, size: int, itemsize: int) -> None:
        self.guarded(self.subject.calloc, self.fit(size)[0] // itemsize, itemsize)

    @precondition(lambda self: room(self) and raw(self))
    @rule(size=modest_sizes, align=all_aligns)
    def aligned_alloc(self, size: int, align: int) -> None:
        size, align = self.fit(size, align)
        self.guarded(self.subject.aligned_alloc, align, size)

    @precondition(lambda self: any_address(self) and unsized(self))
    @rule(pick=picks, size=modest_sizes)
    def realloc(self, pick: int, size: int) -> None:
        self.guarded(self.subject.realloc, self.pick(addresses, pick), self.fit(size)[0])

    @precondition(lambda self: room(self) and unsized(self))
    @rule(size=modest_sizes)
    def realloc_null(self, size: int) -> None:
        self.guarded(self.subject.realloc_null, self.fit(size)[0])

    @precondition(any_address)
    @rule(pick=picks, size=modest_sizes)
    def resize_raw(self, pick: int, size: int) -> None:
        self.guarded(self.subject.resize_raw, self.pick(addresses, pick), self.fit(size)[0])

    @precondition(any_address)
    @rule(pick=picks, delta=st.sampled_from([-1, 1, 0, 8, -8, 16]))
    def resize_raw_slightly(self, pick: int, delta: int) -> None:
        held = self.pick(addresses, pick)
        self.guarded(self.subject.resize_raw, held, self.fit(max(0, held.size + delta))[0])

    @precondition(any_address)
    @rule(pick=picks, sized=st.booleans())
    def free_raw(self, pick: int, sized: bool) -> None:
        self.guarded(self.subject.free_raw, self.pick(addresses, pick), sized)

    @precondition(raw)
    @rule()
    def free_nothing(self) -> None:
        self.guarded(self.subject.free_nothing)

    @precondition(raw)
    @rule(pick=picks, below=st.integers(0, 4096))
    def exhaust_raw(self, pick: int, below: int) -> None:
        held = self.pick(addresses, pick) if addresses(self) else None
        self.guarded(self.subject.exhaust_raw, held, below)

    @precondition(raw)
    @rule(size=modest_sizes)
    def recycle_raw(self, size: int) -> None:
        self.guarded(self.subject.recycle_raw, self.fit(size)[0])

    @precondition(lambda self: raw(self) and self.subject.capabilities.owns)
    @rule()
    def owned(self) -> None:
        self.guarded(self.subject.owned)

    @precondition(
        lambda self: any_address(self) and "checked" in self.subject.allocator.capabilities
    )
    @rule(pick=picks)
    def misuse(self, pick: int) -> None:
        self.guarded(self.subject.misuse, self.pick(addresses, pick))

    # --- always --------------------------------------------------------------------

    @invariant()
    def steady(self) -> None:
        self.guarded(self.subject.steady)
        if self.check is not None:
            self.guarded(self.check, self.subject.allocator)

    def teardown(self) -> None:
        if self.clean:
            self.subject.run(self.subject.finish)
        else:
            self.subject.abandon()

    def pick(self, kind: Callable[[Conformance], list[Held]], number: int) -> Held:
        found = kind(self)
        return found[number % len(found)]


def run_machine(
    factory: Callable[[], Allocator],
    capabilities: Capabilities,
    settings: Settings | None,
    check: Callable[[Allocator], object] | None,
) -> None:
    """Run the machine; Hypothesis reports the smallest failing program."""
    if settings is None:
        settings = Settings(deadline=None, suppress_health_check=list(HealthCheck))
    # Hypothesis only ever calls it, so a function serves in place of a class.
    machine: Any = partial(Conformance, factory, capabilities, check)
    run_state_machine_as_test(machine, settings=settings)
