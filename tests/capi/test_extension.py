"""The C and the Cython interface: the example, built as its users build it, and older ones."""

import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

import alloc

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WHEELS = ROOT / "build" / "wheels"
pytestmark = [pytest.mark.needs_core, pytest.mark.needs_cc]


def run(command, **more):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ALLOC_", "PYTHON"))}
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**env, "PIP_FIND_LINKS": str(WHEELS), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        **more,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def environment(place, source):
    """Python of an environment with pyalloc's wheel, a project's, and nothing else.

    The project is built in isolation, so against the wheel, and never sees this tree.
    """
    assert list(WHEELS.glob("pyalloc-*.whl")), "no wheel of pyalloc in build/wheels: make build"
    run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", place, source])
    run([sys.executable, "-m", "venv", place / "venv"])
    python = place / "venv" / "bin" / "python"
    wheels = [*place.glob("*.whl"), *WHEELS.glob("*.whl")]
    run([python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", *wheels])
    return python


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Python of an environment with the example's wheel."""
    place = tmp_path_factory.mktemp("clean")
    source = place / "extension"
    shutil.copytree(ROOT / "examples" / "extension", source)
    return environment(place, source)


@pytest.fixture
def inside(clean):
    """Run code in that environment."""
    return lambda code: run([clean, "-c", textwrap.dedent(code)], cwd=clean.parent)


@pytest.mark.needs_venv
class TestExample:
    """What the example does, and so its users."""

    def test_two_modules_share_one_table(self, inside):
        """Also after the application has chosen another allocator."""
        inside("""
            import alloc
            from alloc_example import smooth, tally
            assert "venv" in alloc.__file__
            first = tally.tables()
            assert first == smooth.tables() and first[0] == first[2]
            assert first[1] == alloc.global_allocator().name == alloc.decision().allocator
            other = alloc.System() if first[1] != "system" else alloc.Arena()
            alloc.set_global_allocator(other)
            second = tally.tables()
            assert second == smooth.tables() and second[0] != first[0]
            assert second[1] == other.name
        """)

    def test_scopes_are_seen(self, inside):
        """By current(), not by the global pointer; an allocator in Python serves, too."""
        inside("""
            import alloc, array, gc
            from alloc_example import smooth, tally
            arena = alloc.Arena()
            outside = tally.tables()
            with alloc.using(arena):
                inside = tally.tables()
                assert inside == smooth.tables()
                assert inside[:2] == outside[:2] and inside[3] == "arena"
                assert tally.histogram(b"abca")[97] == 2
                assert smooth.averages(array.array("d", range(10)), 2)[:2] == [0.5, 1.5]
                series = smooth.Series()
                for value in range(1000):
                    series.append(value)
                assert series.home == "arena"
                block = tally.block(100)
                assert block.allocator is arena and not any(block.view)
                held = arena.statistics().blocks
            assert tally.tables() == outside
            assert series.total() == sum(range(1000))   # outside the scope, still at home
            del series, block
            arena.check()
            assert (held, arena.statistics().blocks) == (2, 0), (held, arena.statistics())
        """)

    def test_owned_memory_goes_home(self, inside):
        """Whatever is global by then."""
        inside("""
            import alloc
            from alloc_example import tally
            home = alloc.global_allocator()
            address = tally.keep(0, 1000)
            assert address % 64 == 0 and home.owns(address)
            arena = alloc.Arena()
            alloc.set_global_allocator(arena)
            assert home.owns(tally.keep(0, 200_000))    # it grows where it is at home
            second = tally.keep(1, 500)
            assert arena.owns(second) and arena.statistics().blocks == 1
            second = tally.keep(1, 100_000)
            assert second % 64 == 0 and arena.statistics().blocks == 1
            assert tally.keep(0, 0) is not None and tally.keep(1, 0) is not None
            assert arena.statistics().blocks == 0
        """)

    def test_errors(self, inside):
        """No memory is AllocError with its layout; an overflow never gives a small block."""
        inside("""
            import alloc
            from alloc_example import smooth, tally
            def raises(error, call, *arguments):
                try:
                    call(*arguments)
                except error as caught:
                    return caught
                raise AssertionError(call)
            caught = raises(alloc.AllocError, tally.too_many)
            assert caught.layout.size == 1 << 46 and caught.allocator == tally.tables()[1]
            raises(OverflowError, smooth.too_many)
            raises(alloc.AllocError, tally.keep, 0, 1 << 46)
            assert tally.keep(0, 100) and raises(alloc.AllocError, tally.keep, 0, 1 << 46)
            raises(MemoryError, tally.block, 1 << 46)
            raises(OverflowError, tally.block, (1 << 64) - 1)
            with alloc.using(alloc.Arena(capacity=1000)):
                raises(alloc.AllocError, tally.histogram, b"")
            assert tally.keep(0, 0) is not None
        """)


SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


def build_old(tmp_path, include):
    compiler = (os.environ.get("CC") or "cc").split()
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-O2"]
    includes = [f"-I{include}", f"-I{sysconfig.get_paths()['include']}"]
    run([*compiler, *flags, *includes, HERE / "old.c", "-o", tmp_path / f"old{SUFFIX}"])


def ask_old(tmp_path, code):
    return run([sys.executable, "-c", code], cwd=tmp_path)


@pytest.mark.parametrize("include", [HERE / "v1", alloc.get_include()], ids=["1", "now"])
def test_older_numbers_still_work(tmp_path, include):
    """A module built against the frozen first header runs with this package."""
    number = "2u" if include != HERE / "v1" else "1u"
    text = Path(include, "alloc", "alloc_api.h").read_text()
    assert f"#define ALLOC_API_ABI {number}" in text
    build_old(tmp_path, include)
    ask_old(
        tmp_path,
        """
import alloc, old
assert old.work() == (sum(range(100)), alloc.global_allocator().name)
with alloc.using(alloc.Arena()):
    assert old.work()[1] == "arena"
try:
    old.refused()
except alloc.AllocError as error:
    assert error.layout.size == 1 << 46
else:
    raise AssertionError
""",
    )


@pytest.mark.parametrize(("number", "advice"), [("99u", "upgrade pyalloc"), ("0u", "rebuild")])
def test_numbers_that_do_not_fit(tmp_path, number, advice):
    """An ImportError that says which side is too old."""
    shutil.copytree(Path(alloc.get_include(), "alloc"), tmp_path / "include" / "alloc")
    header = tmp_path / "include" / "alloc" / "alloc_api.h"
    text = header.read_text()
    assert "#define ALLOC_API_ABI 2u" in text
    text = text.replace("#define ALLOC_API_ABI 2u", f"#define ALLOC_API_ABI {number}")
    header.write_text(text)
    build_old(tmp_path, tmp_path / "include")
    output = ask_old(
        tmp_path, "try:\n import old\nexcept ImportError as e: print(e)\nelse: raise AssertionError"
    )
    assert advice in output and number[:-1] in output


def test_without_the_core(tmp_path):
    """The pure implementation has no C interface, and says so."""
    build_old(tmp_path, alloc.get_include())
    output = ask_old(
        tmp_path,
        "import os; os.environ['ALLOC_IMPLEMENTATION'] = 'python'\n"
        "try:\n import old\nexcept ImportError as e: print(e)\nelse: raise AssertionError",
    )
    assert "compiled core" in output


def test_headers_compile_everywhere(tmp_path):
    """As C99, C11 and C++11 to 20, warnings being errors; with and without Python."""
    place = sysconfig.get_paths()["include"]
    bodies = [
        '#include "alloc/alloc.h"\n',
        '#include "alloc/alloc_host.h"\n',
        '#include <Python.h>\n#include "alloc/alloc.h"\n#include "alloc/alloc_host.h"\n'
        "int test(void) { return import_alloc() + alloc_host_register(0); }\n",
    ]
    for number, body in enumerate(bodies):
        for compiler, standard, suffix in (
            ("cc", "c99", "c"),
            ("cc", "c11", "c"),
            ("c++", "c++11", "cc"),
            ("c++", "c++20", "cc"),
        ):
            source = tmp_path / f"test{number}.{suffix}"
            source.write_text(body + "int unused_in_this_file;\n")
            flags = [f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
            if number == 2 and standard == "c++20":
                flags.remove("-Wextra")  # Python's own headers
            run([compiler, *flags, f"-I{alloc.get_include()}", f"-isystem{place}", source])
