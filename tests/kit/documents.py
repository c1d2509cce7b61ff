"""Code in the documentation, for tests that run it.

A fenced block whose first line is a comment with a file's name is that file; ``text``
blocks are what a program prints.
"""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"(?:/\*|#) (\w+\.\w+)(?: \*/)?\n")


def blocks(name, language):
    """Contents of the fenced blocks of a language, in order."""
    found = [text for kind, text in FENCE.findall((DOCS / name).read_text()) if kind == language]
    assert found, f"no {language} in docs/{name}"
    return found


def files(name, *languages):
    """{file's name: contents} of the blocks that are files."""
    texts = [text for language in languages for text in blocks(name, language)]
    named = {m[1]: text for text in texts for m in [NAMED.match(text)] if m}
    assert named, f"no file in docs/{name}"
    return named
