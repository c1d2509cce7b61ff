"""The modules of docs/extensions.md, built as it says in a clean environment, and used."""

import sys
from pathlib import Path

import documents
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from test_extension import environment, run

FILES = documents.files("extensions.md", "c", "cython", "python")
pytestmark = [pytest.mark.needs_core, pytest.mark.needs_cc, pytest.mark.needs_venv]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Python of an environment with the page's extension, and nothing of this tree."""
    place = tmp_path_factory.mktemp("document")
    source = place / "source"
    source.mkdir()
    for name in ("setup.py", "series.c", "ranks.pyx"):
        (source / name).write_text(FILES[name])
    (source / "pyproject.toml").write_text(documents.blocks("extensions.md", "toml")[0])
    return environment(place, source)


@pytest.mark.parametrize("name", ["use.py", "errors.py"])
def test_script(built, tmp_path, name):
    """A script of the page."""
    run([built, "-c", FILES[name]], cwd=tmp_path)
