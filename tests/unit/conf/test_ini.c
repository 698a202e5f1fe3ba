#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/ini.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

static const char text[] = "before = 1\n"
                           "# a comment = 2\n"
                           "[cluster.addresses]\r\n"
                           "pio02 = 10.42.0.3 ; the second\r\n"
                           "pio01=10.42.0.2\n"
                           "no sign here\n"
                           "\n"
                           " [ repo ] \n"
                           "data_dir = \"/data/pi#ri\"  # a comment\n"
                           "key = a#b\n"
                           "empty = \"\"\n"
                           "twice = 1\n"
                           "twice = '2'\n"
                           "[cluster.addresses2]\n"
                           "pio03 = x";

static void assert_is(const char *section, const char *key, const char *want)
{
    char *got = NULL;
    struct err e = ERR_INIT;
    assert_int_equal(ini_get(text, section, key, &got, &e), 0);
    if (!want)
        assert_null(got);
    else
        assert_string_equal(got, want);
    free(got);
}

static void values_are_found(void **state)
{
    (void)state;
    assert_is("", "before", "1");
    assert_is("", "data_dir", NULL);
    assert_is("repo", "data_dir", "/data/pi#ri");
    assert_is("repo", "key", "a#b");
    assert_is("repo", "empty", "");
    assert_is("repo", "twice", "2");
    assert_is("repo", "pio01", NULL);
    assert_is("cluster.addresses", "pio02", "10.42.0.3");
    assert_is("cluster.addresses2", "pio03", "x");
    assert_is("nothing", "pio03", NULL);
}

#define GATHERED_MAX 200

static int gather(void *arg, const char *key, const char *value, struct err *e)
{
    char *to = arg;
    if (strcmp(key, "pio01") == 0)
        return err_set(e, ERR_LIMIT, NULL, "enough");
    size_t len = strlen(to);
    snprintf(to + len, GATHERED_MAX - len, "%s=%s", key, value);
    return 0;
}

static void a_section_is_gone_through(void **state)
{
    (void)state;
    char got[GATHERED_MAX] = "";
    struct err e = ERR_INIT;
    assert_int_equal(ini_each(text, "cluster.addresses", gather, got, &e), ERR_LIMIT);
    assert_string_equal(got, "pio02=10.42.0.3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_found),
        cmocka_unit_test(a_section_is_gone_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
