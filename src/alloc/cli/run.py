"""run a program with its memory on jemalloc: a script, -m module, -c code, or command

usage: python -m alloc run [options] (SCRIPT | -m MODULE | -c CODE | COMMAND) [arguments]

  --install MODE    hybrid, arenas, full, or off; without it ALLOC_INSTALL, else
                    full from CPython 3.12 on and hybrid before
  --preset PRESET   balanced, throughput or low_memory; without it ALLOC_PRESET, else balanced
  --scope SCOPE     python (the default): the interpreter's memory moves, in process
                    process: starts again with jemalloc as the process's malloc, so that
                    C libraries' memory moves too; --install full or hybrid (the
                    default: pymalloc stays)
  --children        process scope: programs that it starts get jemalloc as well
  --allocator NAME  system, jemalloc or arena for alloc's own functions, as ALLOC_DEFAULT
  --no-numpy        leave NumPy's arrays where they are (NumPy up to 2.4)
  --report FILE     write decision, what was installed, the ledger, peak, time and exit
                    status to FILE, as JSON, when the program ends
  --stats           let `top` read the ledger while it runs: one thread more
  -v, --verbose     say on stderr what was installed, or why not; --json: as JSON

SCRIPT is a file, a directory or a zip file, as for python itself, or - for standard
input.  COMMAND is the name of a script of this Python, e.g. gunicorn.  Options of the
interpreter go before: python -X dev -m alloc run app.py.  Where nothing can be
installed the program runs all the same; process scope that cannot be had is refused.

Exit status: the program's; 2 wrong usage, 125 process scope refused.
"""

import os
import sys

MODES = ("hybrid", "arenas", "full", "off")
CHOICES = {
    "install": MODES,
    "preset": ("balanced", "throughput", "low_memory"),
    "scope": ("python", "process"),
    "allocator": ("system", "jemalloc", "arena"),
}
FLAGS = {"--no-numpy": "no_numpy", "--verbose": "verbose", "-v": "verbose"}
FLAGS.update({"--json": "json", "--children": "children", "--stats": "stats"})
REFUSED = 125
"""As ``env``, ``nohup`` and ``timeout`` have it: we failed, not the program."""


class Usage(Exception):
    """What is wrong with the command line."""


class Refused(Exception):
    """Why the process's malloc cannot be jemalloc here."""


def parse(arguments):
    """Options as a dict, kind of program, and the program with its arguments."""
    options = dict.fromkeys((*CHOICES, "report"))
    options.update(dict.fromkeys(FLAGS.values(), False))
    rest = list(arguments)
    while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c", "-"):
        word, equals, value = rest.pop(0).partition("=")
        if word == "--":
            break
        if word in FLAGS and not equals:
            options[FLAGS[word]] = True
        elif word[:2] == "--" and (word[2:] in CHOICES or word == "--report"):
            if not equals:
                if not rest:
                    raise Usage(f"{word} needs a value")
                value = rest.pop(0)
            options[word[2:]] = value
        else:
            raise Usage(f"unknown option {word}")
    for name, known in CHOICES.items():
        if options[name] is not None and options[name] not in known:
            raise Usage(f"--{name} {options[name]}: use one of {', '.join(known)}")
    process = options["scope"] == "process"
    if process and options["install"] not in (None, "hybrid", "full"):
        raise Usage(f"--scope process with --install {options['install']}: use hybrid or full")
    if options["children"] and not process:
        raise Usage("--children is for --scope process")
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


report = None  # of this run, if one is wanted


def prepare(options, program):
    """Install, before anything of the program is there."""
    global report
    scope = {"held": False}
    if options["scope"] == "process":
        from ._preload import enter

        scope = enter(options)
    if options["allocator"] is not None:
        from alloc._default import prefer

        prefer(options["allocator"])
    if options["report"] is not None:
        import atexit

        from ._report import Report

        try:
            report = Report(options["report"], program, scope)
        except OSError as error:
            raise Usage(f"--report {options['report']}: {error.strerror}") from None
        # The first to be registered is the last to run.
        atexit.register(report.finish)
    from alloc import install, installed

    if options["install"] != "off" and options["scope"] != "process":
        install(options["install"], not options["no_numpy"], options["preset"])
    if options["stats"]:
        from alloc import serve_stats

        try:
            serve_stats()
        except OSError as error:
            raise Usage(f"--stats: {error}") from None
    if (options["verbose"] or options["json"]) and sys.stderr is not None:
        if options["json"]:
            from ._facts import as_json

            text = as_json({"installed": installed(), "scope": scope})
        elif scope["held"]:
            text = "alloc: jemalloc {version} serves malloc ({proof})\n".format(**scope)
        else:
            text = f"alloc: {scope.get('refused') or installed()}".replace("\n", "\nalloc: ") + "\n"
        sys.stderr.write(text)


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
        result = function(*arguments)
        if report is not None:
            report.ends_with(None)
        return result
    except BaseException as error:  # SystemExit too: shown where a prompt follows
        if report is not None:
            report.ends_with(error)
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


def program_at(path):
    """What the interpreter adds for a program that is a file."""
    names = {"__file__": path}
    if sys.version_info < (3, 15):
        names["__cached__"] = None
    return names


def run_stdin():
    """The program that stands on standard input, or a prompt."""
    names = fresh_main()
    if sys.stdin is None:
        return
    names.update(program_at("<stdin>"))
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
    names.update(program_at(path), __loader__=loader)
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
        prepare(options, program)
    except Usage as error:
        print(f"python -m alloc run: {error}", file=sys.stderr)
        return 2
    except Refused as error:
        print(f"python -m alloc run: process scope is refused: {error}", file=sys.stderr)
        return REFUSED
    sys.argv[:] = ["-c", *program[1:]] if kind == "code" else program
    {"code": run_code, "module": run_module, "path": run_path}[kind](program[0])
    return None
