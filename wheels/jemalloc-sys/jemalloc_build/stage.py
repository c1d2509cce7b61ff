"""The package's files around the libraries: headers, pkg-config, CMake, facts."""

import json
import os
import re
import shutil

from . import BuildError, recipe, say

PACKAGING_REVISION = 0

PKG_CONFIG = """\
prefix=${pcfiledir}/../..
libdir=${prefix}/lib
includedir=${prefix}/include

Name: jemalloc-sys
Description: jemalloc as a static pic archive, prefix je_
URL: https://github.com/jemalloc/jemalloc
Version: %(version)s
Cflags: -I${includedir}
Libs: -L${libdir} -ljemalloc_pic -lpthread -lm -ldl
"""

CMAKE = """\
# Defines jemalloc-sys::static (prefix je_) and JEMALLOC_SYS_PRIVATE_LIBRARY,
# JEMALLOC_SYS_BOOT_LIBRARY, JEMALLOC_SYS_PRELOAD_LIBRARY.
get_filename_component(_jemalloc_sys_root "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
set(JEMALLOC_SYS_VERSION "%(version)s")
set(JEMALLOC_SYS_INCLUDE_DIR "${_jemalloc_sys_root}/include")
set(JEMALLOC_SYS_PRIVATE_LIBRARY "${_jemalloc_sys_root}/lib/libjemalloc_private.so")
set(JEMALLOC_SYS_BOOT_LIBRARY "${_jemalloc_sys_root}/lib/libjemalloc_boot.so")
set(JEMALLOC_SYS_PRELOAD_LIBRARY "${_jemalloc_sys_root}/lib/libjemalloc.so.2")
if(NOT TARGET jemalloc-sys::static)
  add_library(jemalloc-sys::static STATIC IMPORTED)
  set_target_properties(jemalloc-sys::static PROPERTIES
    IMPORTED_LOCATION "${_jemalloc_sys_root}/lib/libjemalloc_pic.a"
    INTERFACE_INCLUDE_DIRECTORIES "${JEMALLOC_SYS_INCLUDE_DIR}"
    INTERFACE_LINK_LIBRARIES "pthread;m;dl")
endif()
unset(_jemalloc_sys_root)
"""

CMAKE_VERSION = """\
set(PACKAGE_VERSION "%(version)s")
if(PACKAGE_VERSION VERSION_LESS PACKAGE_FIND_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE FALSE)
else()
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
  if(PACKAGE_FIND_VERSION STREQUAL PACKAGE_VERSION)
    set(PACKAGE_VERSION_EXACT TRUE)
  endif()
endif()
"""


def distribution_version(jemalloc_version):
    return "%s.%d" % (jemalloc_version, PACKAGING_REVISION)


def write(package, options, source, built):
    """Fill the folder `package` with all that is not Python source."""
    lib = _folder(package, "lib")
    include = _folder(package, "include")
    for name, path in built.items():
        if not name.endswith(".h"):
            shutil.copyfile(path, os.path.join(lib, name))
            os.chmod(os.path.join(lib, name), 0o644 if name.endswith(".a") else 0o755)
    shutil.copyfile(built["jemalloc.h"], os.path.join(_folder(include, "jemalloc"), "jemalloc.h"))
    shutil.copyfile(
        os.path.join(recipe.OVERLAY, "jemalloc_sys.h"), os.path.join(include, "jemalloc_sys.h")
    )
    shutil.copyfile(os.path.join(source.tree, "COPYING"), os.path.join(package, "COPYING.jemalloc"))
    facts = {
        "jemalloc": source.full_version,
        "source_sha256": source.sha256,
        "target": options.host or options.target,
        "compiler": options.compiler,
        "lg_page": options.lg_page,
        "malloc_conf": options.malloc_conf,
        "profiling": options.profiling,
        "stats": options.stats,
        "debug": options.debug,
        "tls_cache": options.tls_cache,
        "tcache_limit_raised": recipe.raises_tcache_limit(options, source),
        "configure": {n: recipe.configure_arguments(n, options, source) for n in recipe.TARGETS},
    }
    _texts(package, distribution_version(source.version), facts)


