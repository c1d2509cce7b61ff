# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
# cython: autotestdict=False, freethreading_compatible=True
"""The mechanics of `install()`: wrappers around the interpreter's allocators.

No policy: what is allowed, and when, `alloc._installing` knows.  What is written here
about a process stays true until it ends: wrappers are never taken away.  All
functions need the GIL; none keeps it while it waits for a thread.  What changes the
routes is called under the lock of `alloc._installing`, which is all that a build
without a GIL needs.
"""

cimport cython

from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t, uint64_t, uintptr_t

from alloc._again cimport Py_AtExit, forget_module
from alloc._keeper cimport (
    glibc, heaps_seen, heaps_trim, keeper, keeper_background, keeper_begin, keeper_close,
    keeper_glibc, keeper_open, keeper_pause, keeper_resume, keeper_thin_all, slabs,
    slabs_switch, spare_bytes, spare_empty, spare_switch,
)

Py_AtExit(forget_module)

DOMAINS = ("raw", "mem", "obj")

cdef object lock = object()    # of loading jemalloc


cdef extern from "_c/jemalloc.h" nogil:
    cdef struct je_state:
        size_t length
        int (*mallctl)(const char *, void *, size_t *, void *, size_t) noexcept nogil
        size_t (*large_bound)(size_t, size_t) noexcept nogil
        bint bounded
    je_state je "alloc_je"
    int je_load "alloc_je_load"(const char *path, char *why, size_t room)
    int je_number "alloc_je_number"(const char *name, uint64_t *out)
    void je_epoch "alloc_je_epoch"()
    bint je_owns "alloc_je_owns"(void *ctx, const void *ptr)


cdef extern from *:
    """
    static int alloc_je_present(const char *path) {
        void *there = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
        if (there != NULL)
            dlclose(there);
        return there != NULL;
    }
    """
    bint je_present "alloc_je_present"(const char *path)


cdef extern from "_c/chunks.h" nogil:
    cdef struct chunk_list:
        size_t count
    cdef struct chunks_state:
        uintptr_t base
        size_t length, used, most
        chunk_list dirty, clean
        int64_t decay_ms
        unsigned long given, refused
        void *lock
    chunks_state chunks "alloc_chunks"
    size_t CHUNK "ALLOC_CHUNK"
    int chunks_reserve "alloc_chunks_reserve"()
    size_t c_clean "alloc_chunks_clean_all"()


cdef extern from "_c/route.h":
    ctypedef void *(*malloc_function "alloc_malloc_function")(size_t) noexcept nogil
    cdef struct route_state:
        malloc_function seen[3]
        malloc_function seen_arenas
        unsigned wrapped
        int huge_pages, plain
        void *raw_below
        unsigned long fallbacks
    route_state c_route "alloc_route"
    void know_raw "alloc_route_know_raw"()
    void route_wrap "alloc_route_wrap"(int domain)
    void route_wrap_arenas "alloc_route_wrap_arenas"()
    bint route_on_top "alloc_route_on_top"(int domain)
    bint arenas_on_top "alloc_route_arenas_on_top"()
    bint route_traced "alloc_route_traced"()
    void route_prefault "alloc_route_prefault"(bint on)
    void huge_everywhere "alloc_route_huge_everywhere"(bint on)
    void route_turn "alloc_route_turn"(int domain, malloc_function libc)
    void route_count "alloc_route_count"(bint on)
    malloc_function libc_malloc "alloc_route_libc"()
    const char *current_name "alloc_route_current_name"(int *known)
    void *PyMem_RawMalloc(size_t) nogil
    void PyMem_RawFree(void *) nogil
    void *PyMem_Malloc(size_t)
    void PyMem_Free(void *)
    void *PyObject_Malloc(size_t)
    void PyObject_Free(void *)


cdef extern from "_c/pools.h":
    cdef struct pools_state:
        bint known
        size_t os_page
        unsigned long emptied, shortened, pages
    pools_state pools "alloc_pools"
    int pools_know "alloc_pools_know"()


