/* Ownership helpers: cleanup attributes for locals that own something, and TAKE_PTR/TAKE_FD to hand
 * it over. A reader sees in one function that nothing leaks and nothing is freed twice. */
#ifndef SYNCD_BASE_MEM_H
#define SYNCD_BASE_MEM_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define CLEANUP(f) __attribute__((cleanup(f)))

void mem_freep(void *pointer_to_pointer); /* free(*p), *p = NULL */
void mem_closep(int *fd);                 /* close(*fd) unless < 0, *fd = -1 */

#define OWN_MEM CLEANUP(mem_freep)
#define OWN_FD CLEANUP(mem_closep)

/* Hands the pointer over: evaluates to it and leaves NULL behind. */
#define TAKE_PTR(p)                                                                                \
    ({                                                                                             \
        __typeof__(p) take_ptr_ = (p);                                                             \
        (p) = NULL;                                                                                \
        take_ptr_;                                                                                 \
    })
#define TAKE_FD(fd)                                                                                \
    ({                                                                                             \
        int take_fd_ = (fd);                                                                       \
        (fd) = -1;                                                                                 \
        take_fd_;                                                                                  \
    })

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* calloc for `count` items of `size` bytes; NULL when out of memory or the product overflows. */
void *mem_alloc(size_t count, size_t size);

/* Makes room for at least `need` items of `size` bytes in *array (capacity *cap items), growing by
 * doubling; new items are zeroed. Returns 0, or ERR_NOMEM with nothing changed. */
int mem_grow(void *pointer_to_array, size_t *cap, size_t need, size_t size);

#endif
