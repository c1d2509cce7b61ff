/* Run a program under a seccomp filter.  argv: refuse | kill | mask, program, arguments.
 *
 * refuse: what a plain Python needs to read modules and to end; everything
 * else is EPERM (no sockets, no process_vm_readv, no ptrace, no prctl).
 * kill: the same, and everything else is death.
 * mask: rt_sigprocmask with anything but a known `how` is EPERM, which takes
 * away the harmless way to ask whether an address is readable.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NUMBER BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))
#define FIRST BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0]))
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, (what))
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (skip))
#define ALLOW(name) UNLESS(SYS_##name, 1), RETURN(SECCOMP_RET_ALLOW)
#define REFUSE RETURN(SECCOMP_RET_ERRNO | EPERM)
#define COUNT(filter) (sizeof(filter) / sizeof *(filter))

static struct sock_filter common[] = {
    NUMBER,
    ALLOW(read), ALLOW(write), ALLOW(close), ALLOW(openat), ALLOW(fstat), ALLOW(newfstatat),
    ALLOW(lseek), ALLOW(pread64), ALLOW(mmap), ALLOW(munmap), ALLOW(mremap), ALLOW(mprotect),
    ALLOW(madvise), ALLOW(brk), ALLOW(rt_sigaction), ALLOW(rt_sigprocmask), ALLOW(sigaltstack),
    ALLOW(futex), ALLOW(getpid), ALLOW(gettid), ALLOW(getcwd), ALLOW(getdents64), ALLOW(fcntl),
    ALLOW(ioctl), ALLOW(readlinkat), ALLOW(faccessat), ALLOW(getrandom), ALLOW(prlimit64),
    ALLOW(set_tid_address), ALLOW(set_robust_list), ALLOW(sysinfo), ALLOW(getuid), ALLOW(geteuid),
    ALLOW(getgid), ALLOW(getegid), ALLOW(clock_gettime), ALLOW(sched_getaffinity),
    ALLOW(dup), ALLOW(execve), ALLOW(exit), ALLOW(exit_group),
#if defined(__x86_64__)
    ALLOW(open), ALLOW(stat), ALLOW(lstat), ALLOW(readlink), ALLOW(access), ALLOW(arch_prctl),
#endif
#if defined(SYS_rseq)
    ALLOW(rseq),
#endif
    REFUSE,
};

static struct sock_filter mask[] = {
    NUMBER,
    UNLESS(SYS_rt_sigprocmask, 3),
    FIRST,
    BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 2, 0, 1),
    REFUSE,
    RETURN(SECCOMP_RET_ALLOW),
};

int main(int argc, char **argv) {
    struct sock_fprog program = {COUNT(common), common};
    if (argc < 3)
        return 2;
    if (strcmp(argv[1], "mask") == 0) {
        program.len = COUNT(mask);
        program.filter = mask;
    }
    if (strcmp(argv[1], "kill") == 0)
        common[COUNT(common) - 1].k = SECCOMP_RET_KILL_PROCESS;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0) {
        perror("seccomp");
        return 2;
    }
    execv(argv[2], argv + 2);
    perror(argv[2]);
    return 2;
}
