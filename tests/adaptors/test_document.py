"""The examples of docs/adaptors.md, each a program of its own, and its tables."""

import documents
import pytest

from alloc import adaptors
from alloc.adaptors import crimes

EXAMPLES = documents.blocks("adaptors.md", "python")
TEXT = (documents.DOCS / "adaptors.md").read_text()


def marked(number, example):
    marks = [pytest.mark.needs_core] if "SampledGuard" in example else []
    return pytest.param(example, id=str(number), marks=marks)


@pytest.mark.parametrize("example", [marked(*one) for one in enumerate(EXAMPLES)])
def test_example(python, example):
    """It runs to its end."""
    python(example)


def test_examples_on_the_pure_implementation(python):
    """Where there is one: SampledGuard needs the core."""
    for example in EXAMPLES:
        if "SampledGuard" not in example:
            python(example, env={"ALLOC_IMPLEMENTATION": "python"})


def test_every_adaptor_has_its_paragraph():
    others = {"Counts", "Forwarding", "LimitError"}
    for name in set(adaptors.__all__) - others:
        assert hasattr(crimes, name) or f"**{name}**" in TEXT, name


def test_costs_are_the_benchmark():
    """Each line of the table of costs stands in the committed results."""
    results = (documents.DOCS.parent / "benchmarks" / "results" / "adaptors.md").read_text()
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and " ns; " in line]
    assert len(rows) >= 15
    for row in rows:
        assert row in results, row
