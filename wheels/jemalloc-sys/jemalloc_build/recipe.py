"""Configure, compile and link the libraries.

Three builds of jemalloc, each in a folder named by all that determines it, so
that a second run with the same source, options and compiler reuses it:

private  prefix je_, for dlopen: no initial-exec TLS of its own, our tsd_tls.h
         and tcache_types.h first on the include path, no sbrk (it would leave
         the range); linked with the C files of native/, what programs use
         in one place (native/warm.ld)
static   prefix je_, plain: the pic archive for linking into other things
preload  no prefix, ordinary: for LD_PRELOAD
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess

from . import BuildError, say

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NATIVE = os.path.join(HERE, "native")
OVERLAY = os.path.join(NATIVE, "include")
TCACHE = os.path.join(NATIVE, "tcache")
TSD_HEADER = os.path.join(OVERLAY, "jemalloc", "internal", "tsd_tls.h")
COLD = os.path.join(NATIVE, "cold.mk")
WARM = os.path.join(NATIVE, "warm.ld")
LEAVES = os.path.join(NATIVE, "leaves.h")
ADVISE = os.path.join(NATIVE, "advise.h")
TCACHE_HEADER = os.path.join(TCACHE, "jemalloc", "internal", "tcache_types.h")
LIBS = ["-lm", "-lpthread", "-ldl"]
# What needs fast paths in headers, and what of jemalloc's it comes before.
INLINED = [
    "advise.o", "domains.o", "fill.o", "flush.o", "large.o", "leaves.o", "prefault.o", "slabs.o",
]  # fmt: skip
WRAPPED = [
    "arena_ptr_array_flush",
    "bin_slab_reg_alloc_batch",
    "ecache_alloc_grow",
    "pages_purge_process_madvise",
]

TARGETS = {
    "private": "lib/libjemalloc_pic.a",
    "static": "lib/libjemalloc_pic.a",
    "preload": "lib/libjemalloc.so.2",
}


def build(options, source, build_dir):
    """Build everything; {file name: path} of the four libraries and the header."""
    os.makedirs(build_dir, exist_ok=True)
    with _locked(build_dir):
        folders = {name: _compile(name, options, source, build_dir) for name in TARGETS}
        raised = raises_tcache_limit(options, source)
        linked = _link(options, source, folders["private"], build_dir, raised)
        return {
            "libjemalloc_private.so": os.path.join(linked, "libjemalloc_private.so"),
            "libjemalloc_boot.so": os.path.join(linked, "libjemalloc_boot.so"),
            "libjemalloc.so.2": _stripped(options, folders["preload"]),
            "libjemalloc_pic.a": os.path.join(folders["static"], TARGETS["static"]),
            "jemalloc.h": os.path.join(folders["static"], "include", "jemalloc", "jemalloc.h"),
        }


def configure_arguments(name, options, source):
    """The arguments of `configure` for one of the three builds, free of paths."""
    arguments = [
        "--disable-cxx",
        "--enable-static",
        "--with-lg-page=%d" % options.lg_page,
        "--with-lg-hugepage=%d" % options.lg_hugepage,
        "--with-version=" + source.full_version,
    ]
    if options.lg_vaddr:
        arguments.append("--with-lg-vaddr=%d" % options.lg_vaddr)
    if options.host:
        arguments.append("--host=" + options.host)
    if options.profiling:
        arguments.append("--enable-prof")
    if not options.stats:
        arguments.append("--disable-stats")
    if options.debug:
        arguments.append("--enable-debug")
    if name != "preload":
        arguments += ["--with-jemalloc-prefix=je_", "--disable-initial-exec-tls"]
    if name == "private":
        arguments.append("--disable-dss")
        # native/advise.c; the number is not the same on every machine.
        if options.target.startswith(("x86_64-", "aarch64-")) and "linux" in options.target:
            arguments.append("--with-experimental-sys-process-madvise=440")
        if options.malloc_conf:
            arguments.append("--with-malloc-conf=" + options.malloc_conf)
    return arguments


def raises_tcache_limit(options, source):
    """Whether this is a jemalloc that caches no more than eight pages.

    Not with its assertions, one of which says just that.
    """
    with open(
        os.path.join(source.tree, "include", "jemalloc", "internal", "sc.h"), encoding="utf-8"
    ) as file:
        return "LG_USIZE_GROW_SLOW_THRESHOLD" in file.read() and not options.debug


def has_inline_paths(source):
    """Whether this jemalloc has the fast paths of malloc and free in its headers."""
    internal = os.path.join(source.tree, "include", "jemalloc", "internal")
    with open(os.path.join(internal, "jemalloc_internal_inlines_c.h"), encoding="utf-8") as file:
        text = file.read()
    return "imalloc_fastpath(" in text and "\nfree_fastpath(" in text


def _overlays(name, options, source):
    """(folder, header) of each of our headers that stands over one of jemalloc's."""
    overlays = []
    if name == "private" and options.tls_cache:
        overlays.append((OVERLAY, TSD_HEADER))
    if name == "private" and raises_tcache_limit(options, source):
        overlays.append((TCACHE, TCACHE_HEADER))
    return overlays


