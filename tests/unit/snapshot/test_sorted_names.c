/* Names of a folder, few and so many that they go through the file, against qsort. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/sorted_names.h"
#include "syncd/base/err.h"

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void check(size_t count)
{
    struct err e = ERR_INIT;
    struct sorted_names *n = NULL;
    char **wanted = calloc(count + 1, sizeof *wanted);
    uint64_t random = 88172645463325252u + count;
    assert_int_equal(sorted_names_new("/tmp", &n, &e), 0);
    for (size_t i = 0; i < count; i++) {
        char name[256];
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        /* Of all lengths, with bytes above 127. */
        int len = snprintf(name, sizeof name, "%llx\xff%zu", (unsigned long long)random, i);
        size_t more = (size_t)(random % 200);
        memset(name + len, 'a' + (int)(random % 26), more);
        name[(size_t)len + more] = '\0';
        wanted[i] = strdup(name);
        assert_int_equal(sorted_names_add(n, name, &e), 0);
    }
    qsort(wanted, count, sizeof *wanted, compare);
    assert_int_equal(sorted_names_sort(n, &e), 0);
    assert_int_equal(sorted_names_count(n), count);
    for (size_t i = 0; i < count; i++) {
        const char *got = sorted_names_peek(n);
        assert_non_null(got);
        assert_string_equal(got, wanted[i]);
        assert_int_equal(sorted_names_take(n, &e), 0);
        free(wanted[i]);
    }
    assert_null(sorted_names_peek(n));
    free(wanted);
    sorted_names_free(n);
}

static void few_and_many_come_in_order(void **state)
{
    (void)state;
    static const size_t counts[] = {0, 1, 2, 1000, 3000, 20000, 60000};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        check(counts[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(few_and_many_come_in_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
