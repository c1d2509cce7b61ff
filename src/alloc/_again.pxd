# A second interpreter in one process.
#
# After Py_Finalize a module's static state refers to objects that are gone, and a host
# that calls Py_Initialize again would be handed the old module, emptied.  So each
# compiled module forgets its state when the interpreter has ended.  What is C stays:
# tables, jemalloc, and blocks that nobody freed.

from libc.string cimport memset


cdef extern from *:
    # Cython's own names in the module that is being compiled.
    void *this_module "__pyx_m"
    void *module_state "__pyx_mstate_global"
    const size_t module_state_size "sizeof(*__pyx_mstate_global)"
    int Py_AtExit(void (*function)() noexcept)


cdef inline void forget_module() noexcept:
    global this_module
    this_module = NULL
    memset(module_state, 0, module_state_size)
