#!/usr/bin/env python3
"""Find or fetch jemalloc's source, checksum verified; print its path.

    python fetch_source.py --dest DIR [--version 5.3.1]

The order: the path in JEMALLOC_SYS_SOURCE; a file already in DIR; the source
package of the distribution, through its own client; the upstream release.
Progress goes to stderr.  If nothing can be had, the exit status is 1 and one
paragraph says what was tried.
"""

import argparse
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile

# sha256 -> (version, name we keep it under, upstream address of these bytes)
KNOWN = {
    "aac0e7afdbfb8abcbe7cab63597b63abacf22e8b701116a10a45b5ff50ac0c29": (
        "5.3.1",
        "jemalloc-5.3.1.tar.gz",
        None,  # upstream's own archive of 5.3.1 has other bytes
    ),
    "2db82d1e7119df3e71b7640219b6dfe84789bc0537983c3b7ac4f7189aecfeaa": (
        "5.3.0",
        "jemalloc-5.3.0.tar.bz2",
        "https://github.com/jemalloc/jemalloc/releases/download/5.3.0/jemalloc-5.3.0.tar.bz2",
    ),
}
VERSIONS = ("5.3.1", "5.3.0")  # best first


class SourceUnavailable(Exception):
    """Nothing could be had; the text is one paragraph for the user."""


def say(message):
    print("jemalloc: " + message, file=sys.stderr, flush=True)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def fetch(dest, versions=VERSIONS, environ=os.environ):
    """The path of a verified tarball (or of the tree the builder named)."""
    tried = []
    named = environ.get("JEMALLOC_SYS_SOURCE")
    if named:
        # Never replaced by something else: the builder asked for this one.
        return _named(named, environ)
    for version in versions:
        path = _in_folder(dest, version, tried)
        if path:
            return path
    os.makedirs(dest, exist_ok=True)
    for version in versions:
        for way in (_from_distribution, _from_upstream):
            path = way(dest, version, tried)
            if path:
                return path
    raise SourceUnavailable(
        "jemalloc's source could not be had ("
        + " or ".join(versions)
        + "). Tried: "
        + "; ".join(tried)
        + ". Put a tarball in "
        + dest
        + " or name one with JEMALLOC_SYS_SOURCE."
    )


def _named(path, environ):
    if os.path.isdir(path):
        return os.path.abspath(path)
    if not os.path.isfile(path):
        raise SourceUnavailable(f"JEMALLOC_SYS_SOURCE names {path}, which does not exist.")
    found = sha256(path)
    wanted = environ.get("JEMALLOC_SYS_SOURCE_SHA256", "").lower()
    if found == wanted or (not wanted and found in KNOWN):
        return os.path.abspath(path)
    raise SourceUnavailable(
        "JEMALLOC_SYS_SOURCE names {}, whose sha256 is {} and not {}. For a tarball of "
        "your own, set JEMALLOC_SYS_SOURCE_SHA256.".format(path, found, wanted or "one known here")
    )


def _in_folder(dest, version, tried):
    for path in sorted(glob.glob(os.path.join(dest, "*jemalloc*.tar.*"))):
        name = os.path.basename(path)
        if version not in name or name.endswith(".part"):
            continue
        found = sha256(path)
        if KNOWN.get(found, ("",))[0] == version:
            return os.path.abspath(path)
        tried.append(f"{name} in the folder (refused: its sha256 is {found})")
    return None


def _keep(path, dest, version, tried, where):
    """Move a download to its place if its checksum is known, else refuse it."""
    found = sha256(path)
    known = KNOWN.get(found)
    if known is None or known[0] != version:
        tried.append(f"{where} (refused: the sha256 of what came is {found})")
        return None
    target = os.path.join(dest, known[1])
    shutil.move(path, target + ".part")
    os.replace(target + ".part", target)
    return os.path.abspath(target)


def _from_upstream(dest, version, tried):
    import http.client
    import urllib.request

    url = next((k[2] for k in KNOWN.values() if k[0] == version), None)
    if url is None:
        return None
    say(f"fetching {url}")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tarball")
        try:
            with urllib.request.urlopen(url, timeout=60) as answer, open(path, "wb") as out:
                shutil.copyfileobj(answer, out)
        except (OSError, ValueError, http.client.HTTPException) as error:
            tried.append(f"{url} ({error})")
            return None
        return _keep(path, dest, version, tried, url)


# -- the distribution's client ------------------------------------------------


