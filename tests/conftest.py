"""Fixtures over all backends, deselection by flag, profiles of the property tests.

A test whose component is missing fails.  A run without a component says so:
``--without jemalloc`` deselects what is marked ``needs_jemalloc``, and
``--implementation python`` states that the pure implementation is under test.

``--hypothesis-profile=nightly`` runs 10,000 examples in place of ``fast``.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).resolve().parent / "kit"))

import patience

import alloc

COMPONENTS = {
    "core": "the compiled core",
    "jemalloc": "jemalloc-sys, installed",
    "cpython": "CPython: reference counts, its C API, its modules",
    "pymalloc": "CPython's pymalloc (free-threaded builds have mimalloc in its place)",
    "processes": "a platform that starts processes",
    "threads": "a platform that starts threads",
    "loop": "asyncio.run (in a browser JavaScript runs the event loop)",
    "posix": "fork, signals, protected pages, terminals (Windows: none)",
    "proc": "a /proc",
    "limits": "a limit on address space that holds (an emulator ignores it)",
    "kernel": "a /proc of this program only, and process_vm_readv (an emulator: neither)",
    "glibc": "glibc: its name, its settings of malloc, its trim",
    "mallinfo2": "glibc 2.33 or newer: its accounts of malloc in 64 bits",
    "cc": "a C compiler and Python's headers and library",
    "gdb": "gdb (Debian: apt-get install gdb)",
    "gunicorn": "gunicorn (pip install gunicorn)",
    "uvicorn": "uvicorn (pip install uvicorn)",
    "celery": "celery (pip install celery)",
    "ipykernel": "ipykernel (pip install ipykernel)",
    "xdist": "pytest-xdist (pip install pytest-xdist)",
    "pyinstaller": "PyInstaller (pip install pyinstaller) and binutils",
    "vim": "vim with Python (Debian: apt-get install vim-nox)",
    "uwsgi": "uWSGI (Debian: apt-get install uwsgi-core uwsgi-plugin-python3)",
    "apache": "Apache with mod_wsgi (Debian: apt-get install apache2 libapache2-mod-wsgi-py3)",
    "node": "node and its headers (Debian: apt-get install nodejs libnode-dev)",
    "coverage": "coverage (pip install coverage)",
    "memray": "memray (pip install memray)",
    "pyspy": "py-spy (pip install py-spy) and the right to read another process",
    "pybind11": "pybind11 (pip install pybind11) and a C++ compiler",
    "browser": "chromium (Debian: apt-get install chromium)",
    "resvg": "resvg_py (pip install resvg_py) and pillow",
    "numpy": "NumPy (pip install numpy)",
    "rich": "rich (pip install rich)",
    "rust": "rustc (Debian: apt-get install rustc)",
    "gevent": "gevent and greenlet (pip install gevent)",
    "unshare": "unshare and the right to make a mount namespace",
    "venv": "a Python that makes virtual environments",
}
BACKENDS = {
    "system": lambda: alloc.System(),
    "jemalloc": lambda: alloc.Jemalloc(),
    "arena": lambda: alloc.Arena(),
}
NEEDS = {"system": ["core"], "jemalloc": ["core", "jemalloc"], "arena": []}

COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile("fast", max_examples=60, database=None, **COMMON)
settings.register_profile("nightly", max_examples=10_000, **COMMON)
settings.load_profile("fast")


def pytest_addoption(parser):
    group = parser.getgroup("alloc")
    group.addoption(
        "--without",
        action="append",
        default=[],
        choices=sorted(COMPONENTS),
        metavar="COMPONENT",
        help="deselect the tests that need it: " + ", ".join(sorted(COMPONENTS)),
    )
    group.addoption(
        "--implementation",
        default="cython",
        choices=("cython", "python"),
        help="the implementation that this run is about; another one is an error",
    )


def pytest_configure(config):
    if patience.PATIENCE != 1:
        patience.stretch()
    for name, what in COMPONENTS.items():
        config.addinivalue_line("markers", f"needs_{name}: needs {what}")
    # A shell starts its background jobs with SIGINT ignored, and programs inherit that:
    # tests that interrupt one would wait for ever.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    expected = config.getoption("--implementation")
    if alloc.implementation != expected:
        raise pytest.UsageError(
            f"this run is about the {expected} implementation, but {alloc.implementation} "
            f"was imported from {alloc.__file__}: {alloc.facts().core_error}"
        )


def pytest_report_header(config):
    without = config.getoption("--without")
    left = f", without {', '.join(without)}" if without else ""
    return f"alloc: {alloc.implementation} implementation of {Path(alloc.__file__).parent}{left}"


def pytest_collection_modifyitems(config, items):
    without = {f"needs_{name}" for name in config.getoption("--without")}
    if config.getoption("--implementation") == "python":
        without.add("needs_core")
    for item in items:
        if "python" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.needs_processes)
    gone = [item for item in items if without & {mark.name for mark in item.iter_markers()}]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in set(gone)]


def marked(name):
    marks = [getattr(pytest.mark, f"needs_{need}") for need in NEEDS[name]]
    return pytest.param(BACKENDS[name], id=name, marks=marks)


@pytest.fixture(params=[marked(name) for name in BACKENDS])
def backend(request):
    """What makes an allocator, for each backend of this implementation."""
    return request.param


@pytest.fixture
def allocator(backend):
    """An allocator of each backend."""
    return backend()


@pytest.fixture
def python():
    """Run code in a fresh interpreter; returns what it printed, stripped.

    ``status`` is the exit status that is expected; ``env`` adds variables, a value
    of None removes one; ``before`` holds options of the interpreter.
    """

    def run(code, *args, env=None, status=0, before=()):
        full = {k: v for k, v in os.environ.items() if not k.startswith("ALLOC_")}
        if os.environ.get("ALLOC_IMPLEMENTATION"):
            full["ALLOC_IMPLEMENTATION"] = os.environ["ALLOC_IMPLEMENTATION"]
        full.update(env or {})
        full = {k: v for k, v in full.items() if v is not None}
        command = [sys.executable, *before, "-c", code, *args]
        done = subprocess.run(
            command, env=full, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done.stdout.strip() if status == 0 else (done.stdout + done.stderr).strip()

    return run
