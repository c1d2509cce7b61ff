"""Build what is published, on one Linux machine without containers: `make wheels`.

    python wheels/build.py [--python 3.9 ...] [--arch x86_64 ...] [--out dist]

sdists of both distributions first, then every wheel from those sdists, so that
an sdist that lacks a file fails here and not at a user's.  Wheels for CPython are
compiled by `cross_cc.py` against glibc 2.17 (manylinux2014), for either
architecture from this one, and for Windows (`windows.py`).  Two runs on one commit,
wherever it lies, give the same bytes: SOURCE_DATE_EPOCH is the commit's time unless the
environment says otherwise.
"""

import argparse
import glob
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time

import windows

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORK = os.path.join(ROOT, "build", "dist")
GLIBC = "2.17"
PLATFORM = "manylinux2014"
ARCHES = ("x86_64", "aarch64")
VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15")
# What a build must not inherit: a flag here would be in every wheel.
NEUTRAL = ("CC", "CFLAGS", "CPPFLAGS", "LDFLAGS", "LDSHARED", "AR", "NM", "STRIP", "MAKEFLAGS")

started = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - started:5.0f} s] {text}", flush=True)


def run(command, log=None, **extra):
    """Run; the output goes to `log` and is shown only when it fails."""
    environ = {k: v for k, v in os.environ.items() if k not in NEUTRAL}
    environ = {k: v for k, v in environ.items() if not k.startswith(("ALLOC_", "JEMALLOC_SYS_"))}
    environ.update(extra)
    done = subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if log:
        with open(os.path.join(WORK, log + ".log"), "w", encoding="utf-8") as file:
            file.write(done.stdout)
    if done.returncode:
        sys.exit(f"{done.stdout[-6000:]}\nerror: {' '.join(command)} ends with {done.returncode}")
    return done.stdout


def epoch():
    """The time that goes into archives: the environment's, else the commit's."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return given
    asked = subprocess.run(
        ["git", "-C", ROOT, "log", "-1", "--format=%ct"], capture_output=True, text=True
    )
    return asked.stdout.strip() or "315532800"  # 1980, the first that zip can hold


def interpreters(wanted):
    """{version: path} of the CPythons here: on PATH, and pyenv's if there is one."""
    found = {}
    folders = os.environ.get("PATH", "").split(os.pathsep)
    pyenv = shutil.which("pyenv")
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    if pyenv or os.path.isdir(root):
        folders = sorted(glob.glob(os.path.join(root, "versions", "*", "bin"))) + folders
    ask = "import sys; print('%d.%d' % sys.version_info[:2], sys.implementation.name)"
    for version in wanted:
        for folder in folders:
            path = os.path.join(folder, "python" + version)
            if not os.path.isfile(path):
                continue
            said = subprocess.run([path, "-c", ask], capture_output=True, text=True).stdout
            if said.split() == [version, "cpython"]:
                found[version] = path
                break
    return found


def builder(version, interpreter):
    """A Python with the build requirements of both distributions, and no more."""
    venv = os.path.join(WORK, "venv-" + version)
    python = os.path.join(venv, "bin", "python")
    if not os.path.exists(os.path.join(venv, "ready")):
        shutil.rmtree(venv, ignore_errors=True)
        run([interpreter, "-m", "venv", venv])
        run([python, "-m", "pip", "install", "-q", "--upgrade", "pip>=25.1"])
        run([python, "-m", "pip", "install", "-q", "--group", ROOT + "/pyproject.toml:build"])
        open(os.path.join(venv, "ready"), "w").close()
    return python


def multiarch(python):
    """-I for a Python whose pyconfig.h is in a folder of its architecture, as Debian has it.

    The compiler does not look into this system's folders.  Both architectures get the
    file of this machine, which is what every other Python here gives them.
    """
    ask = "import sysconfig; print(sysconfig.get_paths()['include'])"
    include = run([python, "-c", ask]).strip()
    name, machine = os.path.basename(include), os.uname().machine + "-linux-gnu"
    own = os.path.join(os.path.dirname(include), machine, name)
    if not os.path.exists(os.path.join(own, "pyconfig.h")):
        return ""
    place = os.path.join(WORK, "include-" + name)
    shutil.rmtree(place, ignore_errors=True)
    for arch in ARCHES:
        os.makedirs(os.path.join(place, arch + "-linux-gnu"))
        os.symlink(own, os.path.join(place, arch + "-linux-gnu", name))
    return "-I" + place


