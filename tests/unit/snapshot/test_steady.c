/* Time that passed for the machine: no clock's jump, no reboot and no lost file makes it more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "snapshot/steady.h"
#include "syncd/base/clock.h"

#define HOUR_US (3600 * US_PER_S)
#define SLACK_US (60 * US_PER_S) /* what a slow machine needs between two calls */

static char dir[64], path[128];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/syncd-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/steady", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unsetenv("SYNCD_TEST_CLOCK_OFFSET_S");
    unsetenv("SYNCD_TEST_BOOT_OFFSET_S");
    unlink(path);
    return rmdir(dir);
}

static struct steady at(const char *clock_s, const char *boot_s)
{
    struct steady s;
    setenv("SYNCD_TEST_CLOCK_OFFSET_S", clock_s, 1);
    setenv("SYNCD_TEST_BOOT_OFFSET_S", boot_s, 1);
    steady_open(dir, &s);
    return s;
}

static void assert_passed(const struct steady *s, int64_t since_us, int64_t expected_us)
{
    int64_t passed_us = steady_passed_us(s, since_us);
    assert_true(passed_us >= expected_us && passed_us < expected_us + SLACK_US);
}

static void test_a_jump_counts_nothing(void **state)
{
    (void)state;
    struct steady s = at("0", "0");
    int64_t since_us = steady_now_us(&s);
    s = at("172800", "0");
    assert_passed(&s, since_us, 0);
    s = at("-172800", "3600");
    assert_passed(&s, since_us, HOUR_US);
}

static void test_after_a_reboot_only_what_passed_since(void **state)
{
    (void)state;
    struct steady s = at("0", "7200");
    int64_t since_us = steady_now_us(&s);
    s = at("172800", "0"); /* up for less long than was noted */
    assert_passed(&s, since_us, 0);
    s = at("172800", "1800");
    assert_passed(&s, since_us, HOUR_US / 2);
}

static void test_when_it_is_lost_it_begins_anew(void **state)
{
    (void)state;
    struct steady s = at("0", "0");
    int64_t since_us = steady_now_us(&s);
    unlink(path);
    s = at("172800", "7200");
    assert_passed(&s, since_us, 0);
    unlink(path);
    s = at("-172800", "7200"); /* the clock is behind what was noted */
    assert_true(steady_passed_us(&s, since_us) < 0);
}

static void test_without_a_place_nothing_passes(void **state)
{
    (void)state;
    struct steady s;
    steady_open("/nonexistent", &s);
    assert_passed(&s, 1, 0);
    steady_open(NULL, &s);
    assert_passed(&s, 1, 0);
    steady_open(dir, &s); /* for teardown */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_jump_counts_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_after_a_reboot_only_what_passed_since, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_when_it_is_lost_it_begins_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_a_place_nothing_passes, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
