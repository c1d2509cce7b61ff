"""jemalloc's own tests on the libraries as this package builds them.

    python tests/upstream.py [private|static|preload ...] [--seconds 600]

One line of sums for each library.  A test that crashes or passes its time has
failed, and the others still run.  Some run with one of our options as upstream has
it (UNDONE), some must fail (FAILS): exit status 1 if another one fails, or one of
these passes.  Options and compiler come from the environment, as in a build;
JEMALLOC_TEST_PREFIX runs the programs of a foreign architecture.

static, preload  upstream's `make check`, test by test
private          the unit tests with all of native/ linked in, jemalloc's calls wrapped
                 as in the library, the tests' sent through slots.c and large.c, and slabs
                 walked (routed.c); the integration tests with the library itself
"""

import argparse
import collections
import concurrent.futures
import copy
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, HERE)

from jemalloc_build import recipe
from jemalloc_build.options import Options
from jemalloc_build.source import prepare

ZERO = "jet_ehooks_default_zero_impl"
INLINED = ["jet_" + name for name in recipe.WRAPPED]
WHICH = ("__real_", "__wrap_")
WRAP = f"-Wl,--wrap=mmap,--wrap=munmap,--wrap=sbrk,--wrap=pthread_self,--wrap={ZERO}"
# What range.c and zero.c name, as the unit tests' copy of jemalloc has it; ours_: routed.c.
NAMES = {
    "malloc_conf": "jet_malloc_conf",
    "malloc_conf_2_conf_harder": "jet_malloc_conf_2_conf_harder",
    "malloc": "ours_malloc",
    "free": "ours_free",
}
ROUTED = "-Wl,--wrap=main,--wrap=jet_malloc,--wrap=jet_mallocx,--wrap=jet_realloc"
ROUTED += ",--wrap=jet_free,--wrap=jet_sdallocx"
# The private library's tests that compute with an option as upstream has it: it is set
# so for them.
SLABS = "slab_sizes:513-4096:1"
UNDONE = {
    "test/unit/conf_init_0": "dirty_decay_ms:10000",
    "test/unit/extent_quantize": SLABS,
    "test/unit/hpa_background_thread": SLABS,
    "test/unit/pack": SLABS,
    "test/unit/san": SLABS,
}
FAILS = {
    "private": {"test/unit/malloc_conf_2": "it sets a variable that range.c sets after it"},
    "static": {},
    "preload": {},
}
# `make check` runs the integration tests three times.
DECAY = ["", "dirty_decay_ms:-1,muzzy_decay_ms:-1", "dirty_decay_ms:0,muzzy_decay_ms:0"]
TOGETHER = "dirty_decay_ms:0,muzzy_decay_ms:0,process_madvise_max_batch:64"  # native/advise.c
SUMMARY = re.compile(r"Test suite summary: pass: (\d+)/\d+, skip: (\d+)/\d+, fail: (\d+)/")


