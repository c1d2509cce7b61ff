"""The Arena needs no more address space than glibc's malloc on the same mixed-size traces."""

import pytest
from traces import TRACES, arena_figures, glibc_in_its_own_process

from alloc._arena import Arena


@pytest.mark.needs_mallinfo2
@pytest.mark.parametrize("name", TRACES)
def test_not_above_glibc(name):
    arena = Arena()
    ours = arena_figures(name, arena)
    arena.check()
    glibcs = glibc_in_its_own_process(name)
    for figure in ("peak", "mean"):
        assert ours[figure] <= glibcs[figure], (figure, ours, glibcs)
