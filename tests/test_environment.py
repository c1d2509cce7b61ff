"""The overrides and the import, in processes of their own."""

import os
import sys

import pytest

SHOW = """
import alloc
d = alloc.decision()
print(d.allocator, d.rule, d.origin, alloc.global_allocator().name, alloc.implementation)
assert alloc.verify(), alloc.verify()
"""


@pytest.mark.needs_core
@pytest.mark.needs_jemalloc
@pytest.mark.parametrize(
    "env, expected",
    [
        ({}, "jemalloc standalone default jemalloc cython"),
        ({"ALLOC_DISABLE": "1"}, "system disable environment system cython"),
        ({"ALLOC_DEFAULT": "system"}, "system environment environment system cython"),
        ({"ALLOC_DEFAULT": "arena"}, "arena environment environment arena cython"),
        ({"ALLOC_DEFAULT": "jemalloc"}, "jemalloc environment environment jemalloc cython"),
        ({"ALLOC_EMBEDDING": "guest"}, "system guest default system cython"),
        (
            {"ALLOC_EMBEDDING": "guest", "ALLOC_DEFAULT": "jemalloc"},
            "jemalloc environment environment jemalloc cython",
        ),
        ({"ALLOC_IMPLEMENTATION": "python"}, "arena no-core default arena python"),
        ({"ALLOC_IMPLEMENTATION": "cython"}, "jemalloc standalone default jemalloc cython"),
        ({"ALLOC_DISABLE": ""}, "jemalloc standalone default jemalloc cython"),
    ],
)
def test_overrides(python, env, expected):
    assert python(SHOW, env=env) == expected


UNKNOWN = """
import warnings
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import alloc
print([str(w.message) for w in seen])
print(any("nonsense" in e and e.startswith("warning:") for e in alloc.decision().evidence))
"""


@pytest.mark.parametrize("name", ["ALLOC_DEFAULT", "ALLOC_DISABLE", "ALLOC_EMBEDDING"])
def test_an_unknown_value_warns_once_and_is_ignored(python, name):
    out = python(UNKNOWN, env={name: "nonsense"}).splitlines()
    assert out[0].count("nonsense") == 1 and "use one of" in out[0]
    assert out[1] == "True"


def test_an_unknown_value_does_not_abort_under_error_warnings(python):
    out = python("import alloc; print('up')", env={"ALLOC_DEFAULT": "x"}, before=["-W", "error"])
    assert out == "up"


def test_a_kill_switch_holds_against_code(python):
    out = python(
        """
import alloc
arena = alloc.Arena()
before = alloc.global_allocator().name
alloc.set_global_allocator(arena)
with alloc.using(arena):
    print(alloc.current_allocator() is not arena, alloc.global_allocator().name == before)
print("has no effect" in str(alloc.decision()), alloc.decision().rule)
""",
        env={"ALLOC_DISABLE": "1"},
    )
    assert out == "True True\nTrue disable"


@pytest.mark.needs_cpython  # PyPy writes contextvars in Python
@pytest.mark.skipif(sys.version_info < (3, 9, 3), reason="3.9.0 to 3.9.2: all is loaded at once")
def test_import_pulls_in_nothing_heavy(python):
    out = python(
        """
import sys
before = set(sys.modules)
import alloc
new = set(sys.modules) - before
heavy = {"ctypes", "numpy", "typing", "dataclasses", "enum", "inspect", "collections", "re",
         "functools", "warnings", "importlib.metadata", "asyncio"}
print(sorted(new & heavy))
""",
        before=["-S"],
        env={"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )

    assert out == "[]"


@pytest.mark.needs_proc
def test_import_changes_nothing_in_the_process(python):
    out = python(
        """
import os, signal, sys, threading
def look():
    return (dict(os.environ), {s: signal.getsignal(s) for s in signal.valid_signals()},
            threading.active_count(), len(os.listdir("/proc/self/task")),
            sorted(os.listdir("/proc/self/fd")), sys.getrecursionlimit(), os.getcwd(),
            signal.pthread_sigmask(signal.SIG_BLOCK, []))
before = look()
import alloc
alloc.allocate(10).free()
print(look() == before)
"""
    )
    assert out == "True"


def test_import_twice_and_reload(python):
    out = python(
        """
import importlib, sys
import alloc
block, first = alloc.allocate(100), str(alloc.decision())
for _ in range(3):
    importlib.reload(alloc)
    for name in [n for n in sys.modules if n == "alloc" or n.startswith("alloc.")]:
        if name not in ("alloc._core", "alloc._process"):
            del sys.modules[name]
    import alloc
    assert str(alloc.decision()) == first
    alloc.allocate(1000).free()
block.free()
print("done")
"""
    )
    assert out == "done"


@pytest.mark.needs_core
def test_a_subinterpreter_gets_an_allocator_too(python):
    out = python(
        """
import sys
sys.path.insert(0, {!r})
import alloc
try:
    import _interpreters as api
except ImportError:
    import _xxsubinterpreters as api
i = api.create()
text = r'''
import sys
sys.path[:] = {!r}
import alloc
with alloc.allocate(1000, zeroed=True) as b:
    assert bytes(b.view) == bytes(1000)
assert alloc.verify(), alloc.verify()
'''
failed = (getattr(api, "exec", None) or api.run_string)(i, text)
assert not failed, failed
api.destroy(i)
alloc.allocate(10).free()
print("done")
""".format("", sys.path)
    )
    assert out == "done"


def test_a_forced_core_that_is_missing_is_an_error(python, tmp_path):
    out = python(
        """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == "alloc._core":
            raise ImportError("hidden by the test")
sys.meta_path.insert(0, Hide())
import alloc
""",
        env={"ALLOC_IMPLEMENTATION": "cython"},
        status=1,
    )
    assert "hidden by the test" in out


def test_a_core_that_does_not_load_leaves_the_arena(python):
    out = python(
        """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == "alloc._core":
            raise ImportError("hidden by the test")
sys.meta_path.insert(0, Hide())
import alloc
print(alloc.implementation, alloc.decision().allocator)
print("no compiled core: ImportError: hidden by the test" in alloc.decision().evidence)
with alloc.allocate(100) as block: pass
for build in (alloc.System, alloc.Jemalloc):
    try: build()
    except alloc.BackendUnavailableError as error: print("compiled core" in str(error))
assert alloc.verify()
""",
        env={"ALLOC_IMPLEMENTATION": None},
    )
    assert out == "python arena\nTrue\nTrue\nTrue"
