/* Nanoseconds per malloc+free pair of 64 bytes, by function pointers, as a
 * loader would call them.
 *
 *   tls PATH PREFIX   the functions of the library at PATH
 *   tls               those the process has (glibc, or a preloaded library)
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double
now(void) {
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1e9 + at.tv_nsec;
}

int
main(int argc, char **argv) {
	void *from = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : RTLD_DEFAULT;
	if (argc > 1 && from == NULL) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	char names[2][64];
	snprintf(names[0], sizeof names[0], "%smalloc", argc > 2 ? argv[2] : "");
	snprintf(names[1], sizeof names[1], "%sfree", argc > 2 ? argv[2] : "");
	void *(*allocate)(size_t) = (void *(*)(size_t))dlsym(from, names[0]);
	void (*release)(void *) = (void (*)(void *))dlsym(from, names[1]);
	if (allocate == NULL || release == NULL || allocate(64) == NULL) {
		fprintf(stderr, "no %s here\n", names[0]);
		return 1;
	}
	double best = 1e9;
	for (int round = 0; round < 20; round++) {
		double start = now();
		for (int i = 0; i < 500000; i++) {
			void *p = allocate(64);
			__asm__ volatile("" : : "r"(p) : "memory");
			release(p);
		}
		double took = (now() - start) / 500000;
		best = took < best ? took : best;
	}
	printf("%.3f\n", best);
	return 0;
}
