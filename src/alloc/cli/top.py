"""the ledger of a running process, again and again

usage: python -m alloc top PID [--every SECONDS] [--count N] [--json]

The process serves it: it was started by `run --stats`, or called alloc.serve_stats().
Only processes of the same user answer.  --every is 1 second; --json prints one object a
line; without a terminal, or with --json, one is printed unless --count says more.

Exit status: 0 shown, or the process has ended; 1 it cannot be asked; 2 wrong usage.
"""

import os
import sys
import time

from . import _show


def parse(arguments):
    """The options."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m alloc top")
    parser.add_argument("pid", type=int)
    parser.add_argument("--every", type=float, default=1.0)
    parser.add_argument("--count", type=int)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.pid < 1 or options.every <= 0 or (options.count is not None and options.count < 1):
        parser.error("PID, --every and --count are greater than 0")
    return options


def why_not(pid, error):
    """Why a process cannot be asked."""
    if not os.path.isdir("/proc/self"):
        return str(error)
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return f"there is no process {pid}"
    if owner != os.geteuid():
        return f"process {pid} belongs to user {owner}, not to {os.geteuid()}"
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return (
            f"process {pid} does not serve its ledger: start it with "
            "python -m alloc run --stats, or let it call alloc.serve_stats()"
        )
    return f"process {pid}: {error}"


def pairs(found, before):
    """Lines for people: each part, and its growth since the last time."""
    ledger = found["ledger"]
    now = {"rss": ledger["process"]["rss"], **ledger["parts"]}
    lines = []
    for name, size in now.items():
        text = f"{_show.mib(size):>10} MiB"
        grown = 0 if before is None or size is None else size - (before.get(name) or 0)
        lines.append((name, text + (f"  {grown / 2**20:+.1f}" if abs(grown) >= 50_000 else "")))
    lines.append(("peak", f"{_show.mib(ledger['process']['peak']):>10} MiB"))
    return now, lines


def main(arguments):
    """Ask and show."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    from alloc._serve import ask

    options = parse(arguments)
    live = sys.stdout.isatty() and not options.json
    count = options.count or (None if live else 1)
    shown, before = 0, None
    while count is None or shown < count:
        if shown:
            time.sleep(options.every)
        try:
            found = ask(options.pid)
        except (OSError, ValueError) as error:
            if shown and not os.path.exists(f"/proc/{options.pid}"):
                return 0
            print(f"python -m alloc top: {why_not(options.pid, error)}", file=sys.stderr)
            return 1
        if options.json:
            import json

            print(json.dumps(found), flush=True)
        else:
            if live:
                sys.stdout.write("\x1b[H\x1b[2J")
            before, lines = pairs(found, before)
            _show.facts(lines, f"process {options.pid}")
            sys.stdout.flush()
        shown += 1
    return 0
