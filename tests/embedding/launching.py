"""Starts the processes of these tests and reads what they report."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import itertools
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import alloc

HERE = Path(__file__).resolve().parent
REPORT = str(HERE / "report.py")
"""A script that reports."""

HOSTED = f"import sys; sys.path.insert(0, {str(HERE)!r}); import report"
REPORTING = f"{HOSTED}; report.emit()"
"""Code that any interpreter, in whatever host, can run: one line."""

SECONDS = 120

PACKAGES = {
    "apache2": "apache2",
    "gdb": "gdb",
    "node": "nodejs",
    "rustc": "rustc",
    "unshare": "util-linux",
    "uwsgi": "uwsgi-core",
    "vim": "vim-nox",
}
"""The package of each program that these tests start."""


class Missing(Exception):
    """A component that these tests need; says what to install."""


def program(name: str) -> str:
    """Path of a program, or ``Missing``."""
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is missing: install the package {PACKAGES.get(name, name)}")
    return found


def module(name: str, distribution: str | None = None) -> None:
    """``Missing`` unless the interpreter under test has the module."""
    if importlib.util.find_spec(name) is None:
        raise Missing(f"the module {name} is missing: pip install {distribution or name}")


class Failure(AssertionError):
    """A process that did not do what it was started for."""


class Kit:
    """The interpreter under test, the package, and a place for files."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.python = sys.executable
        self.home = sys.base_prefix
        self._numbers = itertools.count()
        self._hosts: dict[tuple[str, ...], Path] = {}
        # The two packages and nothing else of site-packages: hosts such as gdb
        # bring another Python.
        packages = place / "packages"
        for directory in (packages, place / "home", place / "tmpdir"):
            directory.mkdir()
        (packages / "alloc").symlink_to(Path(alloc.__file__).resolve().parent)
        found = importlib.util.find_spec("jemalloc_sys")
        # Without an origin it is what an uninstallation left behind.
        self.has_jemalloc = found is not None and found.origin is not None
        if self.has_jemalloc:
            (packages / "jemalloc_sys").symlink_to(Path(found.origin).resolve().parent)
        self.packages = packages

    def path(self, name: str) -> Path:
        """A new path."""
        return self.place / f"{next(self._numbers):03}-{name}"

    def script(self, text: str, name: str = "script.py") -> str:
        """A file of code that can import ``report``."""
        path = self.path(name)
        path.write_text(f"{HOSTED}\n{text}\n")
        return str(path)

    def environ(self, **more: str) -> dict[str, str]:
        """The environment without what would steer Python or ``alloc``."""
        kept = {
            name: text
            for name, text in os.environ.items()
            if not name.startswith(("PYTHON", "ALLOC_", "PYTEST_", "VIRTUAL_ENV", "MALLOC_"))
        }
        places = {name: str(self.place / name.lower()) for name in ("HOME", "TMPDIR")}
        return {**kept, **places, "ALLOC_TEST_PATH": str(self.packages), **more}

    def run(
        self,
        command: list[str],
        *,
        stdin: str = "",
        cwd: Path | None = None,
        executable: str | None = None,
        **environ: str,
    ) -> dict[str, Any]:
        """Run a program to its end; return the report that it, or a child of it, wrote."""
        path = self.path("report.json")
        done = subprocess.run(
            command,
            executable=executable,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            cwd=cwd,
            env=self.environ(ALLOC_TEST_REPORT=str(path), **environ),
        )
        if done.returncode != 0 or not path.exists():
            raise Failure(
                f"{command} ended with {done.returncode}, "
                f"{'a' if path.exists() else 'no'} report\n{done.stdout}\n{done.stderr}"
            )
        return dict(json.loads(path.read_text()))

    def host(self, source: str, *flags: str, python: bool = True) -> str:
        """Compile a program of ``hosts/`` against the interpreter under test."""
        key = (source, *flags)
        if key not in self._hosts:
            built = self.path(source.replace(".c", ""))
            linked = embedding_flags() if python else []
            self.compile([str(HERE / "hosts" / source), "-o", str(built), *flags, *linked])
            self._hosts[key] = built
        return str(self._hosts[key])

    def compile(self, arguments: list[str]) -> None:
        """Run the C compiler."""
        command = [compiler(), "-O1", "-Wall", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"{command}\n{done.stderr}")


