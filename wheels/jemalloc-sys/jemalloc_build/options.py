"""What the environment asks for.  A name or value we do not know is an error."""

import os
import re
import shlex
import shutil
import subprocess

from . import BuildError

# No background thread: a guest must not be given one.  slab_sizes and
# lg_extent_max_active_fit belong together (buffers of 513-4096 bytes).  The
# caches serve up to 1 MiB, but keep at most 4 large blocks of a size and are
# looked through once in 4 MiB: idle threads then pin less memory.
DEFAULT_CONF = (
    "dirty_decay_ms:500,muzzy_decay_ms:0,slab_sizes:513-4096:16,"
    "lg_extent_max_active_fit:20,tcache_max:1048576,tcache_nslots_large:4,"
    "tcache_gc_incr_bytes:4194304"
)

PREFIX = "JEMALLOC_SYS_"
NAMES = {
    "SOURCE",
    "SOURCE_SHA256",
    "LIBRARY",
    "VERSION",
    "BUILD_DIR",
    "JOBS",
    "HOST",
    "WITH_LG_PAGE",
    "WITH_LG_HUGEPAGE",
    "WITH_LG_VADDR",
    "WITH_MALLOC_CONF",
    "PROFILING",
    "STATS",
    "DEBUG",
    "TLS_CACHE",
    "RANGE",  # for running, not for building
}


class Options:
    """Validated options and the compiler they are for."""

    def __init__(self, environ=os.environ):
        self._environ = environ
        unknown = sorted(
            name for name in environ if name.startswith(PREFIX) and name[len(PREFIX) :] not in NAMES
        )
        if unknown:
            raise BuildError(
                "{}: no such option; there are {}".format(
                    ", ".join(unknown), ", ".join(PREFIX + n for n in sorted(NAMES))
                )
            )
        self.host = self._text("HOST")
        self.library = self._text("LIBRARY")
        self.version = self._match("VERSION", r"\d+\.\d+\.\d+")
        self.build_dir = self._text("BUILD_DIR")
        self.jobs = self._number("JOBS", 1, 1024) or os.cpu_count() or 1
        self.malloc_conf = self._match("WITH_MALLOC_CONF", r"[\w:,.|-]*", DEFAULT_CONF)
        self.profiling = self._switch("PROFILING", False)
        self.stats = self._switch("STATS", True)
        self.debug = self._switch("DEBUG", False)
        self._tls_cache = self._switch("TLS_CACHE", None)
        self.lg_page = self._number("WITH_LG_PAGE", 12, 24)
        self.lg_hugepage = self._number("WITH_LG_HUGEPAGE", 16, 34)
        self.lg_vaddr = self._number("WITH_LG_VADDR", 32, 64)
        self.cflags = shlex.split(environ.get("CFLAGS", ""))
        self.ldflags = shlex.split(environ.get("LDFLAGS", ""))

    def _text(self, name):
        return self._environ.get(PREFIX + name, "").strip()

    def _match(self, name, pattern, default=""):
        value = self._environ.get(PREFIX + name)
        if value is None or not value.strip():
            return default
        if not re.fullmatch(pattern, value.strip()):
            raise BuildError(f"{PREFIX}{name}={value}: it must match {pattern}")
        return value.strip()

    def _number(self, name, least, most):
        text = self._text(name)
        if not text:
            return None
        if not text.isdigit() or not least <= int(text) <= most:
            raise BuildError(
                "%s%s=%s: it must be a number from %d to %d" % (PREFIX, name, text, least, most)
            )
        return int(text)

    def _switch(self, name, default):
        text = self._text(name)
        if text in ("", "auto"):
            return default
        if text not in ("0", "1"):
            raise BuildError(f"{PREFIX}{name}={text}: it must be 0 or 1")
        return text == "1"

    def find_compiler(self):
        """Set what depends on the target.  Costs a run of the compiler."""
        self.cc = self._tool("CC", ["gcc", "cc", "clang"])
        self.target = _run(self.cc + self.cflags + ["-dumpmachine"]).strip()
        self.compiler = _run(self.cc + ["--version"]).splitlines()[0].strip()
        self.glibc = "yes" in _run(
            self.cc + self.cflags + ["-E", "-P", "-"],
            "#include <limits.h>\n#ifdef __GLIBC__\nyes\n#endif\n",
        )
        machine = (self.host or self.target).split("-")[0]
        arm64 = machine in ("aarch64", "arm64")
        if self.lg_page is None:  # 16 serves kernels with 4, 16 and 64 KiB pages
            self.lg_page = 16 if arm64 or machine.startswith("ppc64") else 12
        if self.lg_hugepage is None:
            self.lg_hugepage = 21
        if self.lg_vaddr is None and (arm64 or machine in ("x86_64", "amd64")):
            self.lg_vaddr = 48  # else configure asks the building machine's CPU
        if self._tls_cache and not self.glibc:
            raise BuildError("JEMALLOC_SYS_TLS_CACHE=1: only glibc lets a dlopened library have it")
        self.tls_cache = self.glibc if self._tls_cache is None else self._tls_cache
        self.ar = self._tool("AR", ["ar"])
        self.strip = self._tool("STRIP", ["strip"])
        self.nm = self._tool("NM", ["nm"])

    def warm_place(self):
        """Where native/warm.ld's section goes: to the side of .text on which .plt lies.

        None: a linker that does not add a script with INSERT to its own.
        """
        try:
            said = _run(self.cc + self.ldflags + ["-Wl,--version"])
        except BuildError:
            return None
        if re.match(r"GNU ld\b", said):
            return "BEFORE"
        return "AFTER" if re.match(r"zig ld\b|.*\bLLD\b", said) else None

    def _tool(self, variable, names):
        named = shlex.split(self._environ.get(variable, ""))
        if named:
            return named
        prefixes = [self.host + "-"] if self.host else [""]
        for name in (p + n for p in prefixes for n in names):
            if shutil.which(name):
                return [name]
        raise BuildError("no {} found: install one, or set {}".format(" or ".join(names), variable))


def _run(command, text=None):
    try:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BuildError(f"{command[0]} does not run: {error}") from None
    if done.returncode:
        raise BuildError("{} fails: {}".format(" ".join(command), done.stderr.strip()))
    return done.stdout
