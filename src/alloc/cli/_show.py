"""What commands print: plain text, or the same through rich where it is installed and
somebody looks: the output is a terminal, or ``FORCE_COLOR`` says so.

Nothing but what is printed depends on rich: the words and figures are the same.
"""

import os
import sys
import time


def console():
    """A console of rich, or ``None`` where plain text is to be printed."""
    stream = sys.stdout
    looked_at = os.environ.get("FORCE_COLOR") or (stream is not None and stream.isatty())
    if not looked_at or os.environ.get("TERM") == "dumb":
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(highlight=False, soft_wrap=False)


def facts(pairs, title=None):
    """Names and values, one a line; a name may come again."""
    pairs = [(str(name), str(value)) for name, value in pairs]
    rich = console()
    if rich is None:
        width = max([10, *(len(name) for name, _ in pairs)])
        print("\n".join([*([title] if title else []), *(f"{n:{width}} {v}" for n, v in pairs)]))
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True, min_width=10)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        style = {"ok": "green", "BAD": "bold red"}.get(name)
        bad = value.startswith("warning:") or name in ("BAD", "refused", "rejected")
        grid.add_row(Text(name, style=style or ""), Text(value, style="red" if bad else ""))
    if title:
        rich.print(Text(title, style="bold"))
    rich.print(grid)


def table(head, rows, title=None, left=1, marked=None):
    """A table.  The first ``left`` columns are text, the others figures, set right.

    A row shorter than the head ends with a text that runs on over the other columns.
    ``marked`` is the index of a row to be seen first.
    """
    rows = [[str(cell) for cell in row] for row in rows]
    rich = console()
    if rich is None:
        print(plain_table(head, rows, title, left, marked))
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for index, name in enumerate(head):
        grid.add_column(name, justify="left" if index < left else "right", no_wrap=index > 0)
    notes = []
    for index, row in enumerate(rows):
        style = "bold green" if index == marked else ""
        if len(row) < len(head):
            notes.append((row[0], row[-1]))
            row = [row[0], *["-"] * (len(head) - 1)]
            style = "dim"
        grid.add_row(*[Text(cell) for cell in row], style=style)
    rich.print(grid)
    for name, note in notes:
        rich.print(Text.assemble((name, "cyan"), "  ", note))


def plain_table(head, rows, title=None, left=1, marked=None):
    """As `table`, as text."""
    full = [list(head), *(row for row in rows if len(row) == len(head))]
    widths = [max(len(row[i]) for row in full) for i in range(len(head))]
    widths[0] = max([widths[0], *(len(row[0]) for row in rows)])
    lines = [title] if title else []
    for index, row in enumerate([list(head), *rows]):
        cells = [
            cell.ljust(widths[i]) if i < left or len(row) < len(head) else cell.rjust(widths[i])
            for i, cell in enumerate(row)
        ]
        star = " *" if marked is not None and index == marked + 1 else ""
        lines.append("  ".join(cells).rstrip() + star)
    return "\n".join(lines)


def markdown(head, rows, left=1):
    """As `table`, for a page of documentation."""
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("|" + "|".join("---" if i < left else "---:" for i in range(len(head))) + "|")
    for row in rows:
        cells = [*row, *[""] * (len(head) - len(row))]
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def say(text="", style=None):
    """A line or more."""
    rich = console()
    if rich is None:
        print(text)
        return
    from rich.text import Text

    rich.print(Text(text, style=style or ""))


class Progress:
    """One line on stderr, where that is a terminal, from two seconds on; gone at the end."""

    def __init__(self, stream=None):
        self.stream = sys.stderr if stream is None else stream
        self.began = time.monotonic()
        self.width = 0
        self.seen = self.stream is not None and self.stream.isatty()

    def __call__(self, text):
        if self.seen and (self.width or time.monotonic() - self.began >= 2):
            text = text[:200]
            self.stream.write("\r" + text.ljust(self.width))
            self.stream.flush()
            self.width = max(self.width, len(text))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.width:
            self.stream.write("\r" + " " * self.width + "\r")
            self.stream.flush()


def mib(size):
    """Bytes as MiB; ``None`` is not known."""
    return "?" if size is None else f"{size / 2**20:.1f}"