cdef extern from "_c/advise.h":
    cdef struct advise_state:
        unsigned long calls
    advise_state advise "alloc_advise"


cdef extern from "_c/numpy.h":
    ctypedef struct numpy_handler "alloc_numpy_handler":
        pass
    cdef struct numpy_state:
        numpy_handler *handler
        malloc_function seen
    numpy_state c_numpy "alloc_numpy"
    const char *c_numpy_attach "alloc_numpy_attach"(numpy_handler *handler)
    void c_numpy_route "alloc_numpy_route"(int on)
    void c_numpy_empty "alloc_numpy_empty"()


def prepare(str library):
    """Load jemalloc and reserve the chunks' range.  ``None``, or why it cannot be.

    Without a range for chunks the arenas stay where they are; that is no failure.
    """
    cdef char why[512]
    cdef bytes path = library.encode()
    with cython.critical_section(lock):
        if je_load(path, why, sizeof(why)) != 0:
            return (<bytes>why).decode(errors="replace")
        if keeper_begin() != 0:
            return "no fork handlers can be set"
        chunks_reserve()
        pools_know()
    return None


def loaded(str library):
    """Whether jemalloc is in this process already; loads nothing."""
    cdef char why[512]
    cdef bytes path = library.encode()
    with cython.critical_section(lock):
        return bool(je_present(path) and je_load(path, why, sizeof(why)) == 0)


def jemalloc_owns(uintptr_t address):
    """Whether an address lies in the range of jemalloc."""
    return bool(je_owns(NULL, <void *>address))


def allocator_name():
    """CPython's name for the allocators in force; ``None``: hooks of others are set.

    ``""`` where this CPython does not tell.
    """
    cdef int known
    cdef const char *name = current_name(&known)
    if not known:
        return ""
    return None if name is NULL else name.decode()


def pools_known():
    """Whether pymalloc's pools look as they must for `thin_pools`."""
    return bool(pools.known)


def wrapped():
    """Names of the domains with our wrapper: ``raw``, ``mem``, ``obj``, ``arenas``."""
    names = DOMAINS + ("arenas",)
    return tuple([name for i, name in enumerate(names) if c_route.wrapped & (1u << i)])


def on_top(str domain):
    """Whether our wrapper is the outermost one of ``domain``."""
    if domain == "arenas":
        return arenas_on_top()
    return route_on_top(DOMAINS.index(domain))


def reached(str domain):
    """Whether a new block of a routed ``domain`` comes from jemalloc.

    Asks for one: another tool's hook may sit above ours, or have removed it.
    """
    cdef void *ptr
    cdef bint ours
    if domain == "raw":
        ptr = PyMem_RawMalloc(4000)
        ours = je_owns(NULL, ptr)
        PyMem_RawFree(ptr)
    elif domain == "mem":
        ptr = PyMem_Malloc(4000)
        ours = je_owns(NULL, ptr)
        PyMem_Free(ptr)
    else:
        ptr = PyObject_Malloc(40)
        ours = je_owns(NULL, ptr)
        PyObject_Free(ptr)
    return ours


def wrap(str domain):
    """Set our wrapper around what serves ``domain``, once in the life of the process."""
    if domain == "arenas":
        if chunks.length:
            route_wrap_arenas()
    else:
        route_wrap(DOMAINS.index(domain))


def plain(bint on):
    """Whether CPython's own pymalloc, without hooks, lies below our wrappers.

    Called while tracemalloc is stopped, before the first wrapper is set."""
    c_route.plain = on
    if c_route.raw_below is NULL:
        know_raw()


def route(domains):
    """New blocks of ``domains`` come from jemalloc, those of the others from where they
    came from before.  Only wrapped domains can be routed."""
    cdef malloc_function libc = libc_malloc()
    cdef int i
    for i, name in enumerate(DOMAINS):
        route_turn(i, libc if name in domains and c_route.wrapped & (1u << i) else NULL)
    c_route.seen_arenas = libc if "arenas" in domains and c_route.wrapped & 8 else NULL
    route_count(c_route.plain and c_route.wrapped & 6 and c_route.seen[2] is NULL)


