"""Raw addresses that several allocators claim go back to the one that granted them."""

import pytest

import alloc
from alloc import adaptors
from alloc._owners import depth_of

MAKERS = {
    "bump": lambda upstream: alloc.Bump(upstream=upstream),
    "pool": lambda upstream: alloc.Pool(64, upstream=upstream),
    "guard": lambda upstream: adaptors.Guard(upstream),
}


def in_force(allocator: object) -> int:
    with alloc.using(allocator):
        return alloc.malloc(48)


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("maker", MAKERS)
def test_carved_memory_goes_to_the_carver(backend, maker, late):
    """Whatever adaptor over the same heap claims the address by its range."""
    bystander = adaptors.Statistics(adaptors.Forwarding(backend()))
    if not late:
        alloc.free(in_force(bystander))
    carver = MAKERS[maker](backend())
    counted = adaptors.Statistics(carver)
    address = in_force(counted)
    if late:
        alloc.free(in_force(bystander))
    assert alloc.usable_size(address) >= 48
    alloc.free(address)
    assert counted.counts.current_count == 0
    assert bystander.counts.current_count == 0
    again = in_force(counted)
    moved = alloc.realloc(again, 60)
    assert carver.owns(moved)
    alloc.free(moved)
    assert counted.counts.current_count == 0


def test_depth(backend):
    arena = alloc.Arena()
    bump = alloc.Bump(upstream=adaptors.Forwarding(arena))
    native = backend()
    if type(native) is not alloc.Arena:
        assert depth_of(native) == depth_of(adaptors.Statistics(native)) == 0
    assert depth_of(arena) == depth_of(adaptors.Forwarding(arena)) == 1
    assert depth_of(bump) == 2
    assert depth_of(adaptors.Guard(adaptors.Locked(bump))) == 3
    with alloc.using(adaptors.Forwarding(arena)):
        pass
    address = in_force(bump)
    kept = in_force(bump)  # a region takes its last block back for good
    alloc.free(address)
    assert bump.owns(kept)
    with pytest.raises(alloc.DoubleFreeError):
        alloc.free(address)


def test_an_address_by_index(backend):
    """Every claimant is asked about an int, whatever the caller passed."""

    class Address:
        def __init__(self, value: int) -> None:
            self.value = value

        def __index__(self) -> int:
            return self.value

    bump = alloc.Bump(upstream=backend())
    address = in_force(bump)
    assert alloc.usable_size(Address(address)) >= 48
    alloc.free(Address(address))
    with pytest.raises(TypeError):
        alloc.free("text")