def _compile(name, options, source, build_dir):
    """The folder of a finished build of jemalloc."""
    arguments = configure_arguments(name, options, source)
    overlays = _overlays(name, options, source)
    cold = [] if options.debug else [COLD]
    sections = " -ffunction-sections" if name == "private" else ""
    variables = {
        "CC": " ".join(options.cc),
        # EXTRA_CFLAGS come last: configure adds -g3, and the archive would be 41 MB.
        "EXTRA_CFLAGS": f"-g0 -ffile-prefix-map={source.tree}=.{sections}",
        "CFLAGS": " ".join(["-O3"] + options.cflags) if options.cflags else "",
        "CPPFLAGS": " ".join("-I" + folder for folder, _ in overlays),
        "LDFLAGS": " ".join(options.ldflags),
        "AR": " ".join(options.ar),
        "NM": " ".join(options.nm),
    }
    key = _key(
        [
            name,
            source.sha256,
            options.target,
            options.compiler,
            arguments,
            sorted(variables.items()),
        ],
        [header for _, header in overlays] + cold,
    )
    folder = os.path.join(build_dir, f"{name}-{key}")
    stamp = os.path.join(folder, "finished")
    if os.path.isfile(stamp):
        say(f"reusing ({name})")
        return folder
    os.makedirs(folder, exist_ok=True)
    log = os.path.join(folder, "build.log")
    if not os.path.isfile(os.path.join(folder, "configured")):
        say(f"configure ({name}) ...")
        environ = {k: v for k, v in os.environ.items() if k not in variables}
        environ.update((k, v) for k, v in variables.items() if v)
        _logged([os.path.join(source.tree, "configure")] + arguments, folder, log, environ)
        _touch(os.path.join(folder, "configured"))
    say("compile (%s, %d jobs) ..." % (name, options.jobs))
    # Of a make around us, take neither the flags nor its job server.
    environ = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    files = [word for file in ["Makefile", *cold] for word in ("-f", file)]
    _logged(["make", "-j%d" % options.jobs, *files, TARGETS[name]], folder, log, environ)
    _touch(stamp)
    return folder


