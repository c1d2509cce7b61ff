# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
# cython: autotestdict=False, freethreading_compatible=True
"""Facts of this process that only C can find out.

No side effects, no state, and independent of the core: it answers where the core
cannot load.  All functions need the GIL and may be called from any thread.
"""

from libc.stdint cimport uintptr_t

from alloc._again cimport Py_AtExit, forget_module

Py_AtExit(forget_module)

cdef extern from "_c/probe.h":
    ctypedef struct stack_facts "alloc_stack_facts":
        int verdict
        long depth
        char symbol[32]
        char detail[64]
    void stack_scan "alloc_stack_scan"(stack_facts *out)
    void c_main_image "alloc_main_image"(char *path, size_t room)
    void c_malloc_provider "alloc_malloc_provider"(char *file, size_t room, const char **allocator)
    int c_python_is_shared "alloc_python_is_shared"()
    const void *c_exported_host "alloc_exported_host"()
    int c_glibc_accounts "alloc_glibc_accounts"(size_t *in_use, size_t *mapped)
    int c_glibc_serves "alloc_glibc_serves"()
    int c_glibc_trim "alloc_glibc_trim"() nogil
    int c_glibc_threshold "alloc_glibc_threshold"(int size)


def scan_stack():
    """Look for the interpreter's main on the initial thread's stack.

    Returns verdict (1 found, 0 not there, -1 not known), depth in bytes below the
    stack's end, function, detail.
    """
    cdef stack_facts facts
    stack_scan(&facts)
    return (facts.verdict, facts.depth, (<bytes>facts.symbol).decode(),
            (<bytes>facts.detail).decode())


def main_image():
    """Path of the executable that this process runs, or ``""``."""
    cdef char path[4096]
    c_main_image(path, sizeof(path))
    return (<bytes>path).decode(errors="surrogateescape")


def python_is_shared():
    """Whether CPython is a library of its own (``libpython3.x.so``) in this process."""
    return c_python_is_shared() != 0


def exported_host():
    """Address of the ``alloc_host`` that the process exports by name, or 0."""
    return <uintptr_t>c_exported_host()


def malloc_provider():
    """File that defines malloc, and the allocator known to live there, or ``""``."""
    cdef char file[4096]
    cdef const char *allocator = b""
    c_malloc_provider(file, sizeof(file), &allocator)
    return (<bytes>file).decode(errors="replace"), (<bytes>allocator).decode()


def glibc_accounts():
    """Bytes in live blocks and bytes mapped, by glibc's own accounts; (0, 0) without.

    glibc: ``mallinfo2``, ``uordblks + hblkhd`` and ``arena + hblkhd``.
    """
    cdef size_t in_use = 0, mapped = 0
    c_glibc_accounts(&in_use, &mapped)
    return in_use, mapped


def glibc_serves():
    """1 if a malloc shows in glibc's accounts, 0 if not, -1 if that cannot be told."""
    return c_glibc_serves()


def trim_glibc():
    """Give free pages of glibc's heaps back; whether there were any.

    glibc: ``malloc_trim(0)``.  Runs without the GIL, but blocks each heap in turn.
    """
    cdef int some
    with nogil:
        some = c_glibc_trim()
    return some == 1


def fix_glibc_threshold(int size):
    """Let glibc keep at most ``size`` bytes at the end of a heap, for good; whether it does.

    glibc: ``mallopt(M_TRIM_THRESHOLD)``, which ends the growth of both its thresholds.
    """
    return c_glibc_threshold(size) == 1


def describe_malloc():
    """Who provides malloc in this process; see ``System.provider``."""
    file, allocator = malloc_provider()
    serves = c_glibc_serves()
    name = file.rsplit("/", 1)[-1]  # before 2.33 glibc keeps no account that tells
    if serves == 1 or (serves < 0 and not allocator and name.startswith(("libc.so.6", "libc-2."))):
        return "glibc"
    if allocator:
        return f"{allocator} ({file}) in place of the system's"
    if serves == 0:
        return f"unknown ({file or 'no file'}) in place of glibc's"
    return file or "unknown"
