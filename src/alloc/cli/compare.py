"""does it help this command: time and memory under each configuration, and which to take

usage: python -m alloc compare [options] -- COMMAND [arguments]

  -n ROUNDS         rounds (5); each runs every configuration once, in turning order
  --configs LIST    of stock, glibc, hybrid, full, process, process-full, mimalloc
  --slower PERCENT  how much more time a recommendation may cost (5)
  --status N        the exit status that the command is to have (0)
  --timeout SECONDS a run that takes longer has failed
  --load COMMAND    the command is a service: run COMMAND against it, then end it by SIGTERM;
                    time is the load's, memory at the end that of a second after it
  --ready HOST:PORT the service is ready when it accepts connections there
  --settle SECONDS  how long a service is watched after the load (2)
  --plot FILE       memory over time as .svg, .png or .html
  --markdown        print the table for a page of documentation
  --json            print all figures as JSON

A round more is run first under stock, and not counted.  Memory is the resident set of the
command and all that it started, from outside, every 10 ms; at the end: the median of the
last tenth.  A configuration that cannot run here stands in the table with the reason.
The command's output is not shown, its standard input is empty.

Exit status: 0 compared, whatever came of it; 2 wrong usage; 127 no such command; 130, 143
interrupted; else the command's own, if it fails without us.
"""

import os
import shlex
import sys

from . import _configs, _measure, _plot, _show, _verdict

VERSION = 1


def parse(arguments):
    """Options, and the command."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m alloc compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=argparse.SUPPRESS,
        add_help=False,
    )
    parser.add_argument("-n", type=int, default=5)
    parser.add_argument("--configs", default=",".join(_configs.CONFIGS))
    parser.add_argument("--slower", type=float, default=100 * _verdict.HARM)
    parser.add_argument("--status", type=int, default=0)
    parser.add_argument("--timeout", type=float)
    parser.add_argument("--load")
    parser.add_argument("--ready")
    parser.add_argument("--settle", type=float)
    parser.add_argument("--plot")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--json", action="store_true")
    at = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:at])
    command = arguments[at + 1 :]
    if not command:
        parser.error("nothing to run: put the command after --")
    if options.n < 1:
        parser.error("-n is at least 1")
    names = [name for name in options.configs.split(",") if name]
    unknown = [name for name in names if name not in _configs.CONFIGS]
    if unknown or not names:
        known = ", ".join(_configs.CONFIGS)
        parser.error(f"--configs {options.configs}: use {known}")
    options.names = [
        "stock",
        *(name for name in _configs.CONFIGS if name in names and name != "stock"),
    ]
    options.load = load(options, parser)
    if options.plot:
        try:
            _plot.check(options.plot)
        except _plot.Unplottable as error:
            parser.error(f"--plot {error}")
    return options, command


def load(options, parser):
    """The load of a service, or ``None``."""
    if options.load is None:
        if options.ready or options.settle is not None:
            parser.error("--ready and --settle are for services: --load COMMAND")
        return None
    place = None
    if options.ready:
        host, _, port = options.ready.rpartition(":")
        if not port.isdigit():
            parser.error(f"--ready {options.ready}: write HOST:PORT")
        place = (host or "127.0.0.1", int(port))
    words = shlex.split(options.load)
    if not words:
        parser.error("--load: no command")
    settle = 2.0 if options.settle is None else options.settle
    return _measure.Load(words, place, settle)


def measure(configurations, options, base):
    """Run them, interleaved; fills each one's runs.  Stock that fails ends it: its run."""
    usable = [each for each in configurations if each.cannot is None]
    total = len(usable) * options.n + 1
    done = 0
    with _show.Progress() as progress:
        for turn in range(-1, options.n):
            # Each is once the first: who follows whom makes no difference then.
            shift = max(0, turn) % len(usable)
            for each in usable[:1] if turn < 0 else usable[shift:] + usable[:shift]:
                if each.failed:
                    continue
                done += 1
                progress(f"compare: run {done} of {total}, {each.name}")
                run = _measure.run(
                    each.command, each.environ(base), options.timeout, (options.status,),
                    options.load,
                )  # fmt: skip
                if run.failed:
                    each.failed = run.failed
                    if each.name == "stock":
                        return run
                elif turn >= 0:
                    each.runs.append(run)
    return None