def run(command, folder, log, **environ):
    # A make around us would have this one tell of folders, in the list of tests as well.
    environ = {**os.environ, "MAKEFLAGS": "", "MAKELEVEL": "0", **environ}
    with open(log, "a", encoding="utf-8") as file:
        file.write("$ {}\n".format(" ".join(command)))
        file.flush()
        done = subprocess.run(
            command,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    return done.returncode


def must(command, folder, log):
    if run(command, folder, log):
        sys.exit("error: {} fails; see {}".format(" ".join(command), log))


def make(options, *arguments):
    cold = [] if options.debug else ["-f", recipe.COLD]
    return ["make", "-k", "-j%d" % options.jobs, "-f", "Makefile", *cold, *arguments]


def listed(folder, variable):
    """The tests in one of upstream's variables, as paths without an ending."""
    show = f"show:;@echo $({variable}:$(srcroot)%.c=%)"
    command = ["make", "-s", "--eval", show, "show"]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.split()


def units_private(options, source, folder, log):
    """What links our files under the unit tests' copy of jemalloc."""
    compiler = options.cc + ["-O2", "-g0", "-fPIC", "-I" + recipe.OVERLAY] + options.cflags
    compiler += ["-DJE_LG_PAGE=%d" % options.lg_page]
    if recipe.raises_tcache_limit(options, source):
        compiler += ["-DJE_TCACHE_LIMIT_RAISED=1"]
    if recipe.has_inline_paths(source):
        compiler += ["-DJE_LEAVES=1"]
    if options.tls_cache:
        compiler += ["-DJE_BOOT_TSD=1"]

    def wrapped(name):
        return [f"-D{kind}{name.replace('jet_', 'je_')}={kind}{name}" for kind in WHICH]

    names = [f"-Dje_{name}={jet}" for name, jet in NAMES.items()] + wrapped(ZERO)
    paths = [os.path.join(recipe.NATIVE, name) for name in ("range.c", "boot.c", "zero.c")]
    flags = WRAP
    objects = []
    if recipe.has_inline_paths(source):
        paths.append(os.path.join(HERE, "tests", "routed.c"))
        flags += f" {ROUTED}" + "".join(f",--wrap={name}" for name in INLINED)
        must(make(options, "include/jemalloc/internal/private_namespace_jet.h"), folder, log)
        jet = copy.copy(options)
        # slots.c asks jemalloc, not itself again
        jet.cflags = [*options.cflags, "-DJEMALLOC_JET", "-Djet_mallocx=__real_jet_mallocx"]
        jet.cflags += [flag for name in INLINED for flag in wrapped(name)]
        objects += recipe._internal(jet, source, folder, folder, log)
    for path in paths:
        objects.append("ours_" + os.path.basename(path)[:-1] + "o")
        must(compiler + names + ["-c", path, "-o", objects[-1]], folder, log)
    return " ".join([*objects, flags])


def integrate_private(options, source, folder, build_dir):
    """Put the library itself where the integration tests look for it."""
    raised = recipe.raises_tcache_limit(options, source)
    linked = recipe._link(options, source, folder, build_dir, raised)
    lib = os.path.join(folder, "lib")
    for name in ("libjemalloc_private.so", "libjemalloc_boot.so"):
        shutil.copyfile(os.path.join(linked, name), os.path.join(lib, name))
    for name in ("libjemalloc.so.2", "libjemalloc.so"):
        path = os.path.join(lib, name)
        if os.path.lexists(path):
            os.unlink(path)
        shutil.copyfile(os.path.join(lib, "libjemalloc_private.so"), path)
        # make must not link it again
        os.utime(path, (2**31, 2**31))


def one(folder, test, conf, variable, seconds):
    """(test, conf, passed, skipped, failed, output) of one program."""
    environ = dict(os.environ, **{variable: conf})
    command = ["timeout", "-k", "5", str(seconds), "sh", "test/test.sh", test]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    found = SUMMARY.search(done.stdout)
    if done.returncode and not (found and found[3] != "0"):
        return test, conf, 0, 0, 1, f"{done.stdout}ends with {done.returncode}\n"
    return (test, conf, *map(int, found.groups()), done.stdout)


def check(name, options, source, build_dir, seconds, only):
    """Build and run the tests of one library; a Counter of the results."""
    ours = name == "private"
    folder = recipe._compile(name, options, source, build_dir)
    log = os.path.join(folder, "check.log")
    if os.path.exists(log):
        os.unlink(log)
    print(f"{name}: compiling the tests ...", flush=True)
    # What was unit-tested before must not be linked into the library: two steps.
    extra = []
    if ours:
        extra = ["EXTRA_LDFLAGS=" + units_private(options, source, folder, log)]
        for test in listed(folder, "TESTS_UNIT"):  # make does not know of our objects
            if os.path.exists(os.path.join(folder, test)):
                os.unlink(os.path.join(folder, test))
    run(make(options, "tests_unit", *extra), folder, log)
    run(make(options, "build_lib_shared"), folder, log)
    if ours:
        integrate_private(options, source, folder, build_dir)
    run(make(options, "tests_integration"), folder, log)

    undone = UNDONE if ours else {}
    jobs = [(test, undone.get(test, "")) for test in listed(folder, "TESTS_UNIT")]
    confs = [*DECAY, TOGETHER] if ours else DECAY
    jobs += [(t, conf) for conf in confs for t in listed(folder, "TESTS_INTEGRATION")]
    jobs = [(test, conf) for test, conf in jobs if not only or only in test]
    variable = "MALLOC_CONF" if name == "preload" else "JE_MALLOC_CONF"
    total = collections.Counter(passed=0, skipped=0, failed=0, expected=0)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        work = [pool.submit(one, folder, t, conf, variable, seconds) for t, conf in jobs]
        with open(log, "a", encoding="utf-8") as file:
            for test, conf, passed, skipped, failed, output in (w.result() for w in work):
                expected = FAILS[name].get(test)
                if expected and failed:
                    print(f"{name}: {test} fails: {expected}")
                    failed, total["expected"] = 0, total["expected"] + 1
                elif expected:
                    failed, output = 1, output + "it passes, against what FAILS says\n"
                total.update(passed=passed, skipped=skipped, failed=failed)
                file.write(output)
                if failed:
                    print(f"{name}: {test} {conf}".rstrip() + " failed")
                    print(*("    " + line for line in output.splitlines()[-6:]), sep="\n")
    print(
        "{}: {passed} passed, {skipped} skipped, {expected} failed as they must, {failed} failed; {log}".format(
            name, **total, log=log
        ),
        flush=True,
    )
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="library", default=[])
    parser.add_argument("--seconds", type=int, default=600, help="for one test (600)")
    parser.add_argument("--only", default="", help="tests with this in their path")
    arguments = parser.parse_args()
    names = arguments.names or list(FAILS)
    if set(names) - set(FAILS):
        parser.error("there are " + ", ".join(FAILS))

    options = Options()
    options.find_compiler()
    build_dir = os.path.abspath(options.build_dir or os.path.join(HERE, "build", "check"))
    os.makedirs(build_dir, exist_ok=True)
    source = prepare(build_dir, os.path.join(HERE, "source"))
    print(f"jemalloc {source.full_version}, {options.host or options.target}, {options.compiler}")
    failed = 0
    for name in names:
        total = check(name, options, source, build_dir, arguments.seconds, arguments.only)
        failed += total["failed"] + (not total["passed"])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
