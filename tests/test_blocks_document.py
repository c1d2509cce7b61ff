"""The examples of docs/blocks.md, each a program of its own."""

import documents
import pytest

EXAMPLES = documents.blocks("blocks.md", "python")


@pytest.mark.needs_core  # DLPack is there for compiled blocks only
@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example(python, example):
    """It runs to its end, on the default allocator."""
    python(example)


def test_examples_without_dlpack(python):
    """And on the pure implementation."""
    for example in EXAMPLES:
        if "dlpack" not in example:
            python(example, env={"ALLOC_IMPLEMENTATION": "python"})
