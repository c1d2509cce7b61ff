"""Which allocator module-level calls use: the global one, and scopes.

Included by _core.pyx.
"""

cdef object chosen = None                # the global allocator, or None: not decided yet
cdef object first_use = None             # has it decided, see on_first_use()
cdef list foreign = []                   # non-native ones that were ever current
cdef bint scoped = False                 # whether a scope was ever entered
# Through the C API: the module contextvars is a shared library to be loaded.
scope = PyContextVar_New("alloc.using", NULL)


cdef inline void keep(object known) noexcept:
    """What becomes global may be in the hands of another thread that has taken no reference
    yet, long after it was replaced.  With a GIL there is none; without, it lives for ever:
    such things change seldom."""
    if FREE_THREADED:
        Py_INCREF(known)


def on_first_use(call):
    """Call ``call()`` when an allocator is needed and none is global yet: it sets one."""
    global first_use
    keep(call)
    first_use = call


def chosen_allocator():
    """The global allocator, or ``None`` if none is yet.  Asks nobody."""
    return chosen


def global_allocator():
    """The global allocator, without regard to scopes."""
    if chosen is None and first_use is not None:
        try:
            first_use()
        except ImportError:  # the interpreter is ending, or a finalizer ran in an import
            pass
    # Nobody decides, or this is asked in the middle of it: System, for this once.
    return System() if chosen is None else chosen


def current_allocator():
    """The allocator of the innermost scope of this context, else the global one."""
    if scoped:
        found = get_value(scope, chosen)
        if found is not None:
            return found
    return global_allocator()


cdef remember(object allocator):
    # Raw addresses carry no owner, so whoever granted some must stay reachable.
    if type(allocator) in (System, Jemalloc):
        return
    with cython.critical_section(lock):
        for known in foreign:
            if known is allocator:
                return
        foreign.append(allocator)
        show_foreign()


cdef bint serves_raw(object allocator) except -1:
    """Whether module-level calls may use its table without asking the object: a table
    that must be told the size at free leaves raw addresses to the object."""
    return isinstance(allocator, NativeAllocator) and (
        (<NativeAllocator>allocator).table.capabilities & ALLOC_CAP_UNSIZED) != 0


def set_global(allocator):
    """Make ``allocator`` global and return the previous one.  No policy here."""
    remember(allocator)
    keep(allocator)
    table = table_of(allocator)
    with cython.critical_section(lock):
        previous = chosen
        put_in_force(allocator, table)
    return previous


def set_first(allocator, expected):
    """As `set_global`, unless another one than ``expected`` is global by now (``None``:
    none is).  The test and the change are one step; returns whether it changed."""
    remember(allocator)
    keep(allocator)
    table = table_of(allocator)
    with cython.critical_section(lock):
        if chosen is not expected:
            return False
        put_in_force(allocator, table)
    return True


cdef void put_in_force(object allocator, const alloc_table *table) noexcept:
    global chosen, c_table
    # Before `chosen`, which may be the last reference to what this borrowed before.
    show_native(<PyObject *>allocator if not scoped and serves_raw(allocator) else NULL)
    chosen = allocator
    c_table = table


# What C callers dispatch through (the C API).  For an allocator in Python a table is
# made by `_capi` once that is loaded; until then C callers have System.
c_table = &system_table
cdef c_table_maker make_table = NULL


cdef const alloc_table *table_of(object allocator) except NULL:
    if isinstance(allocator, NativeAllocator):
        return (<NativeAllocator>allocator).table
    return &system_table if make_table is NULL else make_table(allocator)


cdef int serve_c(c_table_maker maker) except -1:
    """From now on C callers reach allocators in Python, too, by tables of ``maker``'s."""
    global make_table, c_table
    allocator = global_allocator()
    with cython.critical_section(lock):
        make_table = maker
        c_table = table_of(allocator if chosen is None else chosen)
    return 0


def enter_scope(allocator):
    """Make ``allocator`` current in this context; returns the token to leave with.

    From the first scope on, each module-level call looks its context up.
    """
    global scoped
    remember(allocator)
    if not scoped:
        with cython.critical_section(lock):
            scoped = True
            show_native(NULL)
    return PyContextVar_Set(scope, allocator)


def leave_scope(token):
    """Undo `enter_scope`."""
    PyContextVar_Reset(scope, token)
