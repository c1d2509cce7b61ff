"""What valgrind watches: each compiled kind of allocator, used once through Python."""

import alloc
from alloc import adaptors

native = [alloc.System(), alloc.Jemalloc()]
made = [
    *native,
    *(adaptors.Statistics(one) for one in native),
    alloc.Pool(512, align=64),
    alloc.Bump(),
    adaptors.SampledGuard(alloc.System(), every=2, slots=8),
]
for allocator in made:
    blocks = [allocator.allocate(size, 64, zeroed=True) for size in (1, 100, 500)]
    for block in blocks:
        with block.view as view:
            view[:] = bytes(len(view))
        block.resize(min(512, block.size * 3))
        block.resize(7)
        block.free()
    address = allocator.realloc(allocator.malloc(100), 300)
    assert allocator.usable_size(address) >= 300
    allocator.free(address)
region = alloc.Bump()
with region.scope():
    region.allocate(100_000)
region.reset()
print(len(made), "allocators used,", alloc.decision().allocator, "is global")
