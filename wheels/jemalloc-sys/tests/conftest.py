"""The tests look at the installed package; without it they fail, never skip."""

import os
import subprocess
import sys
import textwrap

import pytest

# What the snippets have at hand: the private library and its range.
PRELUDE = """\
import ctypes, os, sys, threading
import jemalloc_sys
je = ctypes.CDLL(jemalloc_sys.get_library())
size_t, pointer = ctypes.c_size_t, ctypes.c_void_p
def declare(name, result, *arguments):
    function = getattr(je, name)
    function.restype, function.argtypes = result, arguments
    return function
malloc = declare("je_malloc", pointer, size_t)
free = declare("je_free", None, pointer)
aligned_alloc = declare("je_aligned_alloc", pointer, size_t, size_t)
mallctl = declare("je_mallctl", ctypes.c_int, ctypes.c_char_p, pointer, pointer, pointer, size_t)
used = declare("je_sys_range_used", size_t)
lost = declare("je_sys_range_lost", size_t)
refusals = declare("je_sys_range_refusals", ctypes.c_ulong)
_base, _size = pointer(), size_t()
je.je_sys_range(ctypes.byref(_base), ctypes.byref(_size))
base, size = _base.value or 0, _size.value
def inside(p, n):
    return base <= p and p + n <= base + size
def read(name, type=ctypes.c_ssize_t):
    value, length = type(), size_t(ctypes.sizeof(type))
    status = mallctl(name.encode(), ctypes.byref(value), ctypes.byref(length), None, 0)
    assert status == 0, (name, status)
    return value.value
"""


@pytest.fixture
def prelude():
    return PRELUDE


@pytest.fixture
def clean():
    """clean(extra): the environment without what would change jemalloc."""
    return clean_environ


@pytest.fixture
def fresh():
    """Run a snippet after PRELUDE in a new python; its output, or a failure.

    Nothing may be written to stderr: jemalloc would complain there.
    """

    def run(snippet, env=None, prelude=PRELUDE, shell="", stderr=""):
        code = prelude + textwrap.dedent(snippet)
        # From 3.12 on Python warns of every fork beside threads: what is tested here.
        command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", code]
        if shell:
            command = ["/bin/sh", "-c", shell + '; exec "$0" "$@"'] + command
        done = subprocess.run(
            command,
            env=clean_environ(env),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, stderr or done.stderr) == (0, stderr), done.stderr + done.stdout
        assert stderr in done.stderr
        return done.stdout.strip()

    return run


@pytest.fixture
def compiled(tmp_path):
    """Compile C text with flags; the path of the program."""

    def run(text, *flags):
        source, program = tmp_path / "program.c", tmp_path / "program"
        source.write_text(textwrap.dedent(text))
        command = [os.environ.get("CC", "cc"), "-Wall", "-Wextra", "-Werror"]
        command += [str(source), "-o", str(program)] + list(flags)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
        return str(program)

    return run


def clean_environ(extra=None):
    environ = {
        k: v
        for k, v in os.environ.items()
        if k not in ("JE_MALLOC_CONF", "MALLOC_CONF", "LD_PRELOAD", "PYTHONPATH")
        and not k.startswith("JEMALLOC_SYS_")
    }
    environ.update(extra or {})
    return environ
