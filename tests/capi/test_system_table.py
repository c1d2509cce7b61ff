"""The table that C callers get as the system's."""

import ctypes

import pytest

import alloc


class Api(ctypes.Structure):
    """The beginning of ``alloc_api``, see alloc_api.h."""

    _fields_ = (
        ("numbers", ctypes.c_uint32 * 4),
        ("globally", ctypes.c_void_p),
        ("system", ctypes.c_void_p),
    )


class Table(ctypes.Structure):
    """``alloc_table``, see alloc.h."""

    _fields_ = (
        ("numbers", ctypes.c_uint32 * 2),
        ("capabilities", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("ctx", ctypes.c_void_p),
        ("slots", ctypes.c_void_p * 6),
        ("owns", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)),
    )


@pytest.mark.needs_core
@pytest.mark.needs_jemalloc
def test_it_does_not_claim_jemallocs_memory():
    from alloc._capi import _C_API

    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    api = Api.from_address(pointer(_C_API, b"alloc._C_API"))
    table = Table.from_address(api.system)
    assert table.name == b"system"
    with alloc.Jemalloc().allocate(100) as ours, alloc.System().allocate(100) as theirs:
        assert table.owns(table.ctx, theirs.address)
        assert not table.owns(table.ctx, ours.address)
