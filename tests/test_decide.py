"""decide(): every rule, their order, and that it is pure and never raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alloc import Facts, decide
from alloc._record import replace

STANDALONE = Facts(stack="main", stack_detail="main is there", jemalloc="/lib/je.so", has_argv=True)
GUEST = replace(STANDALONE, stack="guest", stack_detail="no main")
PURE = replace(STANDALONE, implementation="python", core_error="no core", jemalloc=None)

TABLE = [
    # facts, environment, (embedding, allocator, rule, origin)
    (STANDALONE, {}, ("standalone", "jemalloc", "standalone", "default")),
    (GUEST, {}, ("guest", "system", "guest", "default")),
    (
        replace(STANDALONE, jemalloc=None, jemalloc_trouble="not installed"),
        {},
        ("standalone", "system", "standalone-without-jemalloc", "default"),
    ),
    (
        replace(STANDALONE, jemalloc_trouble="corrupt"),
        {},
        ("standalone", "system", "standalone-without-jemalloc", "default"),
    ),
    (PURE, {}, ("standalone", "arena", "no-core", "default")),
    (
        STANDALONE,
        {"ALLOC_DEFAULT": "system"},
        ("standalone", "system", "environment", "environment"),
    ),
    (STANDALONE, {"ALLOC_DEFAULT": "arena"}, ("standalone", "arena", "environment", "environment")),
    (GUEST, {"ALLOC_DEFAULT": "jemalloc"}, ("guest", "jemalloc", "environment", "environment")),
    (GUEST, {"ALLOC_DEFAULT": " JEMALLOC "}, ("guest", "jemalloc", "environment", "environment")),
    (
        STANDALONE,
        {"ALLOC_DEFAULT": "tcmalloc"},
        ("standalone", "jemalloc", "standalone", "default"),
    ),
    (PURE, {"ALLOC_DEFAULT": "system"}, ("standalone", "arena", "no-core", "default")),
    (
        replace(GUEST, jemalloc=None),
        {"ALLOC_DEFAULT": "jemalloc"},
        ("guest", "system", "guest", "default"),
    ),
    (STANDALONE, {"ALLOC_EMBEDDING": "guest"}, ("guest", "system", "guest", "default")),
    (GUEST, {"ALLOC_EMBEDDING": "standalone"}, ("standalone", "jemalloc", "standalone", "default")),
    (GUEST, {"ALLOC_EMBEDDING": "perhaps"}, ("guest", "system", "guest", "default")),
    (STANDALONE, {"ALLOC_DISABLE": "1"}, ("standalone", "system", "disable", "environment")),
    (PURE, {"ALLOC_DISABLE": "1"}, ("standalone", "arena", "disable", "environment")),
    (STANDALONE, {"ALLOC_DISABLE": "0"}, ("standalone", "jemalloc", "standalone", "default")),
    (
        STANDALONE,
        {"ALLOC_DISABLE": "1", "ALLOC_DEFAULT": "jemalloc"},
        ("standalone", "system", "disable", "environment"),
    ),
    (
        replace(GUEST, explicit=("arena", "app.py:3")),
        {"ALLOC_DEFAULT": "jemalloc"},
        ("guest", "arena", "explicit", "explicit"),
    ),
    (
        replace(STANDALONE, explicit=("arena", "app.py:3")),
        {"ALLOC_DISABLE": "1"},
        ("standalone", "system", "disable", "environment"),
    ),
]


@pytest.mark.parametrize("facts, environ, expected", TABLE)
def test_rules(facts, environ, expected):
    d = decide(facts, environ)
    assert (d.embedding, d.allocator, d.rule, d.origin) == expected
    assert d.reason and d.evidence and d.overrides
    assert all(part in str(d) for part in (*expected, d.reason, *d.evidence))


def test_nobody_is_told_to_install_what_does_not_exist():
    """There is no jemalloc-sys for Windows."""
    install = "pip install pyalloc[jemalloc]"
    lacking = replace(STANDALONE, jemalloc=None)
    assert install in decide(lacking, {}).overrides
    assert install not in decide(replace(lacking, platform="win32"), {}).overrides


EMBEDDINGS = [
    # What was seen, and the verdict.  In doubt: guest.
    ({"stack": "main"}, "standalone"),
    ({"stack": "guest"}, "guest"),
    ({"stack": "guest", "image_main": "Py_Main", "has_argv": True}, "guest"),
    ({"stack": "guest", "frozen": "True"}, "standalone"),
    ({"stack": "guest", "frozen": "macosx_app"}, "standalone"),
    ({"stack": "guest", "frozen": "console_exe"}, "standalone"),
    ({"stack": "main", "frozen": "dll"}, "guest"),
    ({"stack": "main", "frozen": "macosx_plugin"}, "guest"),
    ({"stack": "guest", "compiled_main": True}, "standalone"),
    ({"stack": None, "image_main": "Py_BytesMain", "has_argv": True}, "standalone"),
    ({"stack": None, "image_main": "Py_BytesMain", "has_argv": False}, "guest"),
    ({"stack": None, "image_main": None, "has_argv": True}, "guest"),
    ({"stack": None}, "guest"),
]


@pytest.mark.parametrize("seen, verdict", EMBEDDINGS)
def test_embedding(seen, verdict):
    assert decide(Facts(**seen), {}).embedding == verdict


def test_ignored_values_are_named_with_the_valid_ones():
    d = decide(STANDALONE, {"ALLOC_DEFAULT": "tcmalloc", "ALLOC_DISABLE": "yes"})
    assert (
        "warning: ALLOC_DEFAULT='tcmalloc' is ignored: use one of system, jemalloc, arena"
        in d.evidence
    )
    assert "warning: ALLOC_DISABLE='yes' is ignored: use one of 1, 0" in d.evidence


def test_what_cannot_be_had_is_named():
    d = decide(replace(STANDALONE, jemalloc_trouble="cut off"), {"ALLOC_DEFAULT": "jemalloc"})
    assert "warning: ALLOC_DEFAULT=jemalloc cannot be had here" in d.evidence
    assert "warning: jemalloc does not serve: cut off" in d.evidence


def test_a_declaration_without_effect_is_named():
    d = decide(replace(STANDALONE, explicit=("arena", "app.py:3")), {"ALLOC_DISABLE": "1"})
    assert "set_global_allocator(arena) at app.py:3 has no effect" in d.evidence


texts = st.none() | st.text(max_size=20)
facts = st.builds(
    Facts,
    implementation=st.sampled_from(["cython", "python"]),
    core_error=texts,
    frozen=texts,
    compiled_main=st.booleans(),
    stack=st.sampled_from(["main", "guest", None]),
    image_main=st.sampled_from(["Py_Main", None]),
    has_argv=st.booleans(),
    jemalloc=texts,
    jemalloc_trouble=texts,
    explicit=st.none() | st.just(("arena", "a.py:1")),
)
values = (
    st.sampled_from(["1", "0", "system", "jemalloc", "arena", "standalone", "guest"]) | st.text()
)
names = st.sampled_from(
    ["ALLOC_DISABLE", "ALLOC_DEFAULT", "ALLOC_EMBEDDING", "ALLOC_IMPLEMENTATION"]
)


@given(facts, st.dictionaries(names, values))
def test_any_facts_give_a_decision_that_can_be_carried_out(facts, environ):
    d = decide(facts, environ)
    assert d == decide(facts, dict(environ)), "not a function of its arguments"
    assert d.embedding in ("standalone", "guest")
    if d.rule != "explicit":
        assert d.allocator in ("system", "jemalloc", "arena")
        if d.allocator == "jemalloc":
            assert facts.core_error is None and facts.jemalloc is not None
            assert facts.jemalloc_trouble is None
        if d.allocator == "system":
            assert facts.core_error is None
    if environ.get("ALLOC_DISABLE") == "1":
        assert d.allocator != "jemalloc"
    sure = facts.stack == "main" or facts.frozen or facts.compiled_main or facts.image_main
    if not sure and environ.get("ALLOC_EMBEDDING", "").strip().lower() != "standalone":
        assert d.embedding == "guest", "a doubt became standalone"
