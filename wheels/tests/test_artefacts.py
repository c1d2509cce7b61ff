"""What is in dist/, as users meet it: `make test-artefacts`, after `make wheels`.

Needs the index, a C compiler and pypy3.  What is missing fails; `-k` leaves out.
ALLOC_TEST_TORCH is the requirement that gives PyTorch's CPU build (the index has
the one with CUDA, of gigabytes): `torch==2.13.0+cpu`, and where it comes from in
PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from clean import DIST, INTERPRETERS, MACHINE, WHEELS, Environment, version_of
from repack import repack

HERE = Path(__file__).resolve().parent
ALONE = "standalone-without-jemalloc"
SHOW = """
import alloc
d = alloc.decision()
assert alloc.verify(), alloc.verify()
with alloc.allocate(1 << 20, zeroed=True) as block:
    block.view[:4] = b"data"
print(alloc.implementation, d.allocator, d.rule)
"""


def sdist(name="pyalloc"):
    (path,) = DIST.glob(f"{name}-*.tar.gz")
    return path


def jemalloc_wheel():
    (path,) = DIST.glob(f"jemalloc_sys-*_{MACHINE}.whl")
    return path


@pytest.fixture
def new(tmp_path):
    """In the newest Python here that there is a wheel for."""
    versions = [version for version in map(version_of, WHEELS) if version in INTERPRETERS]
    assert versions, f"nothing for {MACHINE} and a Python here in {DIST}: make wheels"
    newest = max(versions, key=lambda version: int(version.split(".")[1]))
    return Environment(INTERPRETERS[newest], tmp_path)


# --- from the sdist


def installed_tag(environment):
    said = environment.run(
        "import importlib.metadata as m; print(m.distribution('pyalloc').read_text('WHEEL'))"
    )
    return [line for line in said.splitlines() if line.startswith(("Tag", "Root"))]


def test_the_sdist_with_a_compiler(new):
    new.pip("install", sdist())
    assert new.run(SHOW) == f"cython system {ALONE}"
    assert not any("none-any" in line for line in installed_tag(new))


def test_the_sdist_without_a_compiler(new):
    nothing = new.folder / "nothing"
    nothing.mkdir()
    new.pip("install", sdist(), PATH=str(nothing))
    assert installed_tag(new) == ["Root-Is-Purelib: true", "Tag: py3-none-any"]
    assert not [name for name in new.files() if "/alloc/" in name and name.endswith(".so")]
    assert new.run(SHOW, PATH=str(nothing)) == "python arena no-core"


def test_the_sdist_without_a_compiler_where_one_is_required(new):
    nothing = new.folder / "nothing"
    nothing.mkdir()
    environ = {"PATH": str(nothing), "ALLOC_CORE": "require"}
    said = new.pip("install", sdist(), status=1, **environ)
    assert "ALLOC_CORE=require: no compiler" in said


# --- one distribution, or both


def test_pyalloc_alone(new):
    new.install("pyalloc")
    assert new.run(SHOW, "-W", "error") == f"cython system {ALONE}"
    said = new.run("import alloc; r = alloc.install(); print(r.python, r.refused)", "-W", "error")
    assert said.startswith("None") and "jemalloc-sys is not installed" in said
    new.run("import alloc.auto", "-W", "error")
    listed = (
        "import importlib.metadata as m; print(*{d.metadata['Name'] for d in m.distributions()})"
    )
    assert set(new.run(listed).split()) - {"pip", "setuptools"} == {"pyalloc"}


INSTALLED = """
import alloc, jemalloc_sys
r = alloc.install()
big = bytes(100_000)
assert alloc.Jemalloc().owns(id(big)), r
print(jemalloc_sys.__version__)
"""


def test_pyalloc_with_jemalloc(new):
    new.install("pyalloc[jemalloc]")
    assert new.run(SHOW, "-W", "error") == "cython jemalloc standalone"
    assert new.run(INSTALLED, "-W", "error") == jemalloc_wheel().name.split("-")[1]
    new.pip("check")
    served = "import alloc; print(alloc.jemalloc.Control('preloaded').read('version') > '5')"
    command = [new.python, "-m", "alloc", "run", "--scope", "process", "-c", served]
    assert new.command(*command) == "True"


# --- another jemalloc-sys under an installed pyalloc

RUNNING = """
import sys, threading
import alloc
alloc.install()
print("ready", flush=True)
sys.stdin.readline()
stop = [threading.Thread(target=lambda: [bytes(n) for n in range(1, 60_000, 7)]) for _ in range(4)]
[t.start() for t in stop]
[t.join() for t in stop]
alloc.trim()
assert alloc.Jemalloc().owns(id(bytes(100_000)))
assert alloc.verify(), alloc.verify()
print("served to the end")
"""


def test_jemalloc_is_upgraded_and_downgraded(new):
    """Also under a running process, which goes on with what it has loaded."""
    newer = repack(jemalloc_wheel(), new.folder, "5.99.0.0")
    older = repack(jemalloc_wheel(), new.folder, "5.3.0.0")
    new.install("pyalloc[jemalloc]")
    running = subprocess.Popen(
        [new.python, "-c", RUNNING],
        env=new.environ,
        cwd=new.empty,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert running.stdout.readline() == "ready\n"
    for wheel, version in ((newer, "5.99.0.0"), (older, "5.3.0.0")):
        new.pip("install", "--no-index", wheel)
        assert new.run(SHOW, "-W", "error") == "cython jemalloc standalone"
        assert new.run(INSTALLED, "-W", "error") == version
        assert f" {version}" in new.command(new.python, "-m", "jemalloc_sys")
        new.pip("check")
    said, _ = running.communicate("\n", timeout=120)
    assert said == "served to the end\n" and running.returncode == 0


def other_interface(folder, number):
    """A library that speaks an interface which no pyalloc knows yet."""
    source, library = folder / "other.c", folder / "other.so"
    source.write_text(
        f"unsigned je_sys_abi(void) {{ return {number}; }}\n"
        "void je_sys_range(void **base, unsigned long *length) {}\n"
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return library.read_bytes()


def test_jemalloc_of_another_interface(new):
    """One warning that says what to do; System serves; the right version mends it."""
    name = "jemalloc_sys/lib/libjemalloc_private.so"
    future = repack(
        jemalloc_wheel(), new.folder, "6.0.0.0", {name: other_interface(new.folder, 99)}
    )
    new.install("pyalloc[jemalloc]")
    new.pip("install", "--no-index", future)
    *warned, last = new.run(SHOW).splitlines()
    assert last == f"cython system {ALONE}"
    assert sum("Warning" in line for line in warned) == 1, warned
    assert "interface 99" in warned[0] and "another version of jemalloc-sys" in warned[0]
    refused = new.run("import alloc; print(alloc.install().refused)")
    assert "interface 99" in refused
    new.command(new.python, "-m", "alloc", "info")
    new.pip("install", "--no-index", "--force-reinstall", "--no-deps", jemalloc_wheel())
    assert new.run(SHOW, "-W", "error") == "cython jemalloc standalone"


# --- and gone


def test_uninstalled_leaves_nothing(new):
    """No file of the environment, nothing in the home or in the working folder."""
    before = new.files()
    new.install("pyalloc[jemalloc]")
    new.run("import alloc; alloc.install(); alloc.trim()")
    new.command(new.python, "-m", "alloc", "info")
    new.command(new.python, "-m", "alloc", "run", "-c", "print(1)")
    new.command(new.python, "-m", "jemalloc_sys")
    new.pip("uninstall", "-y", "pyalloc", "jemalloc-sys")
    assert new.files() == before
    left = [str(path) for path in (new.folder / "venv").rglob("*") if "alloc" in path.name]
    assert not left
    assert os.listdir(new.empty) == os.listdir(new.home) == []


# --- elsewhere


def test_the_pure_wheel_on_pypy(tmp_path):
    pypy = shutil.which("pypy3")
    assert pypy, "no pypy3 (Debian: apt-get install pypy3 pypy3-venv)"
    place = Environment(pypy, tmp_path)
    before = place.files()
    place.install("pyalloc")
    assert place.run(SHOW, "-W", "error") == "python arena no-core"
    place.command(place.python, "-m", "alloc", "info")
    place.pip("uninstall", "-y", "pyalloc")
    assert place.files() == before


FROZEN = """
import alloc
assert alloc.__version__
alloc.install()
big = bytes(100_000)
assert alloc.verify(), alloc.verify()
print(alloc.decision().allocator, alloc.decision().rule, alloc.Jemalloc().owns(id(big)))
alloc.trim()
"""


def test_in_a_pyinstaller_application(new):
    """By the packages' own hooks.  The folder alone is enough: the environment is gone."""
    new.install("pyalloc[jemalloc]")
    new.index("pyinstaller>=6.6")
    (new.empty / "app.py").write_text(FROZEN)
    new.command(new.python, "-m", "PyInstaller", "--onedir", "--noconfirm", "app.py")
    (new.folder / "venv").rename(new.folder / "away")
    said = new.command(new.empty / "dist" / "app" / "app")
    assert said == "jemalloc standalone True"
    folder = {path.name for path in (new.empty / "dist" / "app" / "_internal").rglob("*")}
    assert "COPYING.jemalloc" in folder
    assert not folder & {"hypothesis", "pytest", "libjemalloc_pic.a", "jemalloc.h"}


