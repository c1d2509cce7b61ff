"""Commands on systems that lack what they need: one line that says so."""

import pytest

pytestmark = pytest.mark.needs_processes

TOP = """
import os, socket, sys
vars(socket).pop("SO_PEERCRED", None)
from alloc.cli import main
sys.exit(main(["top", str(os.getpid())]))
"""


def test_top_without_peer_credentials(python):
    said = python(TOP, status=1)
    assert said.startswith("python -m alloc top: ") and len(said.splitlines()) == 1
    assert said.endswith("asking needs SO_PEERCRED, which Linux has")
