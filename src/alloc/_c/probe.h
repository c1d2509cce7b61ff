/* Facts of the process that only C can find out.  No side effects: no signal,
 * thread, file or setting is changed, and nothing here can fault.
 */
#ifndef ALLOC_PROBE_H
#define ALLOC_PROBE_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ALLOC_STACK_UNKNOWN = -1, /* not Linux, or the stack cannot be read */
    ALLOC_STACK_GUEST = 0,    /* read, and no frame of the interpreter's main */
    ALLOC_STACK_MAIN = 1      /* a return address into it was found */
};

typedef struct {
    int verdict;
    long depth;           /* bytes from the stack's end to the hit */
    char symbol[32];      /* the function hit */
    char detail[64];      /* why unknown, or where the scan ended */
} alloc_stack_facts;

#define ALLOC_STACK_WINDOW (16 * 1024)

#if defined(__linux__)
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

/* rt_sigprocmask copies its set before it looks at `how`: EFAULT tells an
 * unreadable page, EINVAL a readable one, and the mask stays as it is.  Every
 * seccomp filter lets it through, since libc needs it. */
static int alloc_readable(uintptr_t address) {
    int saved = errno, ok;
    ok = syscall(SYS_rt_sigprocmask, ~0, (void *)(address & ~(uintptr_t)7), NULL, 8) == -1 &&
         errno == EINVAL;
    errno = saved;
    return ok;
}

/* Where the initial thread's stack ends.  glibc tells; elsewhere the kernel:
 * field 28 of /proc/self/stat.  0 if neither does. */
static uintptr_t alloc_stack_end(void) {
    void *const *known = (void *const *)dlsym(RTLD_DEFAULT, "__libc_stack_end");
    char text[1024], *at;
    unsigned long long value = 0;
    ssize_t got;
    int fd, field;
    if (known != NULL && *known != NULL)
        return (uintptr_t)*known;
    fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0)
        return 0;
    text[got] = 0;
    at = strrchr(text, ')'); /* the command name may hold anything */
    for (field = 2; at != NULL && field < 28; field++)
        at = strchr(at + 1, ' ');
    if (at != NULL)
        sscanf(at, "%llu", &value);
    return (uintptr_t)value;
}

/* Whether a call ends just before `word`, in the function that begins at `start`: a
 * return address has one.  A pointer past a function's start, or a number that looks
 * like it, hardly ever has. */
static int alloc_follows_call(uintptr_t word, uintptr_t start) {
    const unsigned char *at = (const unsigned char *)word;
#if defined(__x86_64__)
    static const unsigned char lengths[] = {2, 3, 4, 6, 7}; /* call through a register, memory */
    size_t i, length;
    if (!alloc_readable(word - 8) || !alloc_readable(word - 1))
        return 0;
    if (word - start >= 5 && at[-5] == 0xe8)
        return 1;
    for (i = 0; i < sizeof lengths; i++) {
        length = lengths[i];
        if (word - start >= length && at[-(long)length] == 0xff &&
            (at[1 - (long)length] & 0x38) == 0x10)
            return 1;
    }
    return 0;
#elif defined(__aarch64__)
    uint32_t code;
    if (word % 4 != 0 || word - start < 4 || !alloc_readable(word - 4))
        return 0;
    memcpy(&code, at - 4, 4);
    return (code & 0xfc000000) == 0x94000000 || /* bl */
           (code & 0xfefff000) == 0xd63f0000;   /* blr, and with authentication */
#else
    (void)at, (void)start;
    return 1;
#endif
}

/* Whether `word` is a return address inside one of the interpreter's main functions.
 * dladdr is asked only for words just behind a symbol's start: it is slow. */
static const char *alloc_main_function(uintptr_t word, void *const *starts,
                                       const char *const *names, int count) {
    Dl_info info;
    int i;
    for (i = 0; i < count; i++) {
        uintptr_t start = (uintptr_t)starts[i];
        if (start == 0 || word <= start || word - start > 16 * 1024)
            continue;
        if (dladdr((void *)word, &info) != 0 && info.dli_saddr == starts[i] &&
            alloc_follows_call(word, start))
            return names[i];
    }
    return NULL;
}

