"""The ways to have memory from Python that python_costs.py compares: ours, and others'."""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile

from common import Missing

BATCH = 200
"""Blocks that the batch holds before it frees them."""


class Way:
    """An expression that allocates ``n`` bytes, and a statement that frees ``{}``."""

    def __init__(self, key, label, make, expression, release="", calls="", before=None):
        self.key, self.label, self.calls = key, label, calls
        self.make, self.expression, self.release = make, expression, release
        self.before = before or (lambda: None)

    @property
    def pair(self):
        if self.expression.startswith("with "):
            return f"{self.expression}: pass"
        return self.release.format(self.expression) if self.release else self.expression

    def compile(self, names, pattern):
        """A function ``run(number)``; all names are locals, for every way alike."""
        if pattern == "pair":
            body = f"    for _ in repeat(None, number):\n        {self.pair}\n"
        else:
            drop = f"for p in held: {self.release.format('p')}" if self.release else "held.clear()"
            body = (
                "    for _ in repeat(None, number):\n"
                "        held = []\n"
                "        keep = held.append\n"
                f"        for _ in repeat(None, {BATCH}): keep({self.expression})\n"
                f"        {drop}\n"
            )
        inner = ", ".join(f"{name}={name}" for name in names)
        space = dict(names, repeat=itertools.repeat)
        exec(f"def run(number, repeat=repeat, {inner}):\n{body}", space)
        return space["run"]


def module(name):
    try:
        return __import__(name)
    except ImportError:
        raise Missing("not installed") from None


def ours(allocator, *names):
    """Names of the module, with ``allocator`` made global before each sample."""

    def make():
        import alloc

        return {name: getattr(alloc, name) for name in names}

    return make, lambda: global_allocator(allocator)


def global_allocator(name):
    import alloc

    try:
        alloc.set_global_allocator(instance(name), replace=True)
    except alloc.BackendUnavailableError as error:
        raise Missing(str(error).split(" (")[0]) from None


def instance(name):
    import alloc

    try:
        return getattr(alloc, name)()
    except (AttributeError, ImportError):
        raise Missing("not there yet") from None
    except alloc.BackendUnavailableError:
        raise Missing("jemalloc-sys is not installed") from None


def bound(allocator, *names):
    def make():
        one = instance(allocator)
        return {name: getattr(one, name) for name in names}

    return make


def our_ways():
    for backend in ("System", "Jemalloc"):
        make, before = ours(backend, "allocate", "malloc", "free")
        k = backend.lower()
        yield Way(f"{k}-block", f"**alloc.allocate(n)**, dropped, {backend}", make,
                  "allocate(n)", "", "1", before)  # fmt: skip
        yield Way(f"{k}-block-free", f"**alloc.allocate(n).free()**, {backend}", make,
                  "allocate(n)", "{}.free()", "2", before)  # fmt: skip
        yield Way(f"{k}-block-with", f"**with alloc.allocate(n)**, {backend}", make,
                  "with allocate(n)", "", "3", before)  # fmt: skip
        yield Way(f"{k}-bound", f"**{backend}().allocate(n)**, bound, dropped",
                  bound(backend, "allocate"), "allocate(n)", "", "1")  # fmt: skip
        yield Way(f"{k}-raw", f"**alloc.free(alloc.malloc(n))**, {backend}", make,
                  "malloc(n)", "free({})", "2", before)  # fmt: skip
        yield Way(f"{k}-raw-bound", f"**{backend}()** malloc, free, bound",
                  bound(backend, "malloc", "free"), "malloc(n)", "free({})", "2")  # fmt: skip
        yield Way(f"{k}-raw-sized", f"**{backend}()** malloc, free_sized, bound",
                  bound(backend, "malloc", "free_sized"), "malloc(n)", "free_sized({}, n)",
                  "2")  # fmt: skip
    yield Way("arena-block", "**Arena().allocate(n)**, pure Python", bound("Arena", "allocate"),
              "allocate(n)", "{}.free()", "2")  # fmt: skip
    yield Way("arena-raw", "**Arena()** malloc, free, pure Python",
              bound("Arena", "malloc", "free"), "malloc(n)", "free({})", "2")  # fmt: skip


