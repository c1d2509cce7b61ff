"""The guest: allocates through ``alloc``."""

import sys

import alloc

decision = alloc.decision()
print(f"guest: allocator {decision.allocator}, rule {decision.rule}, origin {decision.origin}")
assert (decision.rule, decision.embedding) == ("host", "guest"), decision
assert alloc.verify(), alloc.verify()
blocks = [alloc.allocate(size, 64) for size in range(1, 3000)]
assert all(block.address % 64 == 0 for block in blocks)
print(f"guest: holds {len(blocks)} blocks, {sum(block.size for block in blocks)} bytes")
sys.stdout.flush()
