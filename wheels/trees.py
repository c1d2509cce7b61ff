"""Debian trees, made by debootstrap when they are missing and kept: as root.

They lie in ALLOC_TREES, or in the user's cache; about 300 MB each.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
TREES = Path(os.environ.get("ALLOC_TREES") or os.path.join(CACHE, "alloc-wheels", "trees"))
# name: folder, suite, Debian's architecture, packages besides the base
LIBRARIES = "libssl3,libffi8,libsqlite3-0,libreadline8,libncursesw6,libuuid1,libgdbm6,libdb5.3"
KNOWN = {
    "debian11": ("bullseye", "bullseye", "amd64", "python3-venv"),
    "aarch64": ("bookworm-arm64", "bookworm", "arm64", "python3-venv"),
    # For Pythons that were built on a Debian 12, and what jemalloc's build needs.
    "debian12": ("bookworm", "bookworm", "amd64", f"{LIBRARIES},libc6-dev,binutils,make,autoconf"),
}
BINFMT = Path("/proc/sys/fs/binfmt_misc")
# qemu-aarch64, opened at registration (F): the trees need not have it.  It is told the
# program's argv[0] (P), by which a virtual environment's Python finds its own.
AARCH64 = (
    rb":qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:"
    rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:%s:PF"
)


def need(program, package):
    found = shutil.which(program)
    return found or sys.exit(f"error: no {program} (Debian: apt-get install {package})")


def emulator():
    """Have the kernel run aarch64 programs by qemu, unless it can already."""
    if os.uname().machine == "aarch64" or (BINFMT / "qemu-aarch64").exists():
        return
    qemu = need("qemu-aarch64-static", "qemu-user-static")
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT], check=True)
    (BINFMT / "register").write_bytes(AARCH64 % qemu.encode())


def tree(name):
    """Where the tree is; made if it is missing."""
    folder, suite, debian, packages = KNOWN[name]
    if os.geteuid() != 0:
        sys.exit("error: debootstrap and chroot need root")
    if debian == "arm64":
        emulator()
    place, half = TREES / folder, TREES / (folder + ".half")
    if not place.exists():
        print(f"making {place}", flush=True)
        TREES.mkdir(parents=True, exist_ok=True)
        subprocess.run(["rm", "-rf", half], check=True)
        command = [need("debootstrap", "debootstrap"), f"--arch={debian}", "--variant=minbase"]
        command += [f"--include=ca-certificates,python3,{packages}", suite, half]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        half.rename(place)
    return place


def inside(place, *command, **environ):
    """Run in the tree, with /proc, /sys and /dev in a mount namespace that ends with it."""
    mounts = ('-t proc proc "$0/proc"', '-t sysfs sysfs "$0/sys"', '--rbind /dev "$0/dev"')
    script = " && ".join(f"mount {mount}" for mount in mounts) + ' && exec chroot "$0" "$@"'
    plain = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
    command = ["unshare", "--mount", "sh", "-c", script, place, *command]
    return subprocess.run(command, env={**plain, **environ}, check=False).returncode
