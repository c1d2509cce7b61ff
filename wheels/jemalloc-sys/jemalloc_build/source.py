"""A jemalloc source tree that is ready to be configured."""

import glob
import hashlib
import os
import re
import shutil
import tarfile

import fetch_source

from . import BuildError, autoconf, say


class Source:
    """`tree` has a configure script; `sha256` names what it came from."""

    def __init__(self, tree, sha256):
        self.tree = tree
        self.sha256 = sha256
        self.version, self.full_version = _versions(tree)


def prepare(build_dir, dest):
    """Fetch, unpack and give it a configure script.

    5.3.1 comes without configure; where autoconf is not to be had either, 5.3.0
    is used, unless the builder named a source.
    """
    refused = None
    for version in fetch_source.VERSIONS:
        try:
            path = fetch_source.fetch(dest, (version,) if refused else fetch_source.VERSIONS)
        except fetch_source.SourceUnavailable as error:
            raise BuildError("{}{}".format(error, f" ({refused})" if refused else "")) from None
        try:
            return _prepared(path, build_dir)
        except BuildError as error:
            if os.environ.get("JEMALLOC_SYS_SOURCE"):
                raise
            refused = error
            say(f"{error}; trying an older source")
    raise refused


def _prepared(path, build_dir):
    sha256 = _sha256_of_tree(path) if os.path.isdir(path) else fetch_source.sha256(path)
    tree = os.path.join(build_dir, "source-" + sha256[:12])
    if not os.path.isfile(os.path.join(tree, "configure")):
        part = tree + ".part"
        shutil.rmtree(part, ignore_errors=True)
        if os.path.isdir(path):
            shutil.copytree(path, part, symlinks=True, ignore=shutil.ignore_patterns(".git", "*.o"))
        else:
            say(f"unpacking {os.path.basename(path)} ...")
            _unpack(path, part)
        if not os.path.isfile(os.path.join(part, "configure")):
            autoconf.make_configure(part, build_dir)
        shutil.rmtree(tree, ignore_errors=True)
        os.replace(part, tree)
    return Source(tree, sha256)


def _unpack(path, target):
    """Unpack the tarball's one top folder as `target`."""
    holder = target + ".holder"
    shutil.rmtree(holder, ignore_errors=True)
    try:
        with tarfile.open(path) as tar:
            # Checksum verified, so trusted; the filter only silences a warning.
            tar.extractall(
                holder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
            )
        tops = glob.glob(os.path.join(holder, "*"))
        if len(tops) != 1 or not os.path.isfile(os.path.join(tops[0], "configure.ac")):
            raise BuildError(f"{path} is not a source tarball of jemalloc")
        # The top folder's name ends in the commit if nothing else says it.
        commit = re.search(r"-([0-9a-f]{7,40})$", tops[0])
        if commit:
            with open(os.path.join(tops[0], ".commit"), "w") as file:
                file.write(commit[1])
        os.replace(tops[0], target)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise BuildError(f"{path} cannot be unpacked: {error}") from None
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def _sha256_of_tree(path):
    """One checksum over the names and contents that make the library."""
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(
            f for f in folders if f not in (".git", "test", "doc", "autom4te.cache")
        )
        for name in sorted(names):
            if name.endswith((".c", ".h", ".in", ".ac", ".sh", ".m4")) or name in (
                "configure",
                "VERSION",
            ):
                full = os.path.join(folder, name)
                digest.update(os.path.relpath(full, path).encode() + b"\0")
                with open(full, "rb") as file:
                    digest.update(hashlib.sha256(file.read()).digest())
    return digest.hexdigest()


def _versions(tree):
    """("5.3.1", "5.3.1-0-g81034ce"); a release tarball has a file that says so."""

    def text(name):
        try:
            with open(os.path.join(tree, name), encoding="utf-8") as file:
                return file.read()
        except OSError:
            return ""

    full = text("VERSION").strip()
    if not re.match(r"\d+\.\d+\.\d+-\d+-g[0-9a-f]+$", full):
        release = re.search(r"(?m)^\* (\d+\.\d+\.\d+)\b", text("ChangeLog"))
        if not release:
            raise BuildError(
                "the source does not say which version it is: neither VERSION nor ChangeLog do"
            )
        full = "{}-0-g{}".format(release[1], text(".commit") or "0" * 40)
    return full.split("-")[0], full
