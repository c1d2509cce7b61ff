"""The checks of C tables: a compiled good one passes, and each broken one is named."""

import ctypes
import os
import pathlib
import subprocess
import sysconfig

import pytest

import alloc
from alloc.testing import TableError, check_table
from alloc.testing.table import ABI, CAPABILITIES, CAPSULE, TableStruct

pytestmark = [pytest.mark.needs_cc, pytest.mark.needs_cpython]

HERE = pathlib.Path(__file__).parent / "kit"

FAULTS = {
    "overlap": {"overlap", "usable size"},
    "misaligned": {"alignment"},
    "loses_tail": {"contents"},
    "moves_less": {"contents"},
    "confuses": {"usable size", "overlap", "contents"},
    "dirty": {"zeroed"},
    "twice": {"overlap", "contents"},
    "small_usable": {"usable size"},
    "large_usable": {"overlap"},
    "changes_on_refusal": {"refusal"},
    "wraps": {"no memory"},
    "owns_all": {"owns"},
    "owns_none": {"owns"},
    "races": {"threads"},
    "frees_first": {"refusal"},
    "scribbles": {"contents"},
    "never_reuses": {"recycling"},
    "other_abi": {"abi"},
    "too_short": {"struct_size"},
    "unknown_flag": {"capabilities"},
    "nameless": {"name"},
    "no_latin": {"name"},
    "null_slots": {"slots"},
}


def compile_c(source, target, *flags):
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    command = [*compiler.split(), "-O1", "-g0", *flags, f"-I{alloc.get_include()}", str(source)]
    subprocess.run([*command, "-o", str(target), "-pthread"], check=True)
    return target


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    target = tmp_path_factory.mktemp("tables") / "tables.so"
    return ctypes.CDLL(str(compile_c(HERE / "tables.c", target, "-shared", "-fPIC")))


def capsule(library, name, label=CAPSULE):
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = (
        ctypes.py_object,
        [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
    )
    return new(ctypes.addressof(TableStruct.in_dll(library, name)), label, None)


@pytest.mark.parametrize("name", ["good", "sized_only", "longer"])
def test_a_good_table_passes(tables, name):
    check_table(capsule(tables, name))


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_table_is_named(tables, name):
    with pytest.raises(TableError) as caught:
        check_table(capsule(tables, name))
    assert caught.value.rule in FAULTS[name], str(caught.value)


def test_null_slots_are_listed(tables):
    with pytest.raises(TableError, match="alloc_zeroed, realloc"):
        check_table(capsule(tables, "null_slots"))


def test_another_capsule(tables):
    label = b"another"
    with pytest.raises(TableError, match="another"):
        check_table(capsule(tables, "good", label))


@pytest.mark.parametrize("wrong", [None, 5, "alloc.table"])
def test_no_capsule(wrong):
    with pytest.raises(TypeError):
        check_table(wrong)


def test_the_mirror_is_the_header(tmp_path):
    """The ctypes structure against the offsets that a compiler gives the header."""
    program = compile_c(HERE / "offsets.c", tmp_path / "offsets")
    printed = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    found = {name: (int(a), int(b)) for name, a, b in map(str.split, printed.splitlines())}
    expected = {
        name: (getattr(TableStruct, name).offset, getattr(TableStruct, name).size)
        for name, _ in TableStruct._fields_
    }
    expected["sizeof"] = ctypes.sizeof(TableStruct), 0
    expected["ABI"] = ABI, 0
    expected.update({f"CAP_{name.upper()}": (flag, 0) for name, flag in CAPABILITIES.items()})
    assert found == expected
