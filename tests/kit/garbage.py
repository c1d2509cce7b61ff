"""Collecting garbage until nothing is left of it."""

import gc


def collect():
    """On PyPy one collection frees a view, the next its block, the next the upstream's."""
    for _ in range(5 if hasattr(gc, "collect_step") else 1):
        gc.collect()
