"""An application that would get jemalloc, and declares System instead.

    python examples/override_system.py

Shows the decision before and after, and proves by addresses and by both
allocators' own counters that its blocks come from malloc.
"""

import sys

import alloc

MIB = 1 << 20
BLOCKS = 64


def main() -> int:
    before = alloc.decision()
    print("before the declaration")
    print(before, end="\n\n")

    alloc.set_global_allocator(alloc.System())

    after = alloc.decision()
    print("after the declaration")
    print(after, end="\n\n")

    system = alloc.System()
    malloc_before = system.statistics().allocated
    try:
        jemalloc = alloc.Jemalloc()
    except alloc.BackendUnavailableError as error:
        print(f"no jemalloc to compare with: {error}")
        jemalloc = None
    jemalloc_before = jemalloc.read("thread.allocated") if jemalloc else 0

    blocks = [alloc.allocate(MIB) for _ in range(BLOCKS)]

    jemalloc_moved = (jemalloc.read("thread.allocated") if jemalloc else 0) - jemalloc_before
    malloc_now = system.statistics().allocated
    base, length = jemalloc.range if jemalloc else (0, 0)
    inside = sum(base <= block.address < base + length for block in blocks)
    owners = {block.allocator.name for block in blocks}
    print(f"allocated         {BLOCKS} MiB in {BLOCKS} blocks of {', '.join(owners)}")
    print(f"jemalloc counted  {jemalloc_moved} bytes")
    print(f"in its range      {inside} blocks")
    grown = None
    if malloc_before is not None and malloc_now is not None:  # glibc keeps accounts
        grown = malloc_now - malloc_before
        print(f"malloc counted    {grown / MIB:.1f} MiB")
    for block in blocks:
        block.free()

    verification = alloc.verify()
    print(f"\n{verification}")
    held = (
        after.allocator == "system"
        and after.origin == "explicit"
        and owners == {"system"}
        and jemalloc_moved == inside == 0
        and (grown is None or grown >= BLOCKS * MIB)
        and verification.ok
    )
    print("\nthe declaration holds" if held else "\nTHE DECLARATION DOES NOT HOLD")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