def test_in_a_pyinstaller_application_alone(new):
    """Without jemalloc-sys: System, in one file; and the command line inside."""
    new.install("pyalloc")
    new.index("pyinstaller>=6.6")
    (new.empty / "app.py").write_text(SHOW + "from alloc.cli import main\nmain(['info'])\n")
    new.command(new.python, "-m", "PyInstaller", "--onefile", "--noconfirm", "app.py")
    (new.folder / "venv").rename(new.folder / "away")
    said = new.command(new.empty / "dist" / "app")
    assert said.startswith(f"cython system {ALONE}") and "implementation cython" in said, said


# --- next to packages that bring an allocator along

NEIGHBOURS = "3.11"
"""The Python they are installed in: one that all of them have wheels for."""


@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("mode", ["hybrid", "full"])
def test_beside_packages_that_carry_allocators(neighbours, mode, order):
    """pyarrow (jemalloc, mimalloc), polars, duckdb (jemalloc), torch, in one process."""
    said = neighbours.command(neighbours.python, HERE / "neighbours.py", mode, order)
    assert said.splitlines()[-1] == "all served", said


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory):
    assert NEIGHBOURS in map(version_of, WHEELS), f"no wheel for {NEIGHBOURS} in {DIST}"
    place = Environment(INTERPRETERS[NEIGHBOURS], tmp_path_factory.mktemp("neighbours"))
    torch = os.environ.get("ALLOC_TEST_TORCH", "torch")
    place.index("pyalloc[jemalloc]", "numpy", "pyarrow", "polars", "duckdb", torch)
    yield place
    shutil.rmtree(place.folder)  # about a gigabyte