def plain_tar(path, stamp):
    """Write an sdist again with nothing in it that differs from run to run."""
    with tarfile.open(path) as archive:
        members = sorted(archive.getmembers(), key=lambda m: m.name)
        contents = [archive.extractfile(m).read() if m.isfile() else None for m in members]
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in zip(members, contents):
            member.mtime, member.pax_headers = int(stamp), {}
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            archive.addfile(member, io.BytesIO(content) if content is not None else None)
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=int(stamp)) as packed:
        packed.write(raw.getvalue())


def sdist(python, source, out, stamp):
    """The path of the sdist and of a tree unpacked from it.

    The tree's place is the same in every build: what a compiler makes of a path
    cannot differ then.
    """
    name = os.path.basename(source) if source != ROOT else "pyalloc"
    folder = os.path.join(WORK, "sdist-" + name)
    shutil.rmtree(folder, ignore_errors=True)
    command = [python, "-m", "build", "--no-isolation", "--sdist", "-o", folder, source]
    run(command, "sdist-" + name, SOURCE_DATE_EPOCH=stamp)
    (path,) = glob.glob(os.path.join(folder, "*.tar.gz"))
    plain_tar(path, stamp)
    with tarfile.open(path) as archive:
        archive.extractall(folder, **({"filter": "data"} if sys.version_info >= (3, 12) else {}))
    (tree,) = (p for p in glob.glob(os.path.join(folder, "*")) if os.path.isdir(p))
    shutil.copy(path, out)
    say(os.path.basename(path))
    return tree


def wheel(python, tree, raw, log, **environ):
    """One wheel from an unpacked sdist, into the folder `raw`."""
    shutil.rmtree(os.path.join(tree, "build"), ignore_errors=True)
    command = [python, "-m", "build", "--no-isolation", "--wheel", "-o", raw, tree]
    run(command, log, **environ)


def compiler(target):
    """CC and its kin for a target."""
    script = os.path.join(ROOT, "wheels", "cross_cc.py")
    cc = f"{sys.executable} {script} {target}"
    return {
        "CC": cc,
        "LDSHARED": cc + " -shared",
        "AR": cc + " ar",
        # Stripped by the linker; a strip for a foreign architecture need not exist.
        "LDFLAGS": "-s",
        "STRIP": "true",
        "ZIG_GLOBAL_CACHE_DIR": os.path.join(WORK, "zig"),
        "ZIG_LOCAL_CACHE_DIR": os.path.join(WORK, "zig"),
    }


def linux(arch):
    """The compiler for an architecture, and the tag of what it makes."""
    found = compiler(f"{arch}-linux-gnu.{GLIBC}")
    return {**found, "_PYTHON_HOST_PLATFORM": "linux-" + arch}


def tagged(raw, out, arch, stamp):
    """Ask auditwheel whether the tag may be claimed, claim it, move into `out`.

    Not `auditwheel repair`: there is nothing to graft (audit.py sees to it), and it
    knows the building machine's architecture only.
    """
    python = os.path.join(os.path.dirname(sys.executable), "python")
    for path in sorted(glob.glob(os.path.join(raw, "*.whl"))):
        said = " ".join(run([python, "-m", "auditwheel", "show", path]).split())
        if f'"manylinux_{GLIBC.replace(".", "_")}_{arch}"' not in said:
            sys.exit(f"error: auditwheel: {said}")
        tags = f"{PLATFORM}_{arch}.manylinux_{GLIBC.replace('.', '_')}_{arch}"
        command = [python, "-m", "wheel", "tags", "--remove", "--platform-tag", tags, path]
        name = run(command, SOURCE_DATE_EPOCH=stamp).strip().splitlines()[-1]
        shutil.move(os.path.join(raw, name), out)
        say(name)


def digests(folder):
    found = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as file:
            found[name] = hashlib.sha256(file.read()).hexdigest()
    return found


