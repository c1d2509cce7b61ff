"""The guest: allocates through ``alloc``, whatever the host has behind it."""

import array

import host

import alloc

decision = alloc.decision()
print(f"guest: allocator {decision.allocator}, rule {decision.rule}, origin {decision.origin}")
assert (decision.rule, decision.embedding) == ("host", "guest")
assert alloc.verify(), alloc.verify()

before = host.held()
sizes = [17 * n for n in range(1, 2000)]
blocks = [alloc.allocate(size) for size in sizes]
held = host.held() - before
print(f"guest: allocated {sum(sizes)} bytes, the host gave {held}")
assert held >= sum(sizes)

numbers = memoryview(blocks[-1])[:8000].cast("d")
numbers[:] = array.array("d", range(1000))
assert sum(numbers) == 499500
del numbers

# C-shaped, without owner or size: alloc remembers what the host must be told.
pmr = alloc.global_allocator()
address = alloc.realloc(alloc.malloc(100), 5000)
assert alloc.usable_size(address) >= 5000
alloc.free(address)
try:
    pmr.free(address)
except alloc.InvalidFreeError as error:
    print(f"guest: refused: {error}")
host.tell("at the guest's peak")