def write_prebuilt(package, options):
    """The same from libraries that were built before: JEMALLOC_SYS_LIBRARY.

    It names a private library; libraries beside it with the names we use, and
    headers in ../include, come along.
    """
    with open(options.library, "rb") as file:
        content = file.read()
    for symbol in (b"\0je_malloc\0", b"\0je_sys_abi\0"):
        if symbol not in content:
            raise BuildError(
                "JEMALLOC_SYS_LIBRARY: {} has no {}".format(
                    options.library, symbol.decode().strip("\0")
                )
            )
    lib, include = _folder(package, "lib"), _folder(package, "include")
    shutil.copyfile(options.library, os.path.join(lib, "libjemalloc_private.so"))
    beside = os.path.dirname(os.path.abspath(options.library))
    for name in ("libjemalloc_boot.so", "libjemalloc.so.2", "libjemalloc_pic.a"):
        if os.path.isfile(os.path.join(beside, name)):
            shutil.copyfile(os.path.join(beside, name), os.path.join(lib, name))
    for name in ("jemalloc/jemalloc.h", "jemalloc_sys.h"):
        header = os.path.join(beside, "..", "include", name)
        if os.path.isfile(header):
            _folder(include, os.path.dirname(name))
            shutil.copyfile(header, os.path.join(include, name))
    shutil.copyfile(
        os.path.join(recipe.HERE, "LICENSE.jemalloc"), os.path.join(package, "COPYING.jemalloc")
    )
    version = prebuilt_version(options)
    _texts(package, distribution_version(version), {"jemalloc": version, "prebuilt": True})


def prebuilt_version(options):
    """JEMALLOC_SYS_VERSION, else the version string inside the library."""
    if options.version:
        return options.version
    try:
        with open(options.library, "rb") as file:
            found = re.search(rb"\0(\d+\.\d+\.\d+)-\d+-g[0-9a-f]+\0", file.read())
    except OSError as error:
        raise BuildError(f"JEMALLOC_SYS_LIBRARY: {error}") from None
    if not found:
        raise BuildError("JEMALLOC_SYS_LIBRARY does not say its version; set JEMALLOC_SYS_VERSION")
    return found[1].decode()


def write_sbom(package, dist_info):
    """CycloneDX in the wheel's metadata (PEP 770): which jemalloc is in here.

    Without a time or a serial number: the same build gives the same file.
    """
    with open(os.path.join(package, "build_info.json"), encoding="utf-8") as file:
        info = json.load(file)
    jemalloc = info["jemalloc"].split("-")[0]
    component = {
        "type": "library",
        "bom-ref": "jemalloc",
        "name": "jemalloc",
        "version": jemalloc,
        "cpe": f"cpe:2.3:a:jemalloc:jemalloc:{jemalloc}:*:*:*:*:*:*:*",
        "purl": f"pkg:github/jemalloc/jemalloc@{jemalloc}",
        "licenses": [{"license": {"id": "BSD-2-Clause"}}],
        "properties": [{"name": "jemalloc-sys:full-version", "value": info["jemalloc"]}],
    }
    checksum = info.get("source_sha256", "")
    if checksum:  # of the tarball it was compiled from; a prebuilt library has none
        component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": "jemalloc-sys",
                "name": "jemalloc-sys",
                "version": info["version"],
                "purl": "pkg:pypi/jemalloc-sys@" + info["version"],
            }
        },
        "components": [component],
        "dependencies": [{"ref": "jemalloc-sys", "dependsOn": ["jemalloc"]}],
    }
    path = os.path.join(_folder(dist_info, "sboms"), "jemalloc.cdx.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=2, sort_keys=True)
        file.write("\n")


def _texts(package, version, facts):
    fields = {"version": version}
    facts = dict(facts, version=version)
    texts = {
        "lib/pkgconfig/jemalloc-sys.pc": PKG_CONFIG % fields,
        "lib/cmake/jemalloc-sys/jemalloc-sys-config.cmake": CMAKE % fields,
        "lib/cmake/jemalloc-sys/jemalloc-sys-config-version.cmake": CMAKE_VERSION % fields,
        "build_info.json": json.dumps(facts, indent=2, sort_keys=True) + "\n",
        "_version.py": f"version = {version!r}\n",
    }
    for name, text in texts.items():
        path = os.path.join(package, name)
        _folder(package, os.path.dirname(name))
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    say(f"the package is in {package}")


def _folder(*parts):
    path = os.path.join(*parts)
    os.makedirs(path, exist_ok=True)
    return path