def copied(folder):
    """What git has or would take, and jemalloc's tarball, in another place."""
    shutil.rmtree(folder, ignore_errors=True)
    command = ["git", "-C", ROOT, "ls-files", "-coz", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = [n for n in listed.split("\0") if n and os.path.isfile(os.path.join(ROOT, n))]
    tarballs = glob.glob(os.path.join(ROOT, "wheels", "jemalloc-sys", "source", "*.tar.*"))
    for name in names + [os.path.relpath(path, ROOT) for path in tarballs]:
        target = os.path.join(folder, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(os.path.join(ROOT, name), target)


def compare(out, stamp):
    """Build all of it again, jemalloc too, in another folder; stop if a byte differs.

    zig's caches are in that folder too, and new: no object of the first build is in it.
    """
    elsewhere = os.path.join(WORK, "elsewhere")
    copied(elsewhere)
    again = os.path.join(WORK, "again")
    arguments = [a for a in sys.argv[1:] if a != "--twice"]
    command = [sys.executable, os.path.join(elsewhere, "wheels", "build.py"), *arguments]
    environ = dict(os.environ, SOURCE_DATE_EPOCH=stamp)
    subprocess.run([*command, "--out", again], check=True, env=environ)
    first, second = digests(out), digests(again)
    if sorted(first) != sorted(second):
        sys.exit(f"error: {sorted(set(first) ^ set(second))} is in one build only")
    differing = sorted(n for n in first if first[n] != second[n])
    if differing:
        sys.exit(f"error: two builds differ: {', '.join(differing)}; compare {out} and {again}")
    shutil.rmtree(elsewhere)
    say(f"{len(first)} files, the same bytes twice")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="*", default=None, metavar="VERSION")
    known = (*ARCHES, windows.TAG)
    parser.add_argument("--arch", nargs="*", default=known, choices=known)
    parser.add_argument("--out", default=os.path.join(ROOT, "dist"))
    parser.add_argument("--portable", action="store_true", help="sdists and the pure wheel only")
    parser.add_argument("--twice", action="store_true", help="again, and compare the bytes")
    parser.add_argument("--only", choices=("pyalloc", "jemalloc-sys"), help="one distribution")
    options = parser.parse_args()
    wanted = () if options.portable else options.arch
    arches = [arch for arch in wanted if arch in ARCHES]

    os.umask(0o022)  # modes go into archives
    os.makedirs(WORK, exist_ok=True)
    shutil.rmtree(options.out, ignore_errors=True)
    os.makedirs(options.out)
    raw = os.path.join(WORK, "raw")
    shutil.rmtree(raw, ignore_errors=True)
    stamp = epoch()
    found = interpreters(options.python or VERSIONS)
    missing = [v for v in options.python or VERSIONS if v not in found]
    if options.python and missing:
        sys.exit(f"error: no CPython {', '.join(missing)} on PATH or in pyenv")
    if not found:
        sys.exit("error: none of CPython " + ", ".join(VERSIONS) + " is here")
    say(f"CPython {', '.join(found)}; not here: {', '.join(missing) or 'none'}")
    say(f"SOURCE_DATE_EPOCH={stamp}, glibc {GLIBC}, {', '.join(options.arch)}")

    first = builder(list(found)[-1], found[list(found)[-1]])
    if options.only != "jemalloc-sys":
        tree = sdist(first, ROOT, options.out, stamp)
        wheel(first, tree, options.out, "pure", ALLOC_CORE="none", SOURCE_DATE_EPOCH=stamp)
        say(os.path.basename(glob.glob(os.path.join(options.out, "*-any.whl"))[0]))
        for arch in arches:
            for version, interpreter in found.items():
                suffix = f".cpython-{version.replace('.', '')}-{arch}-linux-gnu.so"
                environ = {"SETUPTOOLS_EXT_SUFFIX": suffix, "ALLOC_CORE": "require"}
                environ.update(linux(arch), SOURCE_DATE_EPOCH=stamp)
                python = builder(version, interpreter)
                environ["CPPFLAGS"] = multiarch(python)
                wheel(python, tree, raw, f"pyalloc-{version}-{arch}", **environ)
                tagged(raw, options.out, arch, stamp)
        for version in found if windows.TAG in wanted else ():
            if version not in windows.KNOWN:
                say(f"CPython {version} for Windows is not to be had: no wheel")
                continue
            environ = dict(compiler(windows.TARGET), ALLOC_CORE="require", SOURCE_DATE_EPOCH=stamp)
            environ.update(windows.environ(version))
            python = builder(version, found[version])
            wheel(python, tree, options.out, f"pyalloc-{version}-windows", **environ)
            (path,) = glob.glob(os.path.join(options.out, f"*-cp{version.replace('.', '')}-win*"))
            say(os.path.basename(path))
    if options.only != "pyalloc":
        source = os.path.join(ROOT, "wheels", "jemalloc-sys")
        fetch = os.path.join(source, "fetch_source.py")
        run([sys.executable, fetch, "--dest", os.path.join(source, "source")])
        tree = sdist(first, source, options.out, stamp)
        for arch in arches:
            say(f"jemalloc for {arch} ...")
            environ = dict(linux(arch), NM="nm", SOURCE_DATE_EPOCH=stamp)
            environ["JEMALLOC_SYS_HOST"] = arch + "-linux-gnu"
            environ["JEMALLOC_SYS_BUILD_DIR"] = os.path.join(WORK, "jemalloc-" + arch)
            wheel(first, tree, raw, "jemalloc-" + arch, **environ)
            tagged(raw, options.out, arch, stamp)
    say(f"{len(os.listdir(options.out))} files in {options.out}")
    if options.twice:
        compare(options.out, stamp)


if __name__ == "__main__":
    main()
