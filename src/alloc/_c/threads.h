/* What the GIL does elsewhere, in a free-threaded CPython (PEP 703).
 *
 * There two threads may be in one function of ours at once.  What belongs to an object
 * is changed in its critical section: Cython's `critical_section`, or ALLOC_ENTER and
 * ALLOC_LEAVE on a hot path, where that would count references.  What one thread writes
 * for all others to read outside of any is written by ALLOC_SHOW and read by ALLOC_SEEN.
 * Where there is a GIL, all of this is nothing.  Include it after Python.h.
 *
 * A critical section is left while a thread waits or runs what may wait: as with the
 * GIL, what was true before Python code ran need not be true after it.
 */
#ifndef ALLOC_THREADS_H
#define ALLOC_THREADS_H

#if defined(Py_GIL_DISABLED)
#define ALLOC_FREE_THREADED 1
typedef PyCriticalSection alloc_section;
#define ALLOC_ENTER(section, object) PyCriticalSection_Begin((section), (object))
#define ALLOC_LEAVE(section) PyCriticalSection_End(section)
#define ALLOC_SEEN(place) __atomic_load_n(&(place), __ATOMIC_ACQUIRE)
#define ALLOC_SHOW(place, value) __atomic_store_n(&(place), (value), __ATOMIC_RELEASE)
#else
#define ALLOC_FREE_THREADED 0
typedef char alloc_section;
#define ALLOC_ENTER(section, object) ((void)(section), (void)(object))
#define ALLOC_LEAVE(section) ((void)(section))
#define ALLOC_SEEN(place) (place)
#define ALLOC_SHOW(place, value) ((place) = (value))
#endif

#endif