/* noinline: its own frame marks how deep the initial thread stands. */
__attribute__((noinline)) static void alloc_stack_scan(alloc_stack_facts *out) {
    static const char *const names[] = {"Py_BytesMain", "Py_RunMain", "Py_Main"};
    void *starts[3];
    uintptr_t end, low, at, page = 0;
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    int i, known = 0;

    memset(out, 0, sizeof *out);
    out->verdict = ALLOC_STACK_UNKNOWN;
    for (i = 0; i < 3; i++) {
        starts[i] = dlsym(RTLD_DEFAULT, names[i]);
        known += starts[i] != NULL;
    }
    if (known == 0) {
        /* Hidden, or local to a library that was loaded so: not plain python. */
        out->verdict = ALLOC_STACK_GUEST;
        snprintf(out->detail, sizeof out->detail, "no interpreter main is visible");
        return;
    }
    end = alloc_stack_end() & ~(uintptr_t)(sizeof(void *) - 1);
    if (end < ALLOC_STACK_WINDOW) {
        snprintf(out->detail, sizeof out->detail, "the stack's end is not known");
        return;
    }
    low = end - ALLOC_STACK_WINDOW;
    /* In the initial thread what lies below our own frame is dead. */
    if (syscall(SYS_gettid) == getpid() && here < end && here > low)
        low = here & ~(uintptr_t)(sizeof(void *) - 1);
    out->verdict = ALLOC_STACK_GUEST;
    for (at = end; at > low;) {
        uintptr_t word;
        const char *name;
        at -= sizeof(void *);
        if (page != (at & ~(uintptr_t)4095)) {
            page = at & ~(uintptr_t)4095;
            if (!alloc_readable(at)) {
                if (end - at <= 4096)
                    out->verdict = ALLOC_STACK_UNKNOWN;
                snprintf(out->detail, sizeof out->detail, "unreadable %ld bytes below the end",
                         (long)(end - at));
                return;
            }
        }
        /* volatile: another thread may be writing its frames meanwhile. */
        word = *(volatile uintptr_t *)at;
#if defined(__aarch64__)
        word &= ((uintptr_t)1 << 48) - 1; /* a signed return address */
#endif
        name = alloc_main_function(word, starts, names, 3);
        if (name != NULL) {
            out->verdict = ALLOC_STACK_MAIN;
            out->depth = (long)(end - at);
            snprintf(out->symbol, sizeof out->symbol, "%s", name);
            return;
        }
    }
    snprintf(out->detail, sizeof out->detail, "no frame of the interpreter's main in %ld bytes",
             (long)(end - low));
}
#else
#if defined(__APPLE__)
#include <mach-o/dyld.h>
#elif defined(_WIN32)
#include <windows.h>
#endif
static void alloc_stack_scan(alloc_stack_facts *out) {
    memset(out, 0, sizeof *out);
    out->verdict = ALLOC_STACK_UNKNOWN;
    snprintf(out->detail, sizeof out->detail, "the stack is scanned on Linux only");
}
#endif

/* Path of the process's main image; empty where the system does not tell. */
static void alloc_main_image(char *path, size_t room) {
#if defined(__linux__)
    ssize_t got = readlink("/proc/self/exe", path, room - 1);
    path[got > 0 ? got : 0] = 0;
#elif defined(__APPLE__)
    uint32_t size = (uint32_t)room;
    if (_NSGetExecutablePath(path, &size) != 0)
        path[0] = 0;
#elif defined(_WIN32)
    DWORD got = GetModuleFileNameA(NULL, path, (DWORD)room);
    if (got == 0 || got >= room)
        path[0] = 0;
#else
    (void)room;
    path[0] = 0;
#endif
}

/* What a host exports as alloc_host_exported (alloc_host.h), or NULL. */
static const void *alloc_exported_host(void) {
#if defined(__linux__)
    const void *const *found = (const void *const *)dlsym(RTLD_DEFAULT, "alloc_host_exported");
    return found == NULL ? NULL : *found;
#else
    return NULL;
#endif
}

#if defined(__linux__)
/* What a non-PIE executable's own stub of `name` stands for: replaces `found`,
 * which dladdr found at it, by the first loaded library that defines it, as the
 * loader does.  1: done; 0: `found` is no stub, or nobody defines it. */
static int alloc_behind_stub(const char *name, Dl_info *found) {
    int known = 0;
#if defined(__linux__) && defined(__GLIBC__) && __SIZEOF_POINTER__ == 8
    const Elf64_Sym *symbol = NULL;
    struct link_map *map = NULL;
    Dl_info info;
    void *main, *library, *address;
    address = dlsym(RTLD_DEFAULT, name);
    if (address == NULL ||
        dladdr1(address, &info, (void **)(void *)&symbol, RTLD_DL_SYMENT) == 0 ||
        symbol == NULL || symbol->st_shndx != SHN_UNDEF)
        return 0;
    main = dlopen(NULL, RTLD_LAZY | RTLD_NOLOAD);
    if (main == NULL)
        return 0;
    if (dlinfo(main, RTLD_DI_LINKMAP, &map) == 0 && map != NULL)
        map = map->l_next; /* the first is the executable */
    for (; map != NULL && !known; map = map->l_next) {
        library = map->l_name[0] ? dlopen(map->l_name, RTLD_LAZY | RTLD_NOLOAD) : NULL;
        if (library == NULL) /* the kernel's, say */
            continue;
        /* It may be one of what the library itself needs. */
        address = dlsym(library, name);
        if (address != NULL && dladdr(address, &info) != 0 &&
            (uintptr_t)info.dli_fbase == (uintptr_t)map->l_addr) {
            *found = info;
            known = 1;
        }
        dlclose(library);
    }
    dlclose(main);
#else
    (void)name, (void)found;
#endif
    return known;
}
#endif

