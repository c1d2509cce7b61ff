/* Prints the layout of struct alloc_table, as the compiler sees alloc.h. */
#include <stdio.h>

#include "alloc/alloc.h"

#define PRINT(field) printf(#field " %zu %zu\n", offsetof(alloc_table, field), \
                            sizeof(((alloc_table *)0)->field))

int main(void) {
    PRINT(abi);
    PRINT(struct_size);
    PRINT(capabilities);
    PRINT(name);
    PRINT(ctx);
    PRINT(alloc);
    PRINT(alloc_zeroed);
    PRINT(resize);
    PRINT(realloc);
    PRINT(dealloc);
    PRINT(usable_size);
    PRINT(owns);
    printf("sizeof %zu 0\n", sizeof(alloc_table));
    printf("ABI %u 0\n", ALLOC_ABI);
    printf("CAP_OWNS %d 0\nCAP_UNSIZED %d 0\nCAP_ZEROED %d 0\nCAP_RESIZE %d 0\n", ALLOC_CAP_OWNS,
           ALLOC_CAP_UNSIZED, ALLOC_CAP_ZEROED, ALLOC_CAP_RESIZE);
    return 0;
}
