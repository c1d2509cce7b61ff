"""The decision under a coverage-guided fuzzer: any environment, any facts.

    python tests/fuzz/decision.py [libFuzzer option...] [corpus directory...]

What must hold is the property test of ``tests/test_decide.py``; atheris turns bytes
into its arguments by way of Hypothesis, and watches the branches of ``_decide`` and
``_environ``.
"""

import os
import sys

import atheris

with atheris.instrument_imports(include=["alloc._decide", "alloc._environ"]):
    import alloc._decide

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import test_decide

if __name__ == "__main__":
    claims = test_decide.test_any_facts_give_a_decision_that_can_be_carried_out
    assert test_decide.decide is alloc._decide.decide
    atheris.Setup(sys.argv, claims.hypothesis.fuzz_one_input)
    atheris.Fuzz()
