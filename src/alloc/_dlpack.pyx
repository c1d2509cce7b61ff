# cython: language_level=3, binding=False, autotestdict=False, freethreading_compatible=True
"""DLPack export of blocks; loaded when somebody first asks for it."""

from alloc._again cimport Py_AtExit, forget_module

Py_AtExit(forget_module)

cdef extern from "_c/dlpack.h":
    int ALLOC_DL_CPU
    object dl_capsule "alloc_dl_capsule"(object block, int versioned)

DEVICE = (ALLOC_DL_CPU, 0)


def export(block, stream=None, max_version=None, dl_device=None, copy=None):
    """A DLPack capsule that holds an exported buffer of ``block``: a vector of bytes.

    Raises ``BufferError`` for another device, and for a copy.
    """
    if stream is not None:
        raise BufferError("the CPU has no streams")
    if dl_device is not None and tuple(dl_device) != DEVICE:
        raise BufferError(f"a block is in the CPU's memory, not on device {dl_device}")
    if copy:
        raise BufferError("a block is exported as it is: copy the consumer's array")
    return dl_capsule(block, max_version is not None and max_version[0] >= 1)
