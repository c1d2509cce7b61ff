"""fetch_source.py, without the network."""

import io
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
import fetch_source


@pytest.fixture
def fetch(clean):
    """The script as it is run, with no package client and no network in reach."""

    def run(dest, environ):
        environ = clean(dict({"PATH": "/nowhere", "https_proxy": "http://127.0.0.1:9"}, **environ))
        return subprocess.run(
            [sys.executable, os.path.join(ROOT, "fetch_source.py"), "--dest", str(dest)],
            env=environ,
            capture_output=True,
            text=True,
        )

    return run


def test_wrong_checksum_is_refused(fetch, tmp_path):
    bad = tmp_path / "jemalloc-5.3.1.tar.gz"
    bad.write_bytes(b"not it")
    done = fetch(tmp_path / "dest", {"JEMALLOC_SYS_SOURCE": str(bad)})
    assert done.returncode == 1 and "sha256" in done.stderr and not done.stdout
    done = fetch(tmp_path, {})  # the same file, found in the folder
    assert done.returncode == 1 and "refused" in done.stderr and not done.stdout


def test_a_checksum_of_ones_own(fetch, tmp_path):
    own = tmp_path / "mine.tar.gz"
    own.write_bytes(b"mine")
    sha256 = fetch_source.sha256(str(own))
    done = fetch(tmp_path, {"JEMALLOC_SYS_SOURCE": str(own), "JEMALLOC_SYS_SOURCE_SHA256": sha256})
    assert (done.returncode, done.stdout.strip()) == (0, str(own))
    done = fetch(
        tmp_path, {"JEMALLOC_SYS_SOURCE": str(own), "JEMALLOC_SYS_SOURCE_SHA256": "0" * 64}
    )
    assert done.returncode == 1


def test_missing_source_is_named(fetch, tmp_path):
    done = fetch(tmp_path, {"JEMALLOC_SYS_SOURCE": str(tmp_path / "none")})
    assert done.returncode == 1 and "does not exist" in done.stderr


def test_a_tree_is_taken_as_it_is(fetch, tmp_path):
    assert fetch(tmp_path, {"JEMALLOC_SYS_SOURCE": str(tmp_path)}).stdout.strip() == str(tmp_path)


def test_nothing_available_says_what_was_tried(fetch, tmp_path):
    done = fetch(tmp_path, {})
    assert done.returncode == 1 and not done.stdout
    message = done.stderr.strip().splitlines()[-1]
    for part in ("could not be had", "no apt-get", "github.com", "JEMALLOC_SYS_SOURCE"):
        assert part in message


def test_what_came_with_another_checksum_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: io.BytesIO(b"other"))
    tried = []
    assert fetch_source._from_upstream(str(tmp_path), "5.3.0", tried) is None
    assert "refused" in tried[0] and not os.listdir(str(tmp_path))


def test_both_formats_of_package_lists(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://commented/ x main\n"
        "deb [signed-by=/k.gpg arch=amd64] http://one/debian bookworm main contrib # note\n"
        "deb http://one/debian-security bookworm-security main\n"
        "deb http://flat/ ./\n"
        "deb-src http://one/debian bookworm main\n"
    )
    (tmp_path / "sources.list.d" / "two.sources").write_text(
        "Types: deb\n# a note\nURIs: http://two/debian\nSuites: bookworm bookworm-updates\n"
        "Components: main\nSigned-By:\n -----BEGIN\n .\n line\n\n"
        "Types: deb\nURIs: http://off/\nSuites: x\nComponents: main\nEnabled: no\n"
    )
    entries = fetch_source.machine_entries(str(tmp_path))
    assert [(e[0], e[1], e[2]) for e in entries] == [
        ("http://one/debian", ["bookworm"], ["main", "contrib"]),
        ("http://two/debian", ["bookworm", "bookworm-updates"], ["main"]),
    ]
    text = fetch_source.stanzas(entries, "deb-src", "unstable")
    assert text.count("Suites: unstable") == 2 and text.count("Types: deb-src") == 2
    assert "Signed-By: /k.gpg" in text and "Signed-By: \n -----BEGIN\n .\n line" in text


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("JOBS", "many", "number"),
        ("PROFILING", "yes", "0 or 1"),
        ("WITH_LG_PAGE", "99", "12 to 24"),
        ("WITH_MALLOC_CONF", "a;b", "must match"),
        ("WITH_LGPAGE", "12", "no such option"),
    ],
)
def test_unknown_build_options_are_errors(name, value, message):
    from jemalloc_build import BuildError
    from jemalloc_build.options import Options

    with pytest.raises(BuildError, match=message):
        Options({"JEMALLOC_SYS_" + name: value})
