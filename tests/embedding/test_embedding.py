"""Every setting started for real; the verdict against the truth."""

import os

import pytest
from launching import HOSTED, REPORT, REPORTING, Failure, Missing
from settings import SETTINGS

import alloc


def marked(setting):
    names = [*setting.needs, *(["needs_core"] if setting.implementation == "cython" else [])]
    return pytest.param(setting, id=setting.name, marks=[getattr(pytest.mark, n) for n in names])


@pytest.mark.parametrize("setting", [marked(setting) for setting in SETTINGS])
def test_setting(kit, setting):
    """The verdict is right, the allocator follows, and the import left no trace."""
    report, trouble = {}, None
    try:
        # A busy host's own threads come and go; what the import does, it does every time.
        for _ in range(3):
            report = setting.run(kit)
            if not (report["busy"] and (report["changed"] or report["changed later"])):
                break
    except (Missing, Failure) as error:
        trouble = str(error)
    if trouble is not None:
        pytest.fail(trouble, pytrace=False)
    decision = report["decision"]
    text = f"{decision}\n{report['verification']}"
    assert report["first"], "alloc was imported before the report"
    assert decision["embedding"] == setting.verdict, text
    if setting.implementation is not None:
        assert report["implementation"] == setting.implementation, text
    assert decision["origin"] == "default", text

    if report["implementation"] == "python":
        expected = "arena"
    elif setting.verdict == "standalone" and kit.has_jemalloc:
        expected = "jemalloc"
    else:
        expected = "system"
    assert (decision["allocator"], report["block"]) == (expected, expected), text
    if report["jemalloc mapped"] != []:  # there is a /proc to tell
        assert report["jemalloc mapped"] == (expected == "jemalloc"), report["mapped"]
    assert report["verified"], text
    assert report["changed"] == {}
    if decision["embedding"] == "guest":
        check_guest(report)


def check_guest(report):
    """Nothing is routed; imported again and reloaded it decides the same; info() tells."""
    assert not report["installed"], "install() was active in a guest"
    assert report["same again"]
    assert report["changed later"] == {}
    if report["info status"] is None:
        return  # the setting left it out
    assert report["info status"] == 0, report["info"]
    expected = ("guest", *report["decision"]["evidence"], report["implementation"])
    for text in (*expected, report["main image"]):
        assert text in report["info"], report["info"]


def test_this_process():
    """pytest itself, with whatever was imported before."""
    assert alloc.decision().embedding == "standalone" or "ALLOC_EMBEDDING" in os.environ


@pytest.mark.parametrize("forced", ["standalone", "guest"])
def test_forced(kit, forced):
    """ALLOC_EMBEDDING overrides what was seen, and the evidence says so."""
    report = kit.run([kit.python, REPORT], ALLOC_EMBEDDING=forced)
    assert report["decision"]["embedding"] == forced
    assert report["decision"]["evidence"][0] == f"ALLOC_EMBEDDING={forced}"


def test_a_setting_that_lies_is_caught(kit):
    """The comparison itself: a guest's report does not pass for a standalone one."""
    report = kit.run([kit.python, REPORT], ALLOC_EMBEDDING="guest")
    assert report["decision"]["embedding"] != "standalone"
    assert report["decision"]["allocator"] == "system" or alloc.implementation == "python"


@pytest.mark.needs_cc
@pytest.mark.needs_core
def test_the_stack_counts_as_it_was_at_import(kit):
    """A guest stays one, although the first use happens below Py_RunMain; and that is
    what would have been taken for standalone."""
    host = [kit.host("later.c"), kit.home]
    early = kit.run([*host, f"{HOSTED}; import alloc", REPORTING], ALLOC_TEST_EARLY="1")
    late = kit.run([*host, "pass", REPORTING])
    verdicts = [report["decision"]["embedding"] for report in (early, late)]
    assert verdicts == ["guest", "standalone"], (early["decision"], late["decision"])
    assert not early["jemalloc mapped"]