def routed():
    """Names of the domains whose new blocks are routed."""
    found = [name for i, name in enumerate(DOMAINS) if c_route.seen[i] is not NULL]
    if c_route.seen_arenas is not NULL:
        found.append("arenas")
    if c_numpy.seen is not NULL:
        found.append("numpy")
    return tuple(found)


def traced():
    """Whether a tracer has hooked malloc: new blocks then go its way, to be seen."""
    return bool(route_traced())


def huge_pages(bint asked, bint everywhere):
    """Whether blocks of 4 MiB and more ask the kernel for huge pages; ``everywhere``: whether
    all our memory takes those that the system gives unasked."""
    c_route.huge_pages = asked
    huge_everywhere(everywhere)


def spare(bint on):
    """Keep a few blocks of 14 KiB to 4 MiB for the next who asks; off gives them back."""
    with nogil:
        spare_switch(on)


def bound(bint on):
    """Whether free large blocks are kept only as far as as many are in use."""
    je.bounded = on and je.large_bound is not NULL


def prefault(bint on):
    """Whether pages of a heap that grows are asked for by the extent and by the chunk."""
    route_prefault(on)


def empty_spares():
    """Give the spare blocks back to jemalloc, and NumPy's small ones; returns bytes of the
    former."""
    cdef size_t bytes
    c_numpy_empty()
    with nogil:
        bytes = spare_empty()
    return bytes


def numpy_attach(handler):
    """Take NumPy's default handler, a capsule, over.  ``None``, or why it cannot be."""
    cdef const char *why = c_numpy_attach(
        <numpy_handler *>PyCapsule_GetPointer(handler, b"mem_handler"))
    return None if why is NULL else why.decode()


def numpy_default_handler(api):
    """NumPy's default handler, a capsule, out of its C API's table, a capsule too.

    The table's entry 306 is the address of the variable, from NumPy 1.22 on."""
    cdef void **table = <void **>PyCapsule_GetPointer(api, NULL)
    return <object>(<PyObject **>table[306])[0]


def numpy_takes_raw(api):
    """Whether array data comes from PyMem_RawMalloc: NumPy 2.5 and later.

    The table's entry 211 is PyArray_GetNDArrayCFeatureVersion."""
    cdef void **table = <void **>PyCapsule_GetPointer(api, NULL)
    return (<unsigned (*)() noexcept>table[211])() >= 0x16


def numpy_route(bint on):
    """Array data comes from jemalloc, or from NumPy's own functions again."""
    c_numpy_route(on)


def numpy_attached():
    """Whether NumPy's default handler is ours."""
    return c_numpy.handler is not NULL


# --- the threads: ours, and jemalloc's ------------------------------------------------

# These are registered as they are: between two instructions of a Python function a
# signal's handler might raise, and the threads would stay away.

def open_keeper():
    """An interpreter begins, or installs for the first time: the keeper may run."""
    keeper_open()


def close_keeper():
    """The interpreter ends: no keeper any more."""
    with nogil:
        keeper_close()


def fork_begins():
    """Stop the threads and wait for them; several forks may be under way."""
    with nogil:
        keeper_pause()


def fork_ended():
    """In a child: they may come back."""
    keeper_resume(0)


def fork_returns():
    """In the parent: they may come back when no fork is under way any more."""
    keeper_resume(1)


def background(bint on):
    """jemalloc's threads that purge: at most one for each CPU, started when needed.

    Not while a fork is under way, and not in a child that was forked from another
    than the initial thread.  Raises ``OSError``."""
    cdef int error
    if je.mallctl is NULL:
        return
    error = keeper_background(on)
    if error:
        raise OSError(error, "jemalloc has no background threads")


def thin_slabs(bint on):
    """Whether the keeper gives back free pages inside jemalloc's slabs."""
    slabs_switch(on)


def trim_glibc(bint on):
    """Whether the keeper asks glibc to give back what C libraries have freed."""
    keeper_glibc(on)


