"""Fixtures of the embedding tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from launching import Kit


@pytest.fixture(scope="session")
def kit(tmp_path_factory):
    """The interpreter under test, the package, and a place for files."""
    return Kit(tmp_path_factory.mktemp("embedding"))
