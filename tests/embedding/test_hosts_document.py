"""The programs of docs/hosts.md do what it says they print."""

import subprocess

import documents
import pytest
from launching import Failure, Missing, embedding_flags
from test_examples import EXAMPLES

import alloc

pytestmark = [pytest.mark.needs_cc, pytest.mark.needs_core]
FILES = documents.files("hosts.md", "c")
REFUSED, SERVES, LIFE = documents.blocks("hosts.md", "text")


def build_and_run(kit, text):
    """What the program prints, its warnings first."""
    source, program = kit.path("document.c"), kit.path("document")
    source.write_text(text)
    pool = EXAMPLES / "host_c"
    flags = [f"-I{alloc.get_include()}", f"-I{pool}", "-Wno-unused-parameter"]
    try:
        kit.compile(
            ["-Wextra", "-Werror", *flags, str(source), str(pool / "pool.c"), "-o", str(program)]
            + embedding_flags()
        )
    except (Missing, Failure) as error:
        pytest.fail(str(error), pytrace=False)
    done = subprocess.run(
        [str(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        env=kit.environ(PYTHONHOME=kit.home, PYTHONPATH=str(kit.packages), PYTHONUNBUFFERED="1"),
    )
    return done.stdout


def test_a_table_that_lies(kit):
    """The first version, word for word but for the place of the warning."""
    output = build_and_run(kit, FILES["host.c"])
    for line in REFUSED.splitlines():
        assert line in output


def test_the_true_one(kit):
    """The second answer in place of the first."""
    include, function = FILES["usable.c"].split("\n", 2)[1:]
    start = FILES["host.c"].index("static size_t usable")
    end = FILES["host.c"].index("static int owns")
    text = f"{include}\n{FILES['host.c'][:start]}{function}{FILES['host.c'][end:]}"
    assert build_and_run(kit, text) == SERVES


def test_life(kit):
    """Registered late, trimmed, revoked, closed."""
    assert build_and_run(kit, FILES["life.c"]) == LIFE
