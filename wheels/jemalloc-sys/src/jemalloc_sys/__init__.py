"""Where the files of this jemalloc are; nothing is loaded by importing this."""

import os

__all__ = [
    "__version__",
    "build_info",
    "get_include_dir",
    "get_lib_dir",
    "get_library",
    "get_pkg_config",
]

_HERE = os.path.dirname(os.path.abspath(__file__))

_LIBRARIES = {
    "private": "libjemalloc_private.so",  # prefix je_, for dlopen; see jemalloc_sys.h
    "boot": "libjemalloc_boot.so",  # what the private one needs, and je_boot_conf
    "preload": "libjemalloc.so.2",  # no prefix, for LD_PRELOAD
    "static": "libjemalloc_pic.a",  # prefix je_, for linking
}


def get_include_dir() -> str:
    """The folder of ``jemalloc/jemalloc.h`` (prefix ``je_``) and ``jemalloc_sys.h``."""
    return os.path.join(_HERE, "include")


def get_lib_dir() -> str:
    """The folder of the libraries."""
    return os.path.join(_HERE, "lib")


def get_library(kind: str = "private") -> str:
    """The full path of a library: ``private``, ``boot``, ``preload`` or ``static``.

    Raises ``ValueError`` for another kind, ``FileNotFoundError`` if this build
    does not have it.
    """
    if kind not in _LIBRARIES:
        raise ValueError("kind must be one of {}, not {!r}".format(", ".join(_LIBRARIES), kind))
    path = os.path.join(get_lib_dir(), _LIBRARIES[kind])
    if not os.path.isfile(path):
        raise FileNotFoundError(f"this build of jemalloc-sys has no {kind} library: {path}")
    return path


def get_pkg_config() -> str:
    """The text of a pkg-config file that works from any folder."""
    path = os.path.join(get_lib_dir(), "pkgconfig", "jemalloc-sys.pc")
    with open(path, encoding="utf-8") as file:
        return file.read().replace("${pcfiledir}/../..", _HERE)


def build_info() -> "dict[str, object]":
    """How it was built: versions, source checksum, options, compiler, target."""
    import json

    with open(os.path.join(_HERE, "build_info.json"), encoding="utf-8") as file:
        info: dict[str, object] = json.load(file)
    return info


def __getattr__(name: str) -> str:
    if name == "__version__":  # a file more at import, for one who asks only
        from ._version import version

        return version
    raise AttributeError(f"module 'jemalloc_sys' has no attribute {name!r}")
