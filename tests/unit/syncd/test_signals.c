#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/signals.h"
#include "terminal.h"

static int be_stopped(int number)
{
    struct err e = ERR_INIT;
    if (signals_start(&e) || signals_start(&e) || signals_cancelled() || signals_check(&e))
        return 1;
    struct pollfd p = {.fd = *signals_cancel_fd(), .events = POLLIN};
    if (poll(&p, 1, 0) != 0)
        return 2;
    raise(SIGPIPE); /* ignored */
    raise(number);
    if (!signals_cancelled() || !atomic_load(signals_cancel_flag()))
        return 3;
    for (int i = 0; i < 2; i++) /* stays readable */
        if (poll(&p, 1, 0) != 1)
            return 4;
    if (signals_wait_readable(-1, 10000, &e) != ERR_CANCELLED || e.code != ERR_CANCELLED)
        return 5;
    return signals_exit_code(1);
}

static int stopped_by_int(void)
{
    return be_stopped(SIGINT);
}

static int stopped_by_term(void)
{
    return be_stopped(SIGTERM);
}

static int stopped_twice(void)
{
    be_stopped(SIGINT);
    raise(SIGINT);
    return 7; /* not reached */
}

static int waits_in_vain(void)
{
    struct err e = ERR_INIT;
    int ends[2];
    if (signals_start(&e) || pipe(ends))
        return 1;
    int64_t start_us = clock_mono_us();
    if (signals_wait_readable(ends[0], 50, &e) != 0)
        return 2;
    int64_t took_us = clock_mono_us() - start_us;
    if (took_us < 50 * US_PER_MS || took_us > 5 * US_PER_S)
        return 3;
    if (write(ends[1], "x", 1) != 1 || signals_wait_readable(ends[0], 5000, &e) != 1)
        return 4;
    return signals_exit_code(42);
}

static int run(int (*body)(void))
{
    struct terminal t;
    terminal_start(&t, 0, body);
    return terminal_end(&t);
}

static void signals_become_flag_descriptor_and_exit_code(void **state)
{
    (void)state;
    assert_int_equal(run(stopped_by_int), 130);
    assert_int_equal(run(stopped_by_term), 143);
}

static void a_second_one_ends_the_process(void **state)
{
    (void)state;
    assert_int_equal(run(stopped_twice), 128 + SIGINT);
}

static void waiting_has_an_end(void **state)
{
    (void)state;
    assert_int_equal(run(waits_in_vain), 42);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signals_become_flag_descriptor_and_exit_code),
        cmocka_unit_test(a_second_one_ends_the_process),
        cmocka_unit_test(waiting_has_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
