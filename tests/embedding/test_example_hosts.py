"""The three example hosts: every byte of the guest is theirs, and none after the end."""

import os
import re
import subprocess

import pytest
from launching import Missing, compiler, module, program, shared_library
from test_examples import EXAMPLES

pytestmark = [pytest.mark.needs_core, pytest.mark.needs_cc]


def build_and_run(kit, name):
    """What the example's one command prints."""
    try:
        compiler(), shared_library(), program("make")
        if name == "host_cpp":
            module("pybind11")
        if name == "host_rust":
            program("rustc")
    except Missing as error:
        pytest.fail(str(error), pytrace=False)
    done = subprocess.run(
        ["make", "-C", EXAMPLES / name, "run", f"PYTHON={kit.python}", f"BUILD={kit.path(name)}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=kit.environ(HOME=os.environ.get("HOME", "/")),  # toolchains live there
    )
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "BAD" not in done.stdout and "Warning" not in done.stderr, done.stdout + done.stderr
    return done.stdout


def test_c_with_a_pool(kit):
    """Registered before Py_Initialize, counted, install() forbidden."""
    output = build_and_run(kit, "host_c")
    assert "guest: allocator pool, rule host, origin host" in output
    assert "guest: 2063 of 2063 blocks are in the pool" in output
    assert re.search(r"host: at the guest's peak +2063 blocks, +65\.91 MiB held", output)
    assert "guest: install() did nothing: the host forbids it" in output
    assert re.search(r"host: after finalization +0 blocks, +0\.00 MiB held, +65\.91", output)


@pytest.mark.needs_pybind11
def test_cpp_with_pmr(kit):
    """Registered while the interpreter runs; the table must be told sizes."""
    output = build_and_run(kit, "host_cpp")
    assert "guest: allocator pmr, rule host, origin host" in output
    assert re.search("guest: refused: 0x[0-9a-f]+ is not a raw address of pmr", output)
    given, asked = re.search(r"allocated (\d+) bytes, the host gave (\d+)", output).groups()
    assert int(asked) >= int(given) > 30_000_000
    assert re.search(r"host: after finalization +0\.00 MiB held, +3[2-9]\.", output)


@pytest.mark.needs_rust
def test_rust(kit):
    """Registered by the address alone."""
    output = build_and_run(kit, "host_rust")
    assert "guest: allocator rust, rule host, origin host" in output
    assert re.search(r"host: after the guest +2999 blocks, +4498500 bytes held", output)
    assert re.search(r"host: after finalization +0 blocks, +0 bytes held, +[1-9]", output)
