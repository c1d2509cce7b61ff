"""A host, told to be standalone, that starts and ends the interpreter again and again."""

import os
import subprocess
import sys
import sysconfig

import pytest

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_jemalloc, pytest.mark.needs_cc]

HOST = r"""
#include <Python.h>
int main(int argc, char **argv) {
    int i;
    for (i = 0; i < atoi(argv[1]); i++) {
        Py_Initialize();
        if (PyRun_SimpleString(argv[2])) return 3;
        if (Py_FinalizeEx() < 0) return 4;
    }
    puts("ended");
    return 0;
}
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    directory = tmp_path_factory.mktemp("host")
    source, program = directory / "host.c", directory / "host"
    source.write_text(HOST)
    library = sysconfig.get_config_var("LIBDIR")
    version = sysconfig.get_config_var("LDVERSION")
    subprocess.run(
        ["cc", source, "-o", program, f"-I{sysconfig.get_paths()['include']}", f"-L{library}",
         f"-lpython{version}", f"-Wl,-rpath,{library}"],
        check=True,
    )  # fmt: skip
    return program


def start(host, times, code, **env):
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [host, str(times), code],
        env={**os.environ, "PYTHONPATH": paths, "PYTHONHOME": sys.base_prefix, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout.strip(), done.stderr


PROGRAM = """
import alloc
done = alloc.install({mode!r}, numpy=False)
kept = [str(i) * 7 for i in range(30_000)]
big = [bytearray(n) for n in range(0, 5000, 3)]
assert bool(done) is {wanted} and (not done or not done.refused), done
"""


def test_a_host_is_left_alone(host):
    code = PROGRAM.format(mode="full", wanted=False)
    assert start(host, 3, code) == (0, "ended", "")


@pytest.mark.parametrize("mode", ["arenas", "hybrid", "full"])
def test_five_interpreters_one_after_the_other(host, mode):
    code = PROGRAM.format(mode=mode, wanted=True)
    status, out, err = start(host, 5, code, ALLOC_EMBEDDING="standalone")
    assert (status, out) == (0, "ended"), err