def _internal(options, source, private, folder, log):
    """Compile what uses jemalloc's own headers: slots.c, and the others where it can."""
    command = options.cc + ["-std=gnu11", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-Wall"]
    command += ["-ffunction-sections"] + options.cflags
    command += ["-I" + f for f, _ in _overlays("private", options, source)]
    if has_inline_paths(source):
        command += ["-DJE_SLOTS_TSD_CACHE=1"] if options.tls_cache else []
        command += ["-DJE_SLOTS_INLINE=1", "-D_GNU_SOURCE", "-D_REENTRANT", "-Wno-unused-function"]
        command += [f"-ffile-prefix-map={source.tree}=."]
        command += ["-I" + os.path.join(root, "include") for root in (private, source.tree)]
    command += ["-I" + OVERLAY, "-c"]
    objects = ["slots.o", *(INLINED if has_inline_paths(source) else [])]
    for name in objects:
        file = os.path.join(NATIVE, name[:-1] + "c")
        _logged(command + [file, "-o", name], folder, log)
    return objects


def _order(options, folder):
    """Flags that put what programs use in one place, where the linker can."""
    place = options.warm_place()
    if place is None:
        return []
    script = os.path.join(folder, "warm.ld")
    with open(WARM, encoding="utf-8") as file:
        text = file.read()
    with open(script, "w", encoding="utf-8") as file:
        file.write(text.replace("INSERT BEFORE", "INSERT " + place))
    return ["-Wl,-T," + script]


def _link(options, source, private, build_dir, raised):
    """The folder with the private and the boot library."""
    natives = [os.path.join(NATIVE, n) for n in ("range.c", "boot.c", "private.map", "boot.map")]
    natives += [os.path.join(NATIVE, n) for n in ("slots.c", "zero.c")]
    natives += [os.path.join(NATIVE, name[:-1] + "c") for name in INLINED]
    natives += [WARM, LEAVES, ADVISE]
    natives.append(os.path.join(OVERLAY, "jemalloc_sys.h"))
    key = _key(
        [os.path.basename(private), options.tls_cache, options.strip],
        natives + [os.path.abspath(__file__)],
    )
    folder = os.path.join(build_dir, "link-" + key)
    if os.path.isfile(os.path.join(folder, "finished")):
        say("reusing (link)")
        return folder
    say("link (private, boot) ...")
    os.makedirs(folder, exist_ok=True)
    log = os.path.join(folder, "build.log")
    compiler = options.cc + ["-O2", "-g0", "-fPIC", "-Wall", "-Wextra"] + options.cflags
    compiler += ["-I" + OVERLAY, "-shared", "-Wl,-z,nodelete", "-Wl,-z,relro", "-Wl,-z,now"]
    compiler += options.ldflags
    boot = ["-DJE_BOOT_TSD=1"] if options.tls_cache else []
    boot += ["-Wl,--version-script=" + natives[3], "-Wl,-soname,libjemalloc_boot.so"]
    _logged(compiler + boot + [natives[1], "-o", "libjemalloc_boot.so"], folder, log)
    compiler += ["-ffunction-sections", "-Wl,--gc-sections"]
    compiler += _order(options, folder)
    compiler += ["-DJE_TCACHE_LIMIT_RAISED=1"] if raised else []
    compiler += ["-DJE_LEAVES=1"] if has_inline_paths(source) else []
    internal = _internal(options, source, private, folder, log)
    # -Bsymbolic: a host may export a je_malloc of its own.
    flags = [
        "-Wl,--wrap=mmap,--wrap=munmap,--wrap=sbrk,--wrap=pthread_self",
        "-Wl,--wrap=je_ehooks_default_zero_impl",
        *(f"-Wl,--wrap=je_{name}" for name in (WRAPPED if has_inline_paths(source) else [])),
        "-Wl,-Bsymbolic",
        "-Wl,-z,defs",
        "-Wl,--version-script=" + natives[2],
        "-Wl,-soname,libjemalloc_private.so",
        "-Wl,--enable-new-dtags",
        "-Wl,-rpath,$ORIGIN",
        "-Wl,--no-as-needed",
    ]
    archive = os.path.join(private, TARGETS["private"])
    _logged(
        compiler
        + ["-DJE_LG_PAGE=%d" % options.lg_page]
        + flags
        # range.c last, so that its second constructor follows jemalloc's.
        + [
            "-Wl,--whole-archive",
            archive,
            "-Wl,--no-whole-archive",
            *internal,
            os.path.join(NATIVE, "zero.c"),
            natives[0],
            "libjemalloc_boot.so",
            "-Wl,--as-needed",
        ]
        + LIBS
        + ["-o", "libjemalloc_private.so"],
        folder,
        log,
    )
    for name in ("libjemalloc_private.so", "libjemalloc_boot.so"):
        _logged(options.strip + ["--strip-all", name], folder, log)
    _touch(os.path.join(folder, "finished"))
    return folder


def _stripped(options, folder):
    path = os.path.join(folder, TARGETS["preload"])
    target = os.path.join(folder, "stripped.so")
    if not os.path.isfile(target):
        shutil.copyfile(path, target + ".part")
        _logged(
            options.strip + ["--strip-unneeded", target + ".part"],
            folder,
            os.path.join(folder, "build.log"),
        )
        os.replace(target + ".part", target)
    return target


def _key(values, files):
    digest = hashlib.sha256(repr(values).encode())
    for path in files:
        with open(path, "rb") as file:
            digest.update(hashlib.sha256(file.read()).digest())
    return digest.hexdigest()[:12]


def _touch(path):
    with open(path, "w"):
        pass


def _logged(command, folder, log, environ=None):
    """Run with the output in `log`; on failure its tail is the error."""
    with open(log, "a", encoding="utf-8") as file:
        file.write("$ {}\n".format(" ".join(command)))
        file.flush()
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise BuildError(f"{command[0]} does not run: {error}") from None
    if done.returncode:
        with open(log, encoding="utf-8", errors="replace") as file:
            tail = "".join(file.readlines()[-25:])
        raise BuildError(
            "%s ends with %d; the end of %s:\n%s"
            % (os.path.basename(command[0]), done.returncode, log, tail)
        )


@contextlib.contextmanager
def _locked(build_dir):
    """One build at a time in a folder; the lock goes with the process."""
    with open(os.path.join(build_dir, "lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("waiting for another build in this folder ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