# --- servers: the answer to a request is the report ------------------------------------


def free_port() -> int:
    """A port of the loopback that was free a moment ago."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def serving(command: list[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server, with its words in ``log``, and end it; what fails shows the log."""
    with open(log, "wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
    try:
        yield server
    except Failure as error:
        raise Failure(f"{error}\n{log.read_text(errors='replace')}") from None
    finally:
        server.terminate()
        server.wait(SECONDS)


def ask(port: int, server: subprocess.Popen[bytes] | None = None) -> dict[str, Any]:
    """The report of a server; one that is named is waited for until it listens."""
    deadline = time.monotonic() + SECONDS
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            status, body = answer.status, answer.read().decode()
        except ConnectionError as error:
            if server is None or server.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"no answer: {error}") from None
            time.sleep(0.05)
            continue
        finally:
            connection.close()
        if status != 200:
            raise Failure(f"{status}: {body}")
        return dict(json.loads(body))


def compiler() -> str:
    """The C compiler, or ``Missing``."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and shutil.which(name.split()[0]):
            return name.split()[0]
    raise Missing("no C compiler: install the package gcc (or set CC)")


def embedding_flags() -> list[str]:
    """What ``python-config --cflags --ldflags --embed`` says, which venvs do not have."""
    include = sysconfig.get_paths()["include"]
    if not Path(include, "Python.h").exists():
        raise Missing(f"{include}/Python.h is missing: install the headers of this Python")
    library = shared_library()
    more = (sysconfig.get_config_var("LIBS") or "").split()
    rpath = f"-Wl,-rpath,{Path(library).parent}"
    return [f"-I{include}", library, rpath, "-pthread", "-ldl", *more]


def shared_library() -> str:
    """Path of libpython."""
    name = sysconfig.get_config_var("INSTSONAME") or sysconfig.get_config_var("LDLIBRARY")
    for directory in (sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib"):
        multiarch = sysconfig.get_config_var("MULTIARCH") or ""
        for path in (Path(directory, name), Path(directory, multiarch, name)):
            if path.exists() and ".so" in path.name:
                return str(path)
    raise Missing(f"libpython ({name}) is missing: use a Python built with --enable-shared")


def static_library() -> str | None:
    """Path of the static libpython, where this Python has one."""
    name = sysconfig.get_config_var("LIBRARY") or ""
    for directory in (sysconfig.get_config_var("LIBPL"), sysconfig.get_config_var("LIBDIR")):
        if directory and name.endswith(".a") and Path(directory, name).exists():
            return str(Path(directory, name))
    return None


def static_flags(*, whole: bool) -> list[str]:
    """How to link a host that carries its Python and lets extension modules see it.

    ``whole``: with every object of the library, and so with Python's main, which
    it never calls.
    """
    words = [sysconfig.get_config_var(name) or "" for name in ("LIBS", "SYSLIBS", "MODLIBS")]
    libraries = [word for word in " ".join(words).split() if word.startswith("-l")]
    include = sysconfig.get_paths()["include"]
    library = [str(static_library())]
    if whole:
        library = ["-Wl,--whole-archive", *library, "-Wl,--no-whole-archive"]
    link = ["-Wl,--export-dynamic", *library, "-pthread", "-ldl", "-lm"]
    return [f"-I{include}", *link, *libraries]


def loader(executable: str) -> str:
    """The dynamic loader that an ELF executable names (PT_INTERP)."""
    image = Path(executable).resolve().read_bytes()
    start, size, count = (
        struct.unpack_from("<Q", image, 32)[0],
        *struct.unpack_from("<HH", image, 54),
    )
    for number in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", image, start + number * size)
        if kind == 3:
            return image[offset : offset + length - 1].decode()
    raise Missing(f"{executable} names no loader: use a dynamically linked Python")
