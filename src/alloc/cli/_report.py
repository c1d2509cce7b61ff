"""`run --report FILE`: what a program's memory came to, written when it ends.

A first version is written before the program begins: one that is killed, or that ends by
``os._exit`` or ``exec``, leaves it, with ``"ended": false``.
"""

import os
import sys
import time

VERSION = 1


class Report:
    """Collects; `finish` is called when the interpreter ends."""

    def __init__(self, path, program, scope):
        self.path = os.path.abspath(path)
        self.process = os.getpid()
        self.program = program
        self.scope = scope
        self.began = time.monotonic()
        self.started = time.time()
        self.exit_code = None
        self.write(False)

    def ends_with(self, error):
        """The program ended, by ``error`` if it is not ``None``."""
        self.exit_code = exit_code(error)

    def finish(self):
        """Write the whole; not in forked children."""
        if os.getpid() == self.process:
            try:
                self.write(True)
            except OSError as error:
                if sys.stderr is not None:
                    print(f"alloc: no report: {error}", file=sys.stderr)

    def write(self, ended):
        """The file is complete or absent, never half."""
        from ._facts import as_json

        found = self.collect(ended)
        beside = f"{self.path}.{self.process}.tmp"
        try:
            with open(beside, "w", encoding="utf-8") as file:
                file.write(as_json(found))
            os.replace(beside, self.path)
        except OSError:
            if os.path.exists(beside):
                os.unlink(beside)
            raise

    def collect(self, ended):
        """As a dict; the ledger first, because collecting allocates."""
        import alloc

        at_exit = {}
        if ended:
            at_exit = {**usage(self.began), "peak_rss": None, "ledger": ledger()}
            kernel = at_exit["ledger"].get("process") or {}
            # The kernel's count of the peak may run behind by some pages.
            sizes = [kernel.get("peak"), kernel.get("rss")]
            at_exit["peak_rss"] = max((size for size in sizes if size), default=None)
            flush()
        return {
            "version": VERSION,
            "program": self.program,
            "pid": self.process,
            "started": self.started,
            "ended": ended,
            "exit_code": self.exit_code,
            "decision": alloc.decision(),
            "scope": self.scope,
            "installed": alloc.installed(),
            **at_exit,
        }


def exit_code(error):
    """What the interpreter's status will be; 130 stands for death by SIGINT."""
    if error is None:
        return 0
    if isinstance(error, KeyboardInterrupt):
        return 130
    if not isinstance(error, SystemExit):
        return 1
    code = error.code
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


def usage(began):
    """Seconds and page faults of this process."""
    found = {"seconds": time.monotonic() - began}
    try:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
    except ImportError:
        return found
    return {
        **found,
        "user_seconds": used.ru_utime,
        "system_seconds": used.ru_stime,
        "minor_faults": used.ru_minflt,
        "major_faults": used.ru_majflt,
    }


def ledger():
    """`alloc.ledger()` as a dict."""
    import alloc

    try:
        return alloc.ledger().as_dict()
    except Exception as error:  # the program has ended: its status is not ours to change
        return {"error": repr(error)}


def flush():
    """Let this thread's cache report the blocks that it served; `installed()` counts them."""
    import alloc

    if alloc.jemalloc.loaded():
        alloc.jemalloc.command("thread.tcache.flush")