def machine_entries(root="/etc/apt"):
    """The machine's own package sources as (uri, suites, components, options).

    Both formats; flat repositories, disabled entries and security-only ones
    (they carry no full suite) are left out.
    """
    entries = []
    lists = [os.path.join(root, "sources.list")]
    lists += sorted(glob.glob(os.path.join(root, "sources.list.d", "*.list")))
    for path in lists:
        for line in _read(path).splitlines():
            match = re.match(r"deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)", line.strip())
            if match:
                options = dict(o.split("=", 1) for o in (match[1] or "").split() if "=" in o)
                entries.append((match[2], [match[3]], match[4].split(), options))
    for path in sorted(glob.glob(os.path.join(root, "sources.list.d", "*.sources"))):
        for stanza in re.split(r"\n[ \t]*\n", _read(path)):
            text = re.sub(r"(?m)^#.*\n?", "", stanza + "\n")
            fields = {
                name.lower(): value.rstrip("\n")
                for name, value in re.findall(r"(?m)^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", text)
            }
            if "deb" not in fields.get("types", "").split():
                continue
            if fields.get("enabled", "yes").strip().lower() == "no":
                continue
            options = {k: fields[k] for k in ("signed-by", "trusted") if k in fields}
            for uri in fields.get("uris", "").split():
                entries.append(
                    (
                        uri,
                        fields.get("suites", "").split(),
                        fields.get("components", "").split(),
                        options,
                    )
                )
    return [
        e
        for e in entries
        if e[2] and "security" not in e[0] and not any(s.endswith("-security") for s in e[1])
    ]


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def stanzas(entries, kind, suite=None):
    """The entries as deb822 text of type `kind`, moved to `suite` if given."""
    out = []
    for uri, suites, components, options in entries:
        lines = [
            "Types: " + kind,
            "URIs: " + uri,
            "Suites: " + (suite or " ".join(suites)),
            "Components: " + " ".join(components),
        ]
        for name, field in (("signed-by", "Signed-By"), ("trusted", "Trusted")):
            if name in options:
                lines.append(f"{field}: {options[name]}")
        text = "\n".join(lines) + "\n"
        if text not in out:
            out.append(text)
    return "\n".join(out)


def apt(text, commands, folder, tried, where):
    """Run apt-get `commands` in `folder` with `text` as the only package list.

    Lists and caches are in `folder`, so the machine's own are not touched.
    """
    for name in ("parts", "lists/partial", "cache/archives/partial"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    with open(os.path.join(folder, "parts", "jemalloc.sources"), "w", encoding="utf-8") as file:
        file.write(text)
    base = ["apt-get", "-qq"]
    options = [
        "Dir::Etc::sourcelist=/dev/null",
        f"Dir::Etc::sourceparts={folder}/parts",
        f"Dir::State::lists={folder}/lists",
        f"Dir::Cache={folder}/cache",
    ]
    if os.getuid() == 0:  # apt's own user cannot write to our folder
        options.append("APT::Sandbox::User=root")
    for option in options:
        base += ["-o", option]
    for command in [["update"]] + commands:
        try:
            done = subprocess.run(
                base + command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=300,
            )
        except (OSError, subprocess.SubprocessError) as error:
            tried.append(f"{where} ({error})")
            return False
        if done.returncode:
            last = done.stdout.strip().splitlines()[-1:] or ["exit status %d" % done.returncode]
            tried.append(f"{where} ({last[0]})")
            return False
    return True


def _from_distribution(dest, version, tried):
    where = "the distribution's source package of " + version
    entries = machine_entries()
    if not shutil.which("apt-get") or not entries:
        tried.append(where + " (no apt-get with package lists here)")
        return None
    suite = "unstable" if version == VERSIONS[0] else None
    say(f"asking the distribution for its source package of {version} ...")
    with tempfile.TemporaryDirectory() as folder:
        download = ["source", "--download-only", "--tar-only", "jemalloc"]
        if not apt(stanzas(entries, "deb-src", suite), [download], folder, tried, where):
            return None
        for path in sorted(glob.glob(os.path.join(folder, "jemalloc_*.orig.tar.*"))):
            kept = _keep(path, dest, version, tried, where)
            if kept:
                return kept
    return None


def main(argv=None):
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description="Find or fetch jemalloc's source.")
    parser.add_argument("--dest", default=os.path.join(here, "source"), help="folder to keep it in")
    parser.add_argument("--version", choices=VERSIONS, help="only this one")
    options = parser.parse_args(argv)
    try:
        print(fetch(options.dest, (options.version,) if options.version else VERSIONS))
    except SourceUnavailable as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
