"""The command line: ``python -m alloc COMMAND``, or ``pyalloc COMMAND``.

A command is a module of this package with a docstring of one line, which is its
help, and ``main(arguments) -> status``.  Nothing is imported for one command that
belongs to another: `run` must not disturb the program that it starts.

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted; `run`: that of
the program, and 125 if it was not handed over to.  docs/cli.md has them by command.
"""

import sys


def __getattr__(name):
    """``alloc.cli.info()`` for guests, which have no command line."""
    if name == "info":
        from importlib import import_module

        return import_module(f"{__name__}.info")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def commands():
    """Names of the commands."""
    import pkgutil

    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if not name.startswith("_"))


def usage():
    """The help text."""
    from importlib import import_module

    lines = ["usage: python -m alloc COMMAND ...", ""]
    for name in commands():
        doc = import_module(f"{__name__}.{name}").__doc__ or ""
        lines.append(f"  {name:8} {doc.splitlines()[0]}")
    return "\n".join([*lines, "", "python -m alloc COMMAND --help tells more."])


def main(arguments=None):
    """Run a command and end the process with its status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        sys.exit(0 if arguments else 2)
    name = arguments[0]
    if name in ("-V", "--version"):
        from alloc import __version__

        print(f"pyalloc {__version__}")
        sys.exit(0)
    if not name.isidentifier() or name.startswith("_") or name not in commands():
        known = ", ".join(commands())
        print(f"python -m alloc: no command {name!r}: use one of {known}", file=sys.stderr)
        sys.exit(2)
    module = __import__(f"{__name__}.{name}", fromlist=["main"])
    # `run` gets no frame and no handler of ours around the program.
    status = module.main(arguments[1:]) if name == "run" else _guarded(module, arguments[1:])
    if status is not None:
        sys.exit(status)


def _guarded(module, arguments):
    """A command that is interrupted, or whose reader has gone, ends without a traceback."""
    try:
        status = module.main(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        import os

        # What is still buffered would raise again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
