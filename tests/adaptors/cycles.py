"""See test_cycles.py: python tests/adaptors/cycles.py SEED"""

import gc
import itertools
import random
import sys
import warnings

import alloc
from alloc import adaptors

LAYERS = {
    "bump": lambda up: alloc.Bump(chunk=1024, upstream=up),
    "pool": lambda up: alloc.Pool(256, chunk=1024, upstream=up),
    "guard": lambda up: adaptors.Guard(up, depth=0, quarantine=1 << 12, policy="collect"),
    "statistics": adaptors.Statistics,
    "forwarding": adaptors.Forwarding,
    "tracking": lambda up: adaptors.Tracking(up, depth=0),
    "locked": adaptors.Locked,
    "aligned": lambda up: adaptors.Aligned(up, 64),
    "fallback": lambda up: adaptors.Fallback(up, alloc.Arena()),
}
BOTTOMS = [alloc.Arena] + ([alloc.System] if alloc.implementation == "cython" else [])
REFUSED = (alloc.AllocError, alloc.HeapMisuseError, TypeError)


class Node:
    pass


def make(bottom, layers, kinds, chance):
    """A stack and what it granted, all of it in one cycle."""
    chain = [bottom()]
    for layer in layers:
        chain.append(LAYERS[layer](chain[-1]))
    top, granted = chain[-1], []
    for size in (1, 20, 100, 200):
        try:
            if kinds != "raw":
                block = top.allocate(size)
                with block.view as view:
                    view[:] = b"Z" * size
                granted.append(block)
            if kinds != "blocks":
                granted.append(top.malloc(size))
                top.free(top.malloc(size))
        except REFUSED:
            pass
    node = Node()
    node.me, node.parts = node, [*granted, *chain]
    chance.shuffle(node.parts)
    for each in chain:
        try:
            each.node = node
        except AttributeError:
            pass
    return len(granted)


def main():
    chance = random.Random(int(sys.argv[1]))
    gc.disable()
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda _: None  # an upstream that was taken apart is no surprise
    ended = 0
    stacks = [*itertools.product(("bump", "pool", "guard"), LAYERS, ("bump", "pool", "guard"))]
    for bottom, layers, kinds in itertools.product(BOTTOMS, stacks, ("blocks", "raw", "both")):
        try:
            ended += make(bottom, layers, kinds, chance) > 0
        except TypeError:  # compiled adaptors refuse upstreams in Python
            pass
        gc.collect()
    print("ended", ended)


if __name__ == "__main__":
    main()
