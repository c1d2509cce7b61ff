/* Let another thread run: in a loop that waits for one. */
#ifndef ALLOC_YIELD_H
#define ALLOC_YIELD_H

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#define alloc_yield() ((void)SwitchToThread())
#else
#include <sched.h>
#define alloc_yield() ((void)sched_yield())
#endif

#endif
