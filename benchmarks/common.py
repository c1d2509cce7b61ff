"""What the benchmarks share: options, the machine, compiling, statistics, reports."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import sysconfig
from importlib import metadata

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
SOURCE = os.path.join(ROOT, "src", "alloc")
INCLUDES = [SOURCE, os.path.join(SOURCE, "include")]

SIZES = (16, 64, 1024, 64 * 1024, 1024 * 1024)


class Missing(Exception):
    """Something optional that is not here; the text goes into the table."""


def arguments(doc: str, rounds: int) -> argparse.Namespace:
    """The options that all parts have."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smoke run: few rounds, no file")
    parser.add_argument("--rounds", type=int, help=f"rounds taken in turns (default {rounds})")
    parser.add_argument("--no-valgrind", action="store_true", help="do not count instructions")
    parser.add_argument("--out", help="folder of the table (default benchmarks/results)")
    options = parser.parse_args()
    if options.rounds is None:
        options.rounds = 2 if options.quick else rounds
    return options


def size_name(size: int) -> str:
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


# --- statistics --------------------------------------------------------------------


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def ratio(values: list[float], base: list[float]) -> tuple[float, float, float]:
    """Quartiles of the round-by-round ratios: noise of a round hits both."""
    return quartiles([v / b for v, b in zip(values, base)])


def spread(q: tuple[float, float, float], digits: int = 2) -> str:
    low, middle, high = (f"{x:.{digits}f}" for x in q)
    return f"{middle} ({low}-{high})"


def verdict(value: float, limit: float) -> str:
    """Rounded as shown, so that the table never contradicts itself."""
    if round(value, 2) <= limit:
        return "met"
    return f"missed by {100 * (value / limit - 1):.0f} %"


# --- compiling -----------------------------------------------------------------------


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    """A command whose words matter only if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done


def compiler() -> list[str]:
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and shutil.which(shlex.split(name)[0]):
            return shlex.split(name)
    raise SystemExit("these benchmarks compile at run time: install a C compiler, or set CC")


def directives() -> str:
    """The Cython directives of the core, so that what it is compared with has the same."""
    with open(os.path.join(SOURCE, "_core.pyx"), encoding="utf-8") as file:
        return "".join(line for line in file if line.startswith("# cython:"))


def cython_module(name: str, text: str, folder: str, head: str | None = None) -> None:
    """Compile ``text`` as the core is compiled (setup.py), into ``folder``."""
    try:
        from Cython.Compiler.Main import compile as cythonize
    except ImportError:
        raise SystemExit("these benchmarks need Cython: pip install --group bench") from None
    path = os.path.join(folder, f"{name}.pyx")
    with open(path, "w", encoding="utf-8") as file:
        file.write((directives() if head is None else head) + text)
    if cythonize(path, language_level=3).num_errors:
        raise SystemExit(f"Cython does not compile {name}")
    settings = sysconfig.get_config_vars()
    command = [*compiler(), *shlex.split(settings.get("CFLAGS") or "-O3 -DNDEBUG")]
    command += ["-O3", "-g0", "-fvisibility=hidden", "-fPIC", "-shared", "-w"]
    command += [f"-I{sysconfig.get_paths()['include']}", os.path.join(folder, f"{name}.c")]
    if sys.platform == "darwin":
        command += ["-undefined", "dynamic_lookup"]
    run([*command, "-o", os.path.join(folder, name + settings["EXT_SUFFIX"])])


def valgrind(options: argparse.Namespace) -> str | None:
    return None if options.no_valgrind else shutil.which("valgrind")


def callgrind_parts(prefix: str) -> dict[str, int]:
    """Instructions of each part that the program dumped by name, from files ``prefix*``.

    The least where a name was dumped several times: symbols are resolved, and
    jemalloc's clocks run out, in some windows and not in others.
    """
    found = {}
    folder = os.path.dirname(prefix)
    for name in os.listdir(folder):
        if not name.startswith(os.path.basename(prefix)):
            continue
        what = total = None
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            for line in file:
                if line.startswith("desc: Trigger: Client Request: "):
                    what = line.split(": ", 3)[3].strip()
                elif line.startswith(("summary:", "totals:")):
                    total = int(line.split()[1])
        if what is not None and total is not None:
            found[what] = min(total, found.get(what, total))
    return found


# --- reports ---------------------------------------------------------------------------


def version_of(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def machine(packages: tuple[str, ...]) -> list[str]:
    """What the figures depend on; no date, no path."""
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
        cpu = f"{names[0]}, {os.cpu_count()} CPUs, {platform.machine()}"
    except (OSError, IndexError):
        pass
    system = platform.platform()
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            fields = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
        system = fields["PRETTY_NAME"].strip('"')
    except (OSError, KeyError):
        pass
    libc = " ".join(platform.libc_ver()).strip()
    tools = run([*compiler(), "--version"]).stdout.splitlines()[0]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    versions = ", ".join(f"{name} {version_of(name)}" for name in packages)
    return [
        f"- machine: {cpu}; {system}; {libc}",
        f"- built with: {tools}",
        f"- Python: {python}; {versions}",
    ]


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def publish(name: str, title: str, parts: list[str], packages: tuple[str, ...], options) -> None:
    """Print the report and, unless it is a smoke run, write it to ``results/NAME.md``."""
    words = [f"--rounds {options.rounds}"] if "--rounds" in " ".join(sys.argv) else []
    words += ["--no-valgrind"] if options.no_valgrind else []
    words += ["--quick"] if options.quick else []
    command = " ".join(["python", f"benchmarks/{name}.py", *words])
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "not known"
    head = [f"- command: `{command}` (part of `make bench`)", *machine(packages)]
    head.append(f"- rounds taken in turns: {options.rounds}; load average at the end: {load}")
    text = "\n\n".join([f"# {title}", "\n".join(head), *parts]) + "\n"
    print(text)
    if options.quick and not options.out:
        return
    folder = options.out or os.path.join(HERE, "results")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"{name}.md"), "w", encoding="utf-8") as file:
        file.write(text)
    say(f"written: {name}.md")
