/* Preloaded by the torture tests: the FAIL_MALLOC-th allocation of the process fails with ENOMEM,
 * in syncd and in the libraries alike, but for libconfuse, which answers with a crash of its own
 * and has nothing in hand yet but the config. FAIL_MALLOC_COUNT=FILE: the number of allocations is
 * written there at the end. Only libc is wrapped. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static bool fails(const void *caller)
{
    Dl_info info;
    if (dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, "libconfuse"))
        return false;
    if (atomic_fetch_add(&calls, 1) + 1 != at)
        return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(n);
}

void *calloc(size_t count, size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, n);
}

void *realloc(void *p, size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n);
}

/* Wrapped for its caller's sake: libc's own would call malloc in libc's name. */
char *strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = fails(__builtin_return_address(0)) ? NULL : __libc_malloc(n);
    return copy ? memcpy(copy, s, n) : NULL;
}

char *strndup(const char *s, size_t max)
{
    size_t n = strnlen(s, max);
    char *copy = fails(__builtin_return_address(0)) ? NULL : __libc_malloc(n + 1);
    if (!copy)
        return NULL;
    memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}
