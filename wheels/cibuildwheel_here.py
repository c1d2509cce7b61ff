"""The real cibuildwheel on the sdists in dist/, with podman on an image made here; as root.

    python wheels/cibuildwheel_here.py [--python 3.11 ...] [--only jemalloc-sys]

The image is a Debian 12 tree (trees.py) with this machine's CPythons, auditwheel,
patchelf and zig's compiler against glibc 2.17 in it: what a manylinux2014 image is to
cibuildwheel.  Everything else is the configuration in both pyproject.toml files.  The
wheels go to build/cibuildwheel and are thrown away; what counts is that it ends well.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from trees import need, tree

import build as recipe

ROOT = Path(__file__).resolve().parent.parent
IMAGE = "localhost/alloc-wheels:latest"
DIST = Path(os.environ.get("ALLOC_DIST", ROOT / "dist")).resolve()
WORK = ROOT / "build" / "cibuildwheel"
UTILITY = "3.9"  # cibuildwheel runs helpers of its own with it
# What a kernel without cgroups of the session's own, and without bridges, can do.
PODMAN = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
# How this machine reaches the index; cibuildwheel mounts its / at /host.
PASSED = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_FIND_LINKS", "PIP_INDEX_URL")


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def folder(version):
    tag = "cp" + version.replace(".", "")
    return f"opt/python/{tag}-{tag}"


def add_python(root, version, interpreter):
    """A CPython of this machine, where a manylinux image has it."""
    ask = "import sys; print(sys.base_prefix)"
    prefix = subprocess.run([interpreter, "-c", ask], capture_output=True, text=True).stdout.strip()
    target = root / folder(version)
    packages = os.path.join(prefix, "lib", f"python{version}", "site-packages")
    kept = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence")

    def left_out(where, names):
        if where == packages:
            return [name for name in names if not name.startswith(kept)]
        return {"__pycache__", "test", "share"}.intersection(names)

    shutil.copytree(prefix, target, symlinks=True, ignore=left_out)
    site = target / "lib" / f"python{version}" / "site-packages"
    subprocess.run(
        [interpreter, "-m", "pip", "install", "-q", "--target", site, "build"], check=True
    )
    # Its libpython is found by the path that it was built for.
    former = root / prefix.lstrip("/")
    former.parent.mkdir(parents=True, exist_ok=True)
    former.symlink_to("/" + folder(version))


def image(found):
    """Make the image, unless it is there with these Pythons."""
    label = ",".join(sorted(found))
    asked = ["podman", "image", "inspect", IMAGE, "--format", "{{.Labels.pythons}}"]
    if subprocess.run(asked, capture_output=True, text=True).stdout.strip() == label:
        return
    recipe.say(f"the image, with {label}")
    root = WORK / "root"
    subprocess.run(["rm", "-rf", root], check=True)
    subprocess.run(["cp", "-a", tree("debian12"), root], check=True)
    for version, interpreter in found.items():
        add_python(root, version, interpreter)
    newest = list(found)[-1]
    tools = root / "opt" / "tools"
    command = [found[newest], "-m", "pip", "install", "-q", "--target", tools]
    subprocess.run([*command, "auditwheel>=6.1", "patchelf>=0.17", "ziglang>=0.13"], check=True)
    python = f"PYTHONPATH=/opt/tools exec /{folder(newest)}/bin/python"
    script(root / "usr/local/bin/auditwheel", f'{python} -m auditwheel "$@"')
    script(root / "usr/local/bin/patchelf", 'exec /opt/tools/bin/patchelf "$@"')
    shutil.copy(ROOT / "wheels" / "cross_cc.py", root / "opt")
    target = f"{os.uname().machine}-linux-gnu.{recipe.GLIBC}"
    for name in ("cc", "gcc"):
        script(root / "usr/local/bin" / name, f'{python} /opt/cross_cc.py {target} "$@"')
    script(root / "usr/local/bin/cc-shared", 'exec cc -shared "$@"')
    environ = {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "LDSHARED": "cc-shared",  # not with the paths of the machine that built the Pythons
        "AUDITWHEEL_PLAT": f"{recipe.PLATFORM}_{os.uname().machine}",
        "ZIG_GLOBAL_CACHE_DIR": "/tmp/zig",
        "ZIG_LOCAL_CACHE_DIR": "/tmp/zig",
    }
    changes = [f"--change=ENV {name}={value}" for name, value in environ.items()]
    changes += [f"--change=LABEL pythons={label}", "--change=CMD /bin/bash"]
    packed = subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE)
    subprocess.run(
        ["podman", "import", "-q", *changes, "-", IMAGE], stdin=packed.stdout, check=True
    )
    if packed.wait():
        sys.exit("error: the image could not be packed")
    subprocess.run(["rm", "-rf", root], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="*", default=recipe.VERSIONS, metavar="VERSION")
    parser.add_argument("--only", choices=("pyalloc", "jemalloc-sys"))
    options = parser.parse_args()
    need("podman", "podman runc")
    need("runc", "runc")
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / "containers.conf").write_text(PODMAN)
    os.environ["CONTAINERS_CONF"] = str(WORK / "containers.conf")
    # 3.12 builds jemalloc-sys, see its pyproject.toml.
    found = recipe.interpreters(recipe.VERSIONS)
    for version in (UTILITY, "3.12"):
        if version not in found:
            sys.exit(f"error: no CPython {version} here")
    image(found)

    arch = os.uname().machine
    environ = {k: v for k, v in os.environ.items() if k not in recipe.NEUTRAL}
    passed = {name: os.environ[name] for name in PASSED if name in os.environ}
    passed = {n: "/host" + v if v.startswith("/") else v for n, v in passed.items()}
    passed = " ".join(f"--env={name}={value}" for name, value in passed.items())
    environ.update(
        CIBW_PLATFORM="linux",
        CIBW_ARCHS=arch,
        CIBW_CONTAINER_ENGINE=f"podman; create_args: {passed}" if passed else "podman",
        # It would be downloaded, and finds nothing in wheels per version.
        CIBW_AUDIT_COMMAND="",
    )
    environ[f"CIBW_MANYLINUX_{arch.upper()}_IMAGE"] = IMAGE
    asked = [v for v in options.python if v in found]
    builds = {
        "pyalloc": [f"cp{v.replace('.', '')}-manylinux_{arch}" for v in asked],
        "jemalloc-sys": [f"cp312-manylinux_{arch}"],
    }
    for name, identifiers in builds.items():
        if options.only not in (None, name):
            continue
        (sdist,) = DIST.glob(f"{name.replace('-', '_')}-*.tar.gz")
        recipe.say(f"{sdist.name}: {', '.join(identifiers)}")
        command = [sys.executable, "-m", "cibuildwheel", "--output-dir", WORK / name, sdist]
        subprocess.run(command, env={**environ, "CIBW_BUILD": " ".join(identifiers)}, check=True)
    recipe.say("cibuildwheel ends well")


if __name__ == "__main__":
    main()
