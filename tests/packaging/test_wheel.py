"""What is built from this tree: tags, contents, and that it installs into a clean venv."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.needs_core
PY = f"cp{sys.version_info[0]}{sys.version_info[1]}"

NEEDED = {
    "alloc/__init__.py",
    "alloc/_core.pyi",
    "alloc/_core.pyx",
    "alloc/_table.pxd",
    "alloc/include/alloc/alloc.h",
    "alloc/py.typed",
    "pytest_alloc.py",
}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution; all wheels here are built from it, not from the tree."""
    out = tmp_path_factory.mktemp("sdist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--sdist", "-o", out, ROOT],
        check=True,
        capture_output=True,
    )
    (archive,) = out.glob("pyalloc-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(out) if sys.version_info < (3, 12) else tar.extractall(out, filter="data")
    (tree,) = (path for path in out.iterdir() if path.is_dir())
    return tree


def wheel(tree, out, check=True, **env):
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", out, tree],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
        (path,) = out.glob("*.whl")
        return path, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def compiled(sdist, tmp_path_factory):
    """The wheel with the core, built from the source distribution."""
    return wheel(sdist, tmp_path_factory.mktemp("compiled"), ALLOC_CORE="require")[0]


def names(path):
    with zipfile.ZipFile(path) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def check_contents(found):
    assert found >= NEEDED
    strange = [
        n
        for n in found
        if not n.startswith(("alloc/", "pyalloc-", "pytest_alloc.py"))
        or n.endswith((".c", ".o"))
        or "__pycache__" in n
    ]
    assert not strange
    assert any(n.endswith("licenses/LICENSE") for n in found)


def installed(path, tmp_path, code, *extra):
    """Run code in a new venv that holds the wheel and nothing else."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", path, *extra], check=True
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ALLOC_", "PYTHON"))}
    done = subprocess.run(
        [python, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SHOW = """
import alloc, pathlib
d = alloc.decision()
assert alloc.verify(), alloc.verify()
assert pathlib.Path(alloc.get_include(), "alloc", "alloc.h").exists()
print(alloc.implementation, d.allocator, d.rule, alloc.__version__)
"""


@pytest.mark.needs_cc
def test_compiled(compiled, tmp_path):
    assert f"-{PY}-{PY}-" in compiled.name
    found = names(compiled)
    check_contents(found)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    assert {f"alloc/_core{suffix}", f"alloc/_process{suffix}"} <= found
    out = installed(compiled, tmp_path, SHOW)
    assert out == "cython system standalone-without-jemalloc 0.1.0"


def test_pure(sdist, tmp_path):
    path, _ = wheel(sdist, tmp_path, ALLOC_CORE="none")
    assert path.name.endswith("-py3-none-any.whl")
    found = names(path)
    check_contents(found)
    assert not [n for n in found if n.endswith((".so", ".pyd"))]
    assert installed(path, tmp_path, SHOW) == "python arena no-core 0.1.0"


@pytest.mark.parametrize("compiler", ["false", "/no/such/compiler"])
def test_without_a_compiler_the_wheel_is_pure_and_says_so(sdist, tmp_path, compiler):
    path, said = wheel(sdist, tmp_path, ALLOC_CORE="auto", CC=compiler)
    assert path.name.endswith("-py3-none-any.whl")
    assert "building without the compiled core" in said


def test_required_but_no_compiler(sdist, tmp_path):
    done = wheel(sdist, tmp_path, check=False, ALLOC_CORE="require", CC="/no/such/compiler")
    assert done.returncode != 0
    assert "ALLOC_CORE=require: no compiler" in done.stdout + done.stderr
    assert not list(tmp_path.glob("*.whl"))


def test_an_unknown_choice(sdist, tmp_path):
    done = wheel(sdist, tmp_path, check=False, ALLOC_CORE="maybe")
    assert done.returncode != 0
    assert "ALLOC_CORE='maybe': use one of auto, require, none" in done.stdout + done.stderr


@pytest.mark.needs_jemalloc
@pytest.mark.needs_cc
def test_with_jemalloc_from_wheels_alone(compiled, tmp_path):
    jemalloc = sorted((ROOT / "build" / "wheels").glob("jemalloc_sys-*.whl"))
    assert jemalloc, "build/wheels has no jemalloc-sys wheel: make build"
    out = installed(compiled, tmp_path, SHOW, jemalloc[-1])
    assert out == "cython jemalloc standalone 0.1.0"
