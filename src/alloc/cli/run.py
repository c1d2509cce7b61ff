"""run a program with its memory on jemalloc: a script, -m module, -c code, or command

usage: python -m alloc run [options] (SCRIPT | -m MODULE | -c CODE | COMMAND) [arguments]

  --install MODE   hybrid, arenas, full, or off; without it ALLOC_INSTALL, else hybrid
  --preset PRESET  balanced, throughput or low_memory; without it ALLOC_PRESET, else balanced
  --no-numpy       leave NumPy's arrays where they are
  --report FILE    write what was installed, as JSON, when the program ends
  -v, --verbose    say on stderr what was installed, or why not

SCRIPT is a file, a directory or a zip file, as for python itself, or - for standard
input.  COMMAND is the name of a script of this Python, e.g. gunicorn.  Options of the
interpreter go before: python -X dev -m alloc run app.py.  Where nothing can be
installed the program runs all the same.
"""

import os
import sys

MODES = ("hybrid", "arenas", "full", "off")
PRESETS = ("balanced", "throughput", "low_memory")


class Usage(Exception):
    """What is wrong with the command line."""


def parse(arguments):
    """Options as a dict, kind of program, and the program with its arguments."""
    options = {"install": None, "preset": None, "numpy": True, "report": None, "verbose": False}
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c", "-"):
        word, equals, value = rest.pop(0).partition("=")
        if word == "--":
            break
        if word == "--no-numpy":
            options["numpy"] = False
        elif word in ("-v", "--verbose"):
            options["verbose"] = True
        elif word in ("--install", "--preset", "--report"):
            if not equals:
                if not rest:
                    raise Usage(f"{word} needs a value")
                value = rest.pop(0)
            options[word[2:]] = value
        else:
            raise Usage(f"unknown option {word}")
    for name, known in (("install", MODES), ("preset", PRESETS)):
        if options[name] is not None and options[name] not in known:
            raise Usage(f"--{name} {options[name]}: use one of {', '.join(known)}")
    if not rest:
        raise Usage("nothing to run")
    kind = {"-m": "module", "-c": "code"}.get(rest[0], "path")
    if kind != "path" and len(rest) < 2:
        raise Usage(f"{rest[0]} needs a value")
    return options, kind, rest if kind == "path" else rest[1:]


def locate(program):
    """The path of a script: as it stands, or a console script of this Python, which is
    beside the interpreter or on PATH."""
    if program == "-" or os.path.exists(program):
        return program
    executable = sys.executable or "python"
    if os.path.dirname(program) != "":
        raise Usage(f"can't open file {program!r} ({executable}): no such file")
    import shutil
    import sysconfig

    scripts = sysconfig.get_path("scripts")
    found = shutil.which(program, path=scripts) or shutil.which(program)
    if found is None:
        raise Usage(f"can't open file {program!r} ({executable}): no such file or command")
    with open(found, "rb") as file:
        interpreter = interpreter_of(file.read(512))
    if interpreter is None or not is_ours(interpreter):
        raise Usage(f"{found} is not a script of this Python ({executable})")
    return found


def interpreter_of(head):
    """The program that a script's first bytes name, or ``None``."""
    first, _, rest = head.partition(b"\n")
    if first.startswith(b"#!/bin/sh") and rest.startswith(b"'''exec'"):
        # What pip and distlib write where the path is long or has blanks.
        first = b"#!" + rest[len(b"'''exec'") :].strip()
    if not first.startswith(b"#!"):
        return None
    words = os.fsdecode(first[2:].strip())
    if words.startswith('"'):
        return words[1:].partition('"')[0]
    name, _, rest = words.partition(" ")
    if os.path.basename(name) == "env" and rest:
        import shutil

        return shutil.which(rest.split()[0])
    return name or None


def is_ours(interpreter):
    """Whether it is this Python, of this environment: an environment's interpreter is a
    link to one that others link to as well, so the directory counts too."""

    def identity(path):
        return os.path.realpath(path), os.path.realpath(os.path.dirname(path))

    return identity(interpreter) == identity(sys.executable)


def prepare(options):
    """Install, before anything of the program is there."""
    from alloc import install, installed

    mode = options["install"]
    if mode == "off":
        return
    result = install(mode, options["numpy"], options["preset"])
    if options["verbose"] and sys.stderr is not None:
        print(f"alloc: {result}".replace("\n", "\nalloc: "), file=sys.stderr)
    if options["report"] is not None:
        import atexit

        path = os.path.abspath(options["report"])
        process = os.getpid()

        def write():
            if os.getpid() == process:
                from alloc.cli._facts import as_json

                with open(path, "w", encoding="utf-8") as file:
                    file.write(as_json({"installed": installed()}))

        atexit.register(write)


