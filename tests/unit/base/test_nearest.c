#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "syncd/base/nearest.h"

static const char *nearest_of(const char *typed)
{
    static const char *const words[] = {"setup", "check", "backup", "restore", "run", "json"};
    struct nearest n = nearest_start(typed);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        nearest_offer(&n, words[i]);
    return n.best;
}

static void finds_slips_of_the_finger(void **state)
{
    (void)state;
    assert_string_equal(nearest_of("bakup"), "backup");   /* left out */
    assert_string_equal(nearest_of("backkup"), "backup"); /* put in */
    assert_string_equal(nearest_of("bavkup"), "backup");  /* changed */
    assert_string_equal(nearest_of("abckup"), "backup");  /* swapped */
    assert_string_equal(nearest_of("rum"), "run");
    assert_string_equal(nearest_of("restroe"), "restore");
}

static void finds_what_was_begun(void **state)
{
    (void)state;
    assert_string_equal(nearest_of("res"), "restore");
    assert_string_equal(nearest_of("backup"), "backup");
    assert_null(nearest_of("re"));
}

static void leaves_strangers_alone(void **state)
{
    (void)state;
    assert_null(nearest_of("frobnicate"));
    assert_null(nearest_of("xyz"));
    assert_null(nearest_of(""));
    assert_null(nearest_of("backupbackupbackupbackupbackupbackupbackup"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_slips_of_the_finger),
        cmocka_unit_test(finds_what_was_begun),
        cmocka_unit_test(leaves_strangers_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
