"""The decision is taken on first use, and is the one that the import would have taken."""

import pytest
from defaults import MODE

import alloc

LOOK = """
import sys
def mapped():
    return any("jemalloc" in line for line in open("/proc/self/maps"))
def taken():
    return "alloc._default" in sys.modules
"""


@pytest.mark.needs_core
@pytest.mark.needs_jemalloc
@pytest.mark.parametrize(
    "use",
    [
        "alloc.allocate(1)",
        "alloc.free(alloc.malloc(1))",
        "alloc.free(alloc.calloc(1))",
        "alloc.free(alloc.realloc(0, 5))",
        "alloc.free(alloc.aligned_alloc(64, 1))",
        "alloc.current_allocator()",
        "alloc.global_allocator()",
        "alloc.decision()",
        "alloc.facts()",
        "alloc.verify()",
        "alloc._C_API",
        "with alloc.using(alloc.System()): pass",
    ],
)
def test_the_import_loads_nothing_and_the_first_use_all(python, use):
    code = f"""
import alloc
assert not taken() and not mapped()
{use}
assert taken() and mapped()
assert alloc.decision().allocator == alloc.global_allocator().name == "jemalloc"
"""
    assert python(LOOK + code) == ""


@pytest.mark.needs_core
@pytest.mark.needs_jemalloc
def test_what_needs_no_decision_takes_none(python):
    code = """
import alloc
system = alloc.System()
alloc.free(alloc.realloc(system.malloc(5), 50))
system.allocate(5).free()
assert alloc.Layout(5).size == 5 and alloc.errors.AllocError is alloc.AllocError
alloc.free(0)
assert not taken() and not mapped()
alloc.Jemalloc().allocate(5)
assert not taken() and mapped()
"""
    assert python(LOOK + code) == ""


@pytest.mark.needs_cpython  # a guest anyhow, on others
def test_what_changes_after_the_import_does_not_count(python):
    code = """
import os, sys
import alloc
for name, value in {"DEFAULT": "arena", "DISABLE": "1", "EMBEDDING": "guest"}.items():
    os.environ[f"ALLOC_{name}"] = value
sys.frozen = "dll"
sys._alloc_host = "nonsense"
sys.modules["__main__"].__compiled__ = True
found = alloc.decision()
print(found.embedding, found.origin)
print("frozen" in str(found), "compiled" in str(found).replace("compiled core", ""))
"""
    if_imported_late = code.replace("import alloc\n", "").replace(
        "found =", "import alloc; found ="
    )
    assert python(code).splitlines() == ["standalone default", "False False"]
    assert python(if_imported_late, env={"PYTHONWARNINGS": "ignore"}) != python(code)


def test_threads_at_once_find_the_same(python):
    code = """
import sys, threading
sys.setswitchinterval(1e-6)
import alloc
barrier, found = threading.Barrier(16), []
def work():
    barrier.wait()
    found.append((alloc.allocate(10).allocator, alloc.decision()))
threads = [threading.Thread(target=work) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(found) == 16
assert all(pair[1] is alloc.decision() for pair in found)
assert {pair[0].name for pair in found} == {alloc.decision().allocator}
"""
    for _ in range(3):
        assert python(code) == ""


@pytest.mark.needs_core
def test_a_declaration_beside_a_decision_in_the_making_stays(python):
    code = """
import sys, threading
sys.setswitchinterval(1e-6)
import alloc
mine = alloc.Arena()
barrier = threading.Barrier(8)
def use():
    barrier.wait()
    alloc.allocate(10)
def declare():
    barrier.wait()
    alloc.set_global_allocator(mine)
threads = [threading.Thread(target=t) for t in [use] * 7 + [declare]]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert alloc.global_allocator() is mine and alloc.decision().rule == "explicit"
"""
    for _ in range(5):
        assert python(code) == ""


@pytest.mark.needs_core
def test_an_interrupted_decision_is_taken_again(python, tmp_path):
    """And one asked for in the middle of it, by a module that is being imported, gets
    System for that once."""
    (tmp_path / "jemalloc_sys.py").write_text(
        "import alloc\n"
        "print(alloc.allocate(5).allocator, alloc.decision().allocator)\n"
        "if not hasattr(alloc, 'again'):\n"
        "    alloc.again = True\n"
        "    raise KeyboardInterrupt\n"
        "raise ImportError('not today')\n"
    )
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import alloc
try:
    alloc.malloc(5)
except KeyboardInterrupt:
    print("interrupted")
alloc.free(alloc.malloc(5))
print(alloc.decision().rule, "not today" in str(alloc.decision()))
"""
    assert python(code).splitlines() == [
        "alloc.System() system",
        "interrupted",
        "alloc.System() system",
        "standalone-without-jemalloc True",
    ]


@pytest.mark.needs_posix
def test_a_child_that_comes_first_decides_for_itself(python):
    code = """
import os
import alloc
child = os.fork()
if child == 0:
    with alloc.allocate(100) as block:
        os._exit(0 if block.allocator.name == alloc.decision().allocator else 1)
assert os.waitpid(child, 0)[1] == 0
with alloc.allocate(100) as block:
    assert block.allocator.name == alloc.decision().allocator
"""
    assert python(code) == ""


@pytest.mark.needs_cpython  # others run no finalizers at exit
def test_a_first_use_when_the_interpreter_ends(python):
    """Where no module can be loaded any more, System or the arena serves."""
    code = """
import os, sys
import alloc
class Late:
    def __del__(self, allocate=alloc.allocate, write=os.write):
        block = allocate(100)
        block.free()
        write(1, f"{sys.meta_path} {block.allocator.name}".encode())
sys.modules["late"] = Late()
"""
    expected = "system" if alloc.implementation == "cython" else "arena"
    assert python(code) == f"None {expected}"


SLOW = """
import builtins, os, sys, threading
import alloc
def slowly(inner, within):
    # The import of `inner` by `within` takes until `go_on` is set.
    plain, begun, go_on = builtins.__import__, threading.Event(), threading.Event()
    def imports(name, globals=None, *rest):
        if name.endswith(inner) and (globals or {}).get("__name__", "").endswith(within):
            begun.set()
            go_on.wait(20)
        return plain(name, globals, *rest)
    builtins.__import__ = imports
    return begun, go_on
"""


@pytest.mark.needs_core
@pytest.mark.needs_jemalloc
@pytest.mark.parametrize("use", ["ledger", "trim"])
def test_another_thread_is_at_its_first_install(python, use):
    """Nobody meets a module that is half imported."""
    code = f"""
alloc.allocate(1)
alloc.{use}()
begun, go_on = slowly("_record", "_installing")
installs = threading.Thread(target=lambda: alloc.install())
installs.start()
assert begun.wait(20)
threading.Timer(0.2, go_on.set).start()
alloc.{use}()
installs.join()
print(alloc.installed().python)
"""
    assert python(SLOW + code) == MODE


@pytest.mark.needs_cpython
@pytest.mark.needs_posix
@pytest.mark.needs_threads
@pytest.mark.needs_processes
def test_a_fork_while_another_thread_imports_what_the_arena_needs(python):
    """A child would wait for ever for an import that a thread of its parent was in."""
    code = """
import signal
arena = alloc.Arena()
begun, go_on = slowly("_ctypes", "ctypes")
first = threading.Thread(target=lambda: arena.free(arena.malloc(10)))
first.start()
assert begun.wait(20)
threading.Timer(0.2, go_on.set).start()
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    arena.free(arena.malloc(10))
    os._exit(7)
first.join()
print(os.waitpid(pid, 0)[1] >> 8)
"""
    assert python(SLOW + code) == "7"
