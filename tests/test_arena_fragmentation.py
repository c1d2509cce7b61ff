"""The Arena's address space is near that of glibc's malloc on the same mixed-size traces."""

import pytest
from traces import TRACES, arena_figures, glibc_in_its_own_process

from alloc._arena import Arena

ABOVE = 1.08
"""At most so much of glibc's; measured are 0.89 to 1.06, see benchmarks/results/arena.md."""


@pytest.mark.needs_mallinfo2
@pytest.mark.parametrize("name", TRACES)
def test_near_glibc(name):
    arena = Arena()
    ours = arena_figures(name, arena)
    arena.check()
    glibcs = glibc_in_its_own_process(name)
    for figure in ("peak", "mean"):
        assert ours[figure] <= ABOVE * glibcs[figure], (figure, ours, glibcs)
