"""Builds the compiled core, or a pure wheel without it.

``ALLOC_CORE=require`` fails where the core does not compile (CI, wheels),
``none`` builds ``py3-none-any``, ``auto`` (the default) falls back to that same
``py3-none-any`` and prints the compiler's words.  The wheel's tag is settled
before the build, so the core is tried first: an extension marked optional would
leave a wheel tagged for one interpreter with nothing of that interpreter in it.
"""

import os
import shutil
import subprocess
import sys
import sysconfig

from setuptools import Extension, setup

CHOICES = ("auto", "require", "none")
SOURCE = "src/alloc"
INCLUDES = [SOURCE, f"{SOURCE}/include"]
POSIX = os.name == "posix"
LINUX = sysconfig.get_platform().startswith("linux")  # compiled for, not on
# Not -O3: it makes a sixth more text, which counts to every process, and saves no
# instructions (benchmarks/regression.py).  -Os costs up to 9 %.
FLAGS = ["-O2", "-g0", "-fvisibility=hidden", "-Wall", "-Wextra"] if POSIX else []
if LINUX:
    FLAGS.append("-fno-plt")  # a slot of System is a jump to malloc: one jump, not two


def core():
    """The extensions, their C generated."""
    from Cython.Build import cythonize

    headers = [f"{SOURCE}/_c/{name}" for name in os.listdir(f"{SOURCE}/_c")]
    public = [f"{SOURCE}/include/alloc/{name}" for name in os.listdir(f"{SOURCE}/include/alloc")]
    names = "_table _threads _raw _again _keeper _core _pool _span regions"
    shared = [f"{SOURCE}/{name}.pxd" for name in names.split()]
    modules = [
        Extension(
            f"alloc.{name}",
            [f"{SOURCE}/{name}.pyx"],
            include_dirs=INCLUDES,
            depends=[*headers, *public, *shared, f"{SOURCE}/_block.pxi", f"{SOURCE}/_global.pxi"],
            # Types on the heap are made anew after Py_Initialize, see _again.pxd.
            define_macros=[("CYTHON_USE_TYPE_SPECS", "1"), ("ALLOC_TABLE_ONLY", "1")],
            libraries=["dl"] if LINUX else [],
            # Last, so that they win: sanitizers, say.
            extra_compile_args=[*FLAGS, *os.environ.get("ALLOC_CFLAGS", "").split()],
        )
        for name in sorted(n[:-4] for n in os.listdir(SOURCE) if n.endswith(".pyx"))
        if LINUX or name != "_route"  # install() is for Linux
    ]
    return cythonize(modules, include_path=["src"])


def trouble(modules, trial=True):
    """What the compiler has against the core, or None.  Asked on POSIX only.

    Without a trial only whether there is one: the build will tell the rest, and
    not every cross compiler can check without writing.
    """
    if not POSIX:
        return None
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if not trial:
        name = compiler.split()[0]
        return None if shutil.which(name) else f"no compiler: {name}"
    includes = [*INCLUDES, sysconfig.get_paths()["include"]]
    command = [*compiler.split(), "-fsyntax-only", *(f"-I{path}" for path in includes)]
    try:
        done = subprocess.run(
            [*command, *(m.sources[0] for m in modules)],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        return f"no compiler: {error}"
    if done.returncode == 0:
        return None
    return done.stderr or f"{compiler} fails with status {done.returncode}"


def extensions():
    choice = os.environ.get("ALLOC_CORE", "auto")
    if choice not in CHOICES:
        raise SystemExit(f"ALLOC_CORE={choice!r}: use one of {', '.join(CHOICES)}")
    if choice == "none":
        return []
    if sys.implementation.name != "cpython" or sys.maxsize <= 2**32:
        reason = "the core is for 64-bit CPython"
    elif not POSIX and choice != "require":
        reason = "on Windows the core comes in wheels, or by ALLOC_CORE=require and a GCC"
    else:
        found = core()
        reason = trouble(found, trial=choice != "require")
        if not reason:
            return found
    if choice == "require":
        raise SystemExit(f"ALLOC_CORE=require: {reason}")
    print(f"pyalloc: building without the compiled core: {reason}", file=sys.stderr)
    return []


setup(ext_modules=extensions())