def trim_heaps():
    """Give back the free ends of the heaps that glibc keeps for threads, where their layout
    is known.  Runs without the GIL.  pre: glibc serves malloc."""
    with nogil:
        heaps_trim()


def keeping():
    """Whether the keeper's thread is running."""
    return bool(keeper.running)


def orphan():
    """Whether this process was forked from another than the initial thread."""
    return bool(keeper.orphan)


cdef refuse(int error, str key):
    if error == 2:
        raise KeyError(key)
    if error:
        raise OSError(error, f"jemalloc refuses {key}")


def control(str key, value=None):
    """Read and, with a value, write a flag (a bool) of jemalloc's ``mallctl``.

    Raises ``KeyError`` for a name that it does not know, ``OSError`` if it refuses."""
    cdef bytes name = key.encode()
    cdef const char *text = name
    cdef unsigned char old = 0, new
    cdef size_t length = 1
    cdef int error
    if je.mallctl is NULL:
        raise KeyError(key)
    if value is None:
        error = je.mallctl(text, &old, &length, NULL, 0)
    else:
        new = bool(value)
        with nogil:
            error = je.mallctl(text, NULL, NULL, &new, 1)
    refuse(error, key)
    return bool(old)


def control_number(str key, value):
    """Write a number of 64 bits; as `control` for the rest."""
    cdef int64_t new = value
    cdef bytes name = key.encode()
    cdef int error
    if je.mallctl is NULL:
        raise KeyError(key)
    error = je.mallctl(name, NULL, NULL, &new, sizeof(new))
    refuse(error, f"{key}={value}")


def number(str key):
    """A number that jemalloc's ``mallctl`` knows; ``KeyError`` for one it does not."""
    cdef uint64_t value = 0
    if je_number(key.encode(), &value):
        raise KeyError(key)
    return value


def text(str key):
    """A word that jemalloc's ``mallctl`` knows; ``KeyError`` for one it does not."""
    cdef const char *value = NULL
    cdef size_t length = sizeof(value)
    cdef bytes name = key.encode()
    if je.mallctl is NULL or je.mallctl(name, &value, &length, NULL, 0) or value is NULL:
        raise KeyError(key)
    return value.decode()


def epoch():
    """Bring jemalloc's statistics up to date."""
    je_epoch()


def decay_chunks(int64_t milliseconds):
    """How long a freed chunk keeps its pages."""
    chunks.decay_ms = milliseconds


def clean_chunks():
    """Give the pages of all dirty chunks back; returns bytes."""
    cdef size_t count
    with nogil:
        count = c_clean()
    return count * CHUNK


def thin_pools():
    """Give back what this interpreter's pymalloc does not need; returns bytes.

    In slices of about a millisecond; other threads get the GIL in between."""
    cdef size_t index = 0
    cdef unsigned long before = pools.pages
    if not pools.known:
        return 0
    while True:
        index = keeper_thin_all(index)
        if index == 0:
            break
        with nogil:
            pass
    return (pools.pages - before) * pools.os_page


def figures():
    """Counts so far and now, as a dict; ``chunk`` is in bytes."""
    return {
        "chunk": CHUNK,
        "chunks_base": chunks.base,
        "chunks_reserved": chunks.length // CHUNK,
        "chunks_used": chunks.used,
        "chunks_most": chunks.most,
        "chunks_dirty": chunks.dirty.count,
        "chunks_clean": chunks.clean.count,
        "chunks_given": chunks.given,
        "chunks_refused": chunks.refused,
        "fallbacks": c_route.fallbacks,
        "spare": spare_bytes(),
        "pools_emptied": pools.emptied,
        "pools_shortened": pools.shortened,
        "pool_bytes": pools.pages * pools.os_page,
        "pool_calls": advise.calls,
        "looks": keeper.looks,
        "holds": keeper.holds,
        "slab_walks": slabs.walks,
        "slab_bytes": slabs.given,
        "glibc_trims": glibc.trims,
        "glibc_heaps": heaps_seen,
    }