def fresh_main():
    """The namespace of ``__main__``, as the interpreter hands it to a program."""
    from importlib.machinery import BuiltinImporter

    names = sys.modules["__main__"].__dict__
    builtins = names["__builtins__"]
    names.clear()
    names.update(
        __name__="__main__", __doc__=None, __package__=None, __loader__=BuiltinImporter,
        __spec__=None,
    )  # fmt: skip
    if sys.version_info < (3, 14):
        names["__annotations__"] = {}
    names["__builtins__"] = builtins
    return names


def execute(function, *arguments):
    """Call what runs the program; an error's traceback begins with the program, or with
    the part of `runpy` that plain python shows as well."""
    try:
        return function(*arguments)
    except BaseException as error:  # SystemExit too: shown where a prompt follows
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        hook = sys.excepthook

        def without_our_frames(kind, value, _):
            sys.excepthook = hook
            if value is not None:
                value.__traceback__ = trace
            sys.last_traceback = trace
            hook(kind, value, trace)

        sys.excepthook = without_our_frames
        raise


def run_code(text):
    """As ``python -c``."""
    if not sys.flags.isolated and not getattr(sys.flags, "safe_path", False):
        sys.path[0] = ""
    names = fresh_main()
    execute(lambda: exec(compile(text + "\n", "<string>", "exec", dont_inherit=True), names))


def run_module(name):
    """As ``python -m``; by the function that the interpreter itself calls."""
    import runpy

    fresh_main()
    execute(runpy._run_module_as_main, name)  # type: ignore[attr-defined]


def is_package(path):
    """Whether python would look for a ``__main__`` in it: a directory or a zip file."""
    import pkgutil

    importer = pkgutil.get_importer(path)
    return importer is not None and type(importer).__name__ in ("FileFinder", "zipimporter")


def absolute(path):
    """As the interpreter does it for ``__file__``: ``.`` and ``..`` stay."""
    return os.path.join(os.getcwd(), path)


def run_path(path):
    """As ``python path``."""
    safe = sys.flags.isolated or getattr(sys.flags, "safe_path", False)
    if path == "-":
        if not safe:
            sys.path[0] = ""
        execute(run_stdin)
    elif is_package(path):
        import runpy

        if safe:
            sys.path.insert(0, absolute(path))
        else:
            sys.path[0] = absolute(path)
        fresh_main()
        execute(runpy._run_module_as_main, "__main__", False)  # type: ignore[attr-defined]
    else:
        if not safe:
            sys.path[0] = os.path.dirname(os.path.realpath(path))
        execute(run_file, absolute(path))


def run_stdin():
    """The program that stands on standard input, or a prompt."""
    names = fresh_main()
    if sys.stdin is None:
        return
    names.update(__file__="<stdin>", __cached__=None)
    if sys.stdin.isatty():
        import code
        from contextlib import suppress

        with suppress(ImportError):
            import readline  # noqa: F401 - the prompt's editing
        code.interact(local=names, exitmsg="")
    else:
        exec(compile(sys.stdin.read(), "<stdin>", "exec", dont_inherit=True), names)


def run_file(path):
    """A source or a compiled file in a fresh ``__main__``."""
    from importlib.machinery import SourceFileLoader, SourcelessFileLoader

    names = fresh_main()
    compiled = path.endswith(".pyc")
    loader = (SourcelessFileLoader if compiled else SourceFileLoader)("__main__", path)
    try:
        if compiled:
            code = loader.get_code("__main__")
        else:
            with open(path, "rb") as file:
                code = compile(file.read(), path, "exec", dont_inherit=True)
    except OSError as error:
        print(
            f"{sys.executable}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}",
            file=sys.stderr,
        )
        sys.exit(2)
    names["__loader__"] = loader
    names["__file__"] = path
    names["__cached__"] = None
    exec(code, names)


def main(arguments):
    """Install, then become the program."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    try:
        options, kind, program = parse(arguments)
        if kind == "path":
            program[0] = locate(program[0])
    except Usage as error:
        print(f"python -m alloc run: {error}", file=sys.stderr)
        return 2
    prepare(options)
    sys.argv[:] = ["-c", *program[1:]] if kind == "code" else program
    {"code": run_code, "module": run_module, "path": run_path}[kind](program[0])
    return None
