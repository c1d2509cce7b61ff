"""The guest: allocates through ``alloc``, and never names the host's allocator."""

import host

import alloc

MIB = 1 << 20

decision = alloc.decision()
print(f"guest: allocator {decision.allocator}, rule {decision.rule}, origin {decision.origin}")
assert (decision.rule, decision.embedding) == ("host", "guest")
assert alloc.verify(), alloc.verify()

blocks = [alloc.allocate(MIB, zeroed=True) for _ in range(64)]
small = [alloc.allocate(size) for size in range(1, 2000)]
owner = alloc.global_allocator()
mine = sum(owner.owns(block.address) for block in blocks + small)
print(f"guest: {mine} of {len(blocks) + len(small)} blocks are in the pool")
assert mine == len(blocks) + len(small)
host.tell("at the guest's peak")

for block in blocks:
    block.free()
host.tell("blocks freed")
refusal = alloc.install().refused
print(f"guest: install() did nothing: {'; '.join(refusal)}")
# `small` is left to the end of the interpreter.
