"""An autoconf to make `configure` with: the one on PATH, else the
distribution's package, unpacked into the build folder without root."""

import glob
import os
import shutil
import subprocess

import fetch_source

from . import BuildError, say

PACKAGES = ["autoconf", "m4"]
HELPERS = ["libsigsegv2"]  # m4 needs it on some releases; elsewhere it is absent


def make_configure(tree, build_dir):
    """Write `configure` into `tree`, or raise BuildError."""
    environ = dict(os.environ)
    program = shutil.which("autoconf")
    if program is None:
        root = os.path.join(build_dir, "autoconf")
        _unpack(root)
        program = os.path.join(root, "usr", "bin", "autoconf")
        environ.update(_relocated(root))
    say("autoconf: making configure ...")
    done = subprocess.run(
        ["/bin/sh", program] if not shutil.which("autoconf") else [program],
        cwd=tree,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode or not os.path.isfile(os.path.join(tree, "configure")):
        raise BuildError("autoconf fails: " + done.stdout.strip()[-1000:])


def _unpack(root):
    if os.path.isfile(os.path.join(root, "usr", "bin", "autoconf")):
        return
    for tool in ("apt-get", "dpkg-deb", "perl"):
        if not shutil.which(tool):
            raise BuildError(
                "this source has no configure, and there is neither autoconf nor " + tool
            )
    say("autoconf: taking the distribution's package ...")
    folder = root + ".part"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    _download(folder)
    for package in sorted(glob.glob(os.path.join(folder, "*.deb"))):
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    os.replace(folder, root)


def _download(folder):
    """The packages by the machine's own lists, else by fresh ones of our own."""
    # apt's own user cannot write here; without this it says so at length.
    plain = ["apt-get", "-qq"] + (["-o", "APT::Sandbox::User=root"] if os.getuid() == 0 else [])
    done = _quiet(plain + ["download"] + PACKAGES, folder)
    if done.returncode == 0:
        _quiet(plain + ["download"] + HELPERS, folder)
        return
    tried = [done.stdout.strip()[-300:]]
    text = fetch_source.stanzas(fetch_source.machine_entries(), "deb")
    if not fetch_source.apt(
        text, [["download"] + PACKAGES], folder, tried, "the distribution's autoconf"
    ):
        raise BuildError(
            "this source has no configure, and autoconf is not to be had: " + "; ".join(tried)
        )
    fetch_source.apt(text, [["download"] + HELPERS], folder, [], "")


def _quiet(command, folder):
    return subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _relocated(root):
    """The variables autoconf honours for running from elsewhere than /usr."""
    share = os.path.join(root, "usr", "share", "autoconf")
    config = os.path.join(root, "autom4te.cfg")
    with open(os.path.join(share, "autom4te.cfg"), encoding="utf-8") as file:
        text = file.read().replace("/usr/share/autoconf", share)
    with open(config, "w", encoding="utf-8") as file:
        file.write(text)
    libraries = glob.glob(os.path.join(root, "usr", "lib", "*-linux-*"))
    return {
        "autom4te_perllibdir": share,
        "AC_MACRODIR": share,
        "trailer_m4": os.path.join(share, "autoconf", "trailer.m4"),
        "AUTOM4TE": os.path.join(root, "usr", "bin", "autom4te"),
        "AUTOM4TE_CFG": config,
        "M4": os.path.join(root, "usr", "bin", "m4"),
        "LD_LIBRARY_PATH": ":".join(libraries + [os.environ.get("LD_LIBRARY_PATH", "")]).strip(":"),
    }
