"""What commands print: the same words with rich and without."""

import os
import re
import select
import subprocess
import sys

import pytest
from patience import seconds

CODE = """
from alloc.cli import _show
_show.facts([("ok", "holds"), ("evidence", "a [bracket] stays")], "A title")
rows = [["one", "1.5", "2"], ["two", "cannot run: a reason"], ["x", "20", "300"]]
_show.table(["name", "figure", "more"], rows, marked=2)
_show.say("done")
"""
HIDE = "import sys; sys.modules['rich'] = None\n"


def in_a_terminal(code, **env):
    """What a program shows in a terminal, escape sequences included."""
    leader, follower = os.openpty()
    full = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **env}
    full.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=follower, stdout=follower, stderr=follower, env=full
    )
    os.close(follower)
    shown = b""
    while select.select([leader], [], [], seconds(60))[0]:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux: the other side has gone
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait(timeout=seconds(30)) == 0, shown
    return shown.decode().replace("\r\n", "\n")


def words(text):
    return re.findall(r"[\w.:\[\]]+", re.sub(r"\x1b\[[0-9;]*m", "", text))


@pytest.mark.needs_rich
@pytest.mark.needs_posix
def test_rich_shows_the_same_words_in_a_terminal():
    plain = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    rich = in_a_terminal(CODE)
    assert "\x1b[" in rich and "\x1b[" not in plain.stdout
    assert set(words(plain.stdout)) == set(words(rich))
    assert "bracket] stays" in rich


@pytest.mark.needs_posix
def test_plain_text_where_nobody_looks_or_rich_is_not_there():
    plain = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert in_a_terminal(HIDE + CODE) == plain.stdout
    assert in_a_terminal(CODE, TERM="dumb") == plain.stdout
    lines = plain.stdout.splitlines()
    assert lines[:3] == ["A title", "ok         holds", "evidence   a [bracket] stays"]
    assert lines[3:7] == [
        "name  figure  more",
        "one      1.5     2",
        "two   cannot run: a reason",
        "x         20   300 *",
    ]


@pytest.mark.needs_posix
def test_progress_comes_after_two_seconds_and_goes():
    code = (
        "import time\nfrom alloc.cli import _show\n"
        "with _show.Progress() as p:\n    p('early'); p.began -= 2; p('late one'); p('x')\n"
        "print('end')\n"
    )
    shown = in_a_terminal(code)
    assert "early" not in shown and "late one" in shown and shown.endswith("\r        \rend\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("end\n", "")
