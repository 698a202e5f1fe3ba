#include "syncd/base/mem.h"

#include <string.h>

#include "syncd/base/err.h"
#include "syncd/base/io.h"

void mem_freep(void *pointer_to_pointer)
{
    void **p = pointer_to_pointer;
    free(*p);
    *p = NULL;
}

void mem_closep(int *fd)
{
    if (*fd >= 0)
        io_close(*fd);
    *fd = -1;
}

void *mem_alloc(size_t count, size_t size)
{
    return calloc(count ? count : 1, size ? size : 1);
}

int mem_grow(void *pointer_to_array, size_t *cap, size_t need, size_t size)
{
    void **array = pointer_to_array;
    if (need <= *cap)
        return 0;
    size_t want = *cap ? *cap : 8;
    while (want < need) {
        if (want > SIZE_MAX / 2)
            return ERR_NOMEM;
        want *= 2;
    }
    void *grown = reallocarray(*array, want, size);
    if (!grown)
        return ERR_NOMEM;
    memset((char *)grown + *cap * size, 0, (want - *cap) * size);
    *array = grown;
    *cap = want;
    return 0;
}
