#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "syncd/base/clock.h"
#include "syncd/clock_doubt.h"

#define HOUR_US (3600 * US_PER_S)
#define LATER_US (INT64_C(4000000000) * US_PER_S) /* than this program */

static void judges_by_what_is_known(void **state)
{
    static const struct {
        struct clock_facts f;
        enum clock_doubt doubt;
    } cases[] = {
        {{.now_us = LATER_US}, CLOCK_BELIEVED},
        {{.now_us = LATER_US, .newest_us = LATER_US - HOUR_US}, CLOCK_BELIEVED},
        /* Nothing here sets it: there is no better time to wait for. */
        {{.now_us = LATER_US, .unset = true}, CLOCK_BELIEVED},
        {{.now_us = LATER_US, .unset = true, .is_kept = true}, CLOCK_UNSET},
        {{.now_us = LATER_US, .is_kept = true}, CLOCK_BELIEVED},
        {{.now_us = LATER_US, .newest_us = LATER_US + HOUR_US / 20}, CLOCK_BELIEVED},
        {{.now_us = LATER_US, .newest_us = LATER_US + HOUR_US}, CLOCK_BEHIND},
        {{.now_us = INT64_C(1600000000) * US_PER_S}, CLOCK_BEHIND},
        {{.now_us = 0, .unset = true, .is_kept = true}, CLOCK_BEHIND},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(clock_doubt_judge(&cases[i].f), cases[i].doubt);
}

static void waits_five_minutes_at_most(void **state)
{
    (void)state;
    assert_int_equal(clock_doubt_until_us(CLOCK_BELIEVED, HOUR_US), 0);
    assert_int_equal(clock_doubt_until_us(CLOCK_UNSET, US_PER_S), 300 * US_PER_S);
    assert_true(clock_doubt_until_us(CLOCK_UNSET, HOUR_US) < HOUR_US);
    assert_int_equal(clock_doubt_until_us(CLOCK_BEHIND, HOUR_US), HOUR_US + 300 * US_PER_S);
}

static void the_facts_are_those_of_this_machine(void **state)
{
    (void)state;
    int64_t before_us = clock_now_us();
    struct clock_facts f = clock_facts(7);
    assert_true(f.now_us >= before_us && f.now_us <= clock_now_us());
    assert_int_equal(f.newest_us, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(judges_by_what_is_known),
        cmocka_unit_test(waits_five_minutes_at_most),
        cmocka_unit_test(the_facts_are_those_of_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