/* Who provides malloc: the file that defines it, and the allocator whose own
 * functions stand in that same file ("" if none known).  In a non-PIE
 * executable malloc resolves to a stub of the executable itself; where the true
 * file cannot be found behind it, a visible allocator is believed. */
static void alloc_malloc_provider(char *file, size_t room, const char **allocator) {
    file[0] = 0;
    *allocator = "";
#if defined(__linux__)
    static const char *const marks[][2] = {
        {"mallctl", "jemalloc"},          {"mi_malloc", "mimalloc"},
        {"tc_malloc", "tcmalloc"},        {"scalable_malloc", "tbbmalloc"},
        {"sn_malloc", "snmalloc"},        {"rpmalloc", "rpmalloc"},
        {"h_malloc", "hardened_malloc"},  {"__asan_init", "AddressSanitizer"},
        {"__tsan_init", "ThreadSanitizer"}};
    Dl_info of_malloc, of_mark, of_main;
    void *found = dlsym(RTLD_DEFAULT, "malloc");
    int hidden;
    size_t i;
    if (found == NULL || dladdr(found, &of_malloc) == 0 || of_malloc.dli_fname == NULL)
        return;
    hidden = dladdr((void *)getauxval(AT_ENTRY), &of_main) != 0 &&
             of_main.dli_fbase == of_malloc.dli_fbase &&
             !alloc_behind_stub("malloc", &of_malloc);
    snprintf(file, room, "%s", of_malloc.dli_fname);
    for (i = 0; i < sizeof marks / sizeof *marks; i++) {
        found = dlsym(RTLD_DEFAULT, marks[i][0]);
        if (found != NULL && dladdr(found, &of_mark) != 0 &&
            (hidden || of_mark.dli_fbase == of_malloc.dli_fbase)) {
            snprintf(file, room, "%s", of_mark.dli_fname);
            *allocator = marks[i][1];
            return;
        }
    }
#else
    (void)room;
#endif
}

/* Whether CPython is a library of its own, and no part of the main program: there each look
 * at the current thread is a call.  By a function that no stub can stand for. */
static int alloc_python_is_shared(void) {
#if defined(__linux__)
    Dl_info of_python, of_main;
    return dladdr((void *)(uintptr_t)PyType_Type.tp_repr, &of_python) != 0 &&
           dladdr((void *)getauxval(AT_ENTRY), &of_main) != 0 &&
           of_python.dli_fbase != of_main.dli_fbase;
#else
    return 0;
#endif
}

/* glibc's own accounts of its heaps, in bytes.  0: there are none. */
static int alloc_glibc_accounts(size_t *in_use, size_t *mapped) {
#if defined(__GLIBC__)
    struct accounts { /* struct mallinfo2, which older headers lack */
        size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks,
            keepcost;
    } now;
    struct accounts (*mallinfo2)(void);
    *(void **)&mallinfo2 = dlsym(RTLD_DEFAULT, "mallinfo2");
    if (mallinfo2 != NULL) {
        now = mallinfo2();
        *in_use = now.uordblks + now.hblkhd;
        *mapped = now.arena + now.hblkhd;
        return 1;
    }
#endif
    *in_use = *mapped = 0;
    return 0;
}

/* Whether a malloc of this process shows in glibc's accounts: 1, 0, or -1 where
 * that cannot be told.  Names can deceive, the accounts cannot.  Another
 * thread's free may hide one try, hence several.  Below the threshold for blocks
 * with a mapping of their own: to free one of those raises glibc's thresholds,
 * and it would keep megabytes from then on. */
static int alloc_glibc_serves(void) {
    const size_t size = (size_t)96 << 10;
    size_t before, after, mapped;
    int attempt;
    for (attempt = 0; attempt < 5; attempt++) {
        void *volatile block;
        if (!alloc_glibc_accounts(&before, &mapped))
            return -1;
        block = malloc(size);
        if (block == NULL)
            return -1;
        alloc_glibc_accounts(&after, &mapped);
        free(block);
        if (after >= before + size / 2)
            return 1;
    }
    return 0;
}

/* Give glibc's free pages back: 1 if there were some, 0 if not or without glibc. */
static int alloc_glibc_trim(void) {
    int (*trim)(size_t) = NULL;
#if defined(__GLIBC__)
    *(void **)&trim = dlsym(RTLD_DEFAULT, "malloc_trim");
#endif
    return trim != NULL && trim(0);
}

/* From now on: the ends of glibc's heaps, of every thread's, go back when more than
 * `size` bytes are free there, and blocks above mmap's threshold are mapped, each time.
 * glibc raises both thresholds otherwise when large blocks are freed.  It has no way
 * back to that.  1: done. */
static int alloc_glibc_threshold(int size) {
    int (*set)(int, int) = NULL;
    const int trim_threshold = -1; /* M_TRIM_THRESHOLD */
#if defined(__GLIBC__)
    *(void **)&set = dlsym(RTLD_DEFAULT, "mallopt");
#endif
    return set != NULL && set(trim_threshold, size);
}

#endif
