"""Configurations that `compare` runs a command under, or why one cannot run here."""

import os
import re
import shutil
import subprocess
import sys

from .run import interpreter_of

CONFIGS = {
    "stock": "the command as it is",
    "glibc": "MALLOC_ARENA_MAX=2 MALLOC_TRIM_THRESHOLD_=65536",
    "hybrid": "python -m alloc run --install hybrid",
    "full": "python -m alloc run --install full",
    "process": "python -m alloc run --scope process",
    "process-full": "python -m alloc run --scope process --install full",
    "mimalloc": "PYTHONMALLOC=mimalloc",
}
"""Names and what they mean; the simplest first, which wins where two are as good."""

RUNS = {
    "hybrid": ["--install", "hybrid"],
    "full": ["--install", "full"],
    "process": ["--scope", "process", "--install", "hybrid"],
    "process-full": ["--scope", "process", "--install", "full"],
}
"""Options of `run`, where that is what a configuration is."""

VALUED = ("-W", "-X", "--check-hash-based-pycs")
"""Options of the interpreter that take a word of their own."""


class Unusable(Exception):
    """Why the command itself cannot run."""


class Command:
    """A command taken apart: interpreter, its options, and the program; or not Python's."""

    def __init__(self, words):
        self.words = list(words)
        found = shutil.which(words[0])
        if found is None:
            known = (
                "is no command that can be executed" if os.path.exists(words[0]) else "not found"
            )
            raise Unusable(f"{words[0]}: {known}")
        self.interpreter, self.flags, self.program = None, [], []
        if is_python(found):
            self.interpreter = words[0]
            self.flags, self.program = split(words[1:])
            return
        try:
            with open(found, "rb") as file:
                head = file.read(512)
        except OSError:
            return
        named = interpreter_of(head)
        if named is not None and is_python(named):
            self.interpreter = named
            self.flags = shebang_flags(head)
            self.program = [found, *words[1:]]


def is_python(path):
    """Whether it is CPython or PyPy by its name, or this interpreter."""
    if re.fullmatch(r"(python|pypy)[\d.]*t?", os.path.basename(path)):
        return True
    return bool(sys.executable) and os.path.realpath(path) == os.path.realpath(sys.executable)


def shebang_flags(head):
    """The interpreter's options of a script's first line."""
    words = os.fsdecode(head.partition(b"\n")[0]).split()
    return [word for word in words[1:] if word.startswith("-") and word != "-S"]


def split(words):
    """The interpreter's options, and the program with its arguments, as `run` takes it."""
    flags, rest = [], list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word in VALUED:
            flags += [word, *rest[:1]]
            del rest[:1]
        elif word.startswith("--") or word[:2] in ("-W", "-X"):
            flags.append(word)
        else:
            found = re.match(r"-(\w*?)([mc])(.*)", word, re.DOTALL)
            if found is None:
                flags.append(word)
                continue
            if found[1]:
                flags.append(f"-{found[1]}")
            return flags, [f"-{found[2]}", *([found[3]] if found[3] else []), *rest]
    return flags, rest


class Configuration:
    """How to run a command; `cannot` says why not."""

    def __init__(self, name, command, environment, cannot=None):
        self.name = name
        self.command = command
        self.environment = environment
        self.cannot = cannot
        self.runs = []
        self.failed = None

    def environ(self, base):
        """The variables to run it with; ``None`` removes one."""
        full = {**base, **self.environment}
        return {name: value for name, value in full.items() if value is not None}


def configuration(name, command, base):
    """The configuration ``name`` of ``command``; tries it on nothing first."""
    off = {"ALLOC_INSTALL": "off"}  # an environment may be enabled, see `enable`
    if name == "stock":
        return Configuration(name, command.words, off)
    if name == "glibc":
        env = {**off, "MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "65536"}
        return Configuration(name, command.words, env, glibc_trouble())
    if name == "mimalloc":
        found = Configuration(name, command.words, {**off, "PYTHONMALLOC": "mimalloc"})
    else:
        words = [command.interpreter, *command.flags, "-m", "alloc", "run", *RUNS[name]]
        env = {"ALLOC_INSTALL": None, "ALLOC_PRESET": base.get("ALLOC_PRESET")}
        found = Configuration(name, [*words, *command.program], env)
    if command.interpreter is None:
        found.cannot = f"{command.words[0]} is no program of Python"
    elif name == "mimalloc":
        found.cannot = mimalloc_trouble(command, found.environ(base))
    elif not command.program:
        found.cannot = "there is no program to run"
    else:
        found.cannot = run_trouble(command, RUNS[name], found.environ(base))
    return found


def glibc_trouble():
    """Why glibc cannot be tuned."""
    from alloc._probe import process
    from alloc._select import implementation

    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):
        version = None
    if version is None:
        return "the C library is not glibc"
    if implementation == "cython" and (name := process.describe_malloc()) != "glibc":
        return f"glibc does not serve malloc here, {name} does"
    return None


def attempt(words, environ):
    """Run a short program; its status and the lines of stderr."""
    try:
        done = subprocess.run(
            words, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=60, check=False, errors="replace",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, "", [str(error)]
    return done.returncode, done.stdout, done.stderr.strip().splitlines() or [""]


def mimalloc_trouble(command, environ):
    """Why this Python has no mimalloc, by asking it."""
    code = "import sys; print(sys.flags.ignore_environment)"
    status, out, lines = attempt([command.interpreter, *command.flags, "-c", code], environ)
    if status != 0:
        text = next((line for line in lines if "PYTHONMALLOC" in line), lines[0])
        return f"this Python has it not: {text}"
    if out.strip() != "0":
        return "the interpreter ignores PYTHONMALLOC under -E and -I"
    return None


def run_trouble(command, options, environ):
    """Why `run` cannot do it, by asking it."""
    import json

    words = [command.interpreter, *command.flags, "-m", "alloc", "run", *options, "--json"]
    status, _, lines = attempt([*words, "-c", "pass"], environ)
    if status != 0:
        text = lines[-1]
        if "No module named" in text:
            return f"pyalloc is not installed for {command.interpreter}"
        return re.sub(r"^python -m alloc run: ", "", text)
    try:
        text = "\n".join(lines)
        found = json.loads(text[text.index("{") :])
    except ValueError:
        return lines[-1]
    if found["scope"]["held"] or found["installed"]["routed"]:
        return None
    refused = [found["scope"].get("refused"), *found["installed"]["refused"]]
    return next((text for text in refused if text), "nothing was installed")
