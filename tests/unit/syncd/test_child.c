#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/child.h"
#include "syncd/signals.h"

static int run(const char *script, int timeout_ms, struct buf *output, struct err *e)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    return child_run(argv, timeout_ms, output, e);
}

static void output_is_kept(void **state)
{
    (void)state;
    OWN_BUF struct buf output = BUF_INIT;
    struct err e = ERR_INIT;
    buf_put_str(&output, "before ");
    assert_int_equal(run("echo one; echo two >&2; cat", 10000, &output, &e), 0);
    assert_string_equal(buf_cstr(&output), "before one\ntwo\n"); /* and stdin was empty */
}

static void failures_say_why(void **state)
{
    (void)state;
    OWN_BUF struct buf output = BUF_INIT;
    struct err e = ERR_INIT;
    const char *const nothing[] = {"/nonexistent/program", NULL};
    assert_int_equal(child_run(nothing, 1000, &output, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.message, "/nonexistent/program"));
    assert_int_equal(run("echo noise; echo the reason; exit 7", 10000, &output, &e), ERR_IO);
    assert_string_equal(e.message, "sh failed (exit 7): the reason");
    assert_int_equal(run("exit 7", 10000, &output, &e), ERR_IO);
    assert_int_equal(run("kill -9 $$", 10000, &output, &e), ERR_IO);
    assert_non_null(strstr(e.message, "signal 9"));
    assert_int_equal(run("head -c 70000 /dev/zero; sleep 60", 10000, &output, &e), ERR_LIMIT);
}

static void nobody_is_left_behind(void)
{
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void the_time_is_limited(void **state)
{
    (void)state;
    OWN_BUF struct buf output = BUF_INIT;
    struct err e = ERR_INIT;
    int64_t start_us = clock_mono_us();
    assert_int_equal(run("exec sleep 60", 200, &output, &e), ERR_TIMEOUT);
    /* Also when it has closed its output. */
    assert_int_equal(run("exec sleep 60 >&- 2>&-", 200, &output, &e), ERR_TIMEOUT);
    assert_true(clock_mono_us() - start_us < 20 * US_PER_S);
    nobody_is_left_behind();
}

/* Last: a signal cancels for good. */
static void a_signal_ends_it(void **state)
{
    (void)state;
    OWN_BUF struct buf output = BUF_INIT;
    struct err e = ERR_INIT;
    assert_int_equal(signals_start(&e), 0);
    raise(SIGTERM);
    assert_int_equal(run("exec sleep 60", 60000, &output, &e), ERR_CANCELLED);
    nobody_is_left_behind();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_is_kept),
        cmocka_unit_test(failures_say_why),
        cmocka_unit_test(the_time_is_limited),
        cmocka_unit_test(a_signal_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
