"""The guest: declares jemalloc for its own blocks, and for nothing else.

Run by ``host.c``, which puts the built-in module ``host`` into its interpreter.
"""

import os
import sys

import host

import alloc

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

MIB = 1 << 20
BLOCKS = 64


def main() -> None:
    decision = alloc.decision()
    print(f"guest: by default {decision.allocator}, because {decision.reason}")
    with open("/proc/self/maps") as maps:
        assert "jemalloc" not in maps.read(), "a guest did not ask for jemalloc, and got it"

    alloc.set_global_allocator(alloc.Jemalloc())
    decision = alloc.decision()
    print(f"guest: declared {decision.allocator} ({decision.origin}, still a {decision.embedding})")

    jemalloc = alloc.Jemalloc()
    held_before = jemalloc.statistics().allocated
    malloc_before = host.malloc_in_use()
    blocks = [alloc.allocate(MIB) for _ in range(BLOCKS)]
    malloc_grown = host.malloc_in_use() - malloc_before
    held_grown = jemalloc.statistics().allocated - held_before
    owned = sum(jemalloc.owns(block.address) for block in blocks)

    print(f"guest: holds {BLOCKS} MiB, {owned} of {BLOCKS} blocks in jemalloc's range")
    print(f"guest: jemalloc's allocated rose by {held_grown / MIB:.1f} MiB")
    print(f"guest: the host's malloc rose by {malloc_grown / MIB:.1f} MiB")
    assert owned == BLOCKS
    assert held_grown >= BLOCKS * MIB
    assert malloc_grown < MIB, malloc_grown

    # A library has no business to declare an allocator.
    import greedy_library

    try:
        greedy_library.start()
    except alloc.GlobalAllocatorConflict as error:
        print(f"guest: refused a library: {error}")
    else:
        raise AssertionError("a second declaration went through")
    assert alloc.decision() == decision

    for block in blocks:
        block.free()
    verification = alloc.verify()
    print(verification)
    assert verification.ok


main()
