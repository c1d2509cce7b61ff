"""A clean environment for what is in dist/: nothing of the checkout is on its path."""

import glob
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DIST = Path(os.environ.get("ALLOC_DIST", ROOT / "dist")).resolve()
sys.path.insert(0, str(ROOT / "wheels"))

import build

MACHINE = os.uname().machine
INTERPRETERS = build.interpreters(build.VERSIONS)
WHEELS = sorted(DIST.glob(f"pyalloc-*-cp3*_{MACHINE}.whl"))
OURS = "pyalloc,jemalloc-sys"


def version_of(wheel):
    tag = wheel.name.split("-")[2]
    return f"3.{tag[len('cp3') :]}"


class Environment:
    """A virtual environment, a home and an empty folder to work in, all new."""

    def __init__(self, interpreter, folder):
        self.folder = folder
        self.python = folder / "venv" / "bin" / "python"
        self.empty = folder / "empty"
        self.home = folder / "home"
        self.empty.mkdir()
        self.home.mkdir()
        # What tells pip where the index is belongs to the machine and stays.
        gone = ("ALLOC_", "JEMALLOC_", "PYTHON", "VIRTUAL_ENV", "LD_", "MALLOC_")
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(gone)}
        cache = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        self.environ.setdefault("PIP_CACHE_DIR", os.path.join(cache, "pip"))
        self.environ["HOME"] = str(self.home)
        self.command(interpreter, "-m", "venv", folder / "venv", HOME=str(folder))

    def command(self, *command, status=0, **environ):
        """Both streams of a command that must end with `status`."""
        done = subprocess.run(
            [str(word) for word in command],
            env={**self.environ, **environ},
            cwd=self.empty,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == status, f"{done.returncode}:\n{done.stdout[-6000:]}"
        return done.stdout.strip()

    def pip(self, *arguments, **environ):
        # A home of its own: what pip leaves there (it asks rustc, say) is not ours.
        environ.setdefault("HOME", str(self.folder))
        return self.command(self.python, "-m", "pip", "-q", *arguments, **environ)

    def install(self, *what):
        """From dist/ and nowhere else."""
        self.pip("install", "--no-index", "--find-links", DIST, *what)

    def index(self, *what):
        """From the index; of ours there are only the wheels in dist/."""
        self.pip("install", "--find-links", DIST, f"--only-binary={OURS}", *what)

    def run(self, code, *options, status=0, **environ):
        return self.command(self.python, *options, "-c", code, status=status, **environ)

    def files(self):
        """All there is, but for caches of bytecode."""
        found = glob.glob(str(self.folder / "venv" / "**"), recursive=True)
        return {f for f in found if "__pycache__" not in f}
