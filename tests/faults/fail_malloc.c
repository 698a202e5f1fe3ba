/* Preloaded by the torture tests: the FAIL_MALLOC-th allocation of the process fails with ENOMEM,
 * in syncd and in the libraries alike. FAIL_MALLOC_COUNT=FILE: the number of allocations is written
 * there at the end. Only libc is wrapped. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t count, size_t n);
extern void *__libc_realloc(void *p, size_t n);

static atomic_ulong calls;
static unsigned long at;

__attribute__((constructor)) static void begin(void)
{
    const char *text = getenv("FAIL_MALLOC");
    at = text ? strtoul(text, NULL, 10) : 0;
    calls = 0;
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("FAIL_MALLOC_COUNT");
    unsigned long count = calls;
    at = 0;
    FILE *f = path ? fopen(path, "w") : NULL;
    if (!f)
        return;
    fprintf(f, "%lu\n", count);
    fclose(f);
}

static int fails(void)
{
    if (atomic_fetch_add(&calls, 1) + 1 != at || at == 0)
        return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t n)
{
    return fails() ? NULL : __libc_malloc(n);
}

void *calloc(size_t count, size_t n)
{
    return fails() ? NULL : __libc_calloc(count, n);
}

void *realloc(void *p, size_t n)
{
    return fails() ? NULL : __libc_realloc(p, n);
}