def rows(configurations):
    """The table: a head, and rows; a configuration without figures is name and reason."""
    head = ["configuration", "time s", "peak MiB", "end MiB", "faults", "time", "peak", "end"]
    stock = configurations[0].runs
    found = []
    for each in configurations:
        if each.cannot is not None:
            found.append([each.name, f"cannot run: {each.cannot}"])
        elif each.failed:
            found.append([each.name, f"failed: {each.failed}"])
        else:
            known = _verdict.summary(each.runs)
            effects = [_verdict.Effect(name, stock, each.runs) for name in _verdict.METRICS]
            found.append([
                each.name,
                _figure(known["seconds"], 1, 3),
                _figure(known["peak"], 2**20, 1),
                _figure(known["end"], 2**20, 1),
                _figure(known["faults"], 1, 0),
                *(f"{effect.ratio:.2f}x" for effect in effects),
            ])  # fmt: skip
    return head, found


def _figure(known, unit, digits):
    return f"{known['median'] / unit:.{digits}f} ±{known['spread'] / unit:.{digits}f}"


def collect(configurations, options, command):
    """All that was found, as a dict."""
    good = {e.name: e.runs for e in configurations if e.runs and not e.failed}
    stock = good.pop("stock")
    head, body = rows(configurations)
    return {
        "version": VERSION,
        "command": command,
        "command_line": " ".join(map(shlex.quote, command)),
        "load": options.load.command if options.load else None,
        "rounds": options.n,
        "machine": machine(),
        "configurations": [
            {
                "name": each.name,
                "meaning": _configs.CONFIGS[each.name],
                "command": each.command,
                "cannot": each.cannot,
                "failed": each.failed,
                "runs": [run.as_dict() for run in each.runs],
                "summary": _verdict.summary(each.runs) if each.runs else None,
            }
            for each in configurations
        ],
        "recommendation": _verdict.judge(stock, good, options.slower / 100),
        "table": {"head": head, "rows": body},
    }


def machine():
    """One line on where the figures are from."""
    import platform

    count = os.cpu_count()
    libc = " ".join(platform.libc_ver()).strip() or "another libc"
    return (
        f"Python {platform.python_version()}, {libc}, {platform.machine()}, {count} processors, "
        f"Linux {platform.release().split('-')[0]}"
    )


def show(found, as_markdown):
    """The same for people."""
    head, body = found["table"]["head"], found["table"]["rows"]
    verdict = found["recommendation"]
    choice = verdict["choice"]
    if as_markdown:
        body = [[f"**{r[0]}**" if r[0] == choice else r[0], *r[1:]] for r in body]
        print(_show.markdown(head, body))
        print()
    else:
        marked = next((i for i, row in enumerate(body) if row[0] == choice), None)
        _show.table(head, body, marked=marked)
    lines = [f"recommended: {choice or 'none'} ({verdict['sure']})"]
    if choice:
        lines.append(f"  that is: {_configs.CONFIGS[choice]}")
    lines += [f"  {text}" for text in verdict["because"]]
    lines += [f"  {name}: {text}" for name, text in verdict["others"].items()]
    _show.say("\n".join(lines))
    if not as_markdown:
        _show.say(
            f"{found['rounds']} round(s); the last columns are against stock; {found['machine']}"
        )


def main(arguments):
    """Compare."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    options, words = parse(arguments)
    if not os.path.isdir("/proc/self"):
        print("python -m alloc compare: it needs Linux's /proc", file=sys.stderr)
        return 1
    base = dict(os.environ)
    try:
        command = _configs.Command(words)
    except _configs.Unusable as error:
        print(f"python -m alloc compare: {error}", file=sys.stderr)
        return 127
    with terminating():
        configurations = [_configs.configuration(name, command, base) for name in options.names]
        failed = measure(configurations, options, base)
    if failed is not None:
        print(
            f"python -m alloc compare: the command fails as it is: {failed.failed}", file=sys.stderr
        )
        status = failed.status
        return 1 if not status else (status if status > 0 else 128 - status)
    found = collect(configurations, options, words)
    if options.plot:
        curves = {e.name: [run.curve for run in e.runs] for e in configurations if e.runs}
        _plot.write(options.plot, found, curves)
    if options.json:
        from ._facts import write_json

        write_json(found)
    else:
        show(found, options.markdown)
    return 0


class terminating:
    """SIGTERM ends the running command as well, and then us."""

    def __enter__(self):
        import signal

        def leave(number, _):
            sys.exit(128 + number)

        self.before = signal.signal(signal.SIGTERM, leave)

    def __exit__(self, *_):
        import signal

        signal.signal(signal.SIGTERM, self.before)