def scoped_ways():
    for backend in ("System", "Jemalloc"):
        make, before = ours(backend, "allocate", "malloc", "free")
        k = backend.lower()
        after = f"{backend}, after `using()`"
        yield Way(f"{k}-scoped-block", f"**alloc.allocate(n)**, dropped, {after}", make,
                  "allocate(n)", "", "1", before)  # fmt: skip
        yield Way(f"{k}-scoped-raw", f"**alloc.free(alloc.malloc(n))**, {after}", make,
                  "malloc(n)", "free({})", "2", before)  # fmt: skip


def ctypes_functions():
    ctypes = module("ctypes")
    libc = ctypes.CDLL(None)
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes, libc.free.restype = [ctypes.c_void_p], None
    return {"malloc": libc.malloc, "free": libc.free}


def cffi_api():
    cffi = module("cffi")
    folder = tempfile.mkdtemp()
    try:
        ffi = cffi.FFI()
        ffi.cdef("void *malloc(size_t); void free(void *);")
        ffi.set_source("_bench_cffi", "#include <stdlib.h>", extra_compile_args=["-O3"])
        ffi.compile(tmpdir=folder)
        sys.path.insert(0, folder)
        lib = __import__("_bench_cffi").lib
        sys.path.remove(folder)
    finally:
        shutil.rmtree(folder)
    return {"malloc": lib.malloc, "free": lib.free}


def cffi_abi():
    ffi = module("cffi").FFI()
    ffi.cdef("void *malloc(size_t); void free(void *);")
    lib = ffi.dlopen(None)
    return {"malloc": lib.malloc, "free": lib.free, "ffi": ffi, "lib": lib}


def pool():
    module("cymem")
    found = module("bench_pool")
    from cymem.cymem import Pool

    return {"pool": Pool(), "alloc": found.pool_alloc, "free": found.pool_free}


def arrow(name):
    def make():
        pa = module("pyarrow")
        try:
            found = getattr(pa, f"{name}_memory_pool")()
        except (AttributeError, NotImplementedError):
            raise Missing("not in this pyarrow") from None
        return {"allocate": pa.allocate_buffer, "pool": found}

    return make


def other_ways():
    yield Way("bytearray", "bytearray(n), zeroed", dict, "bytearray(n)", "", "1")
    yield Way("bytes", "bytes(n), zeroed", dict, "bytes(n)", "", "1")
    yield Way("numpy", "numpy.empty(n, uint8)", lambda: {
        "empty": module("numpy").empty, "uint8": module("numpy").dtype("uint8")},
        "empty(n, uint8)", "", "1")  # fmt: skip
    yield Way("ctypes", "ctypes malloc, free", ctypes_functions, "malloc(n)", "free({})", "2")
    yield Way("ctypes-buffer", "ctypes.create_string_buffer(n), zeroed",
              lambda: {"create": module("ctypes").create_string_buffer}, "create(n)", "",
              "1")  # fmt: skip
    yield Way("cffi-api", "cffi API malloc, free", cffi_api, "malloc(n)", "free({})", "2")
    yield Way("cffi-abi", "cffi ABI malloc, free", cffi_abi, "malloc(n)", "free({})", "2")
    yield Way("cffi-new", "ffi.new('char[]', n), zeroed", lambda: {
        "new": module("cffi").FFI().new}, "new('char[]', n)", "", "1")  # fmt: skip
    yield Way("cymem-address", "cymem.Address(n, 1), zeroed",
              lambda: (module("cymem"), {"Address": module("cymem.cymem").cymem.Address})[1],
              "Address(n, 1)", "", "1")  # fmt: skip
    yield Way("cymem-pool", "cymem.Pool alloc, free through Cython, zeroed", pool,
              "alloc(pool, n)", "free(pool, {})", "2")  # fmt: skip
    for name in ("system", "jemalloc", "mimalloc"):
        yield Way(f"pyarrow-{name}", f"pyarrow.allocate_buffer, {name} pool", arrow(name),
                  "allocate(n, pool)", "", "1")  # fmt: skip


def base_ways():
    yield Way("loop", "the loop alone", dict, "n", "{}", "0")
    yield Way("call", "a Cython call that returns its argument",
              lambda: {"call": module("bench_call").call}, "call(n)", "", "1")  # fmt: skip
    other = "the same call, compiled with binding=False"
    yield Way("other-call", other, lambda: {"call": module("bench_other").call}, "call(n)", "",
              "1")  # fmt: skip


def all_ways():
    return [*base_ways(), *our_ways(), *scoped_ways(), *other_ways()]
