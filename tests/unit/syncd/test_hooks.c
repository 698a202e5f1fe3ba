/* Hooks are real processes here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/hooks.h"

static const struct hook_facts facts = {.source = "db",
                                        .state = "failed",
                                        .error = "it's $(full) \"of\" things",
                                        .as_of_us = INT64_C(1792000000000000)};

static int run(const char *program, const char *a, const char *b, int64_t timeout_s, struct err *e)
{
    char *argv[] = {(char *)(uintptr_t)program, (char *)(uintptr_t)a, (char *)(uintptr_t)b, NULL};
    return hooks_run("before", argv, &facts, timeout_s, e);
}

static void exit_codes_decide(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    assert_int_equal(run("true", NULL, NULL, 5, &e), 0);
    assert_int_equal(run("sh", "-c", "exit 7", 5, &e), ERR_REFUSED);
    assert_non_null(strstr(e.message, "ended with 7"));
    assert_int_equal(run("sh", "-c", "kill -9 $$", 5, &e), ERR_REFUSED);
    assert_int_equal(run("/no/such/program", NULL, NULL, 5, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.message, "/no/such/program"));
}

static void no_hook_is_no_failure(void **state)
{
    (void)state;
    char *empty[] = {NULL};
    struct err e = ERR_INIT;
    assert_int_equal(hooks_run("before", NULL, &facts, 5, &e), 0);
    assert_int_equal(hooks_run("before", empty, &facts, 5, &e), 0);
}

static void facts_arrive_as_they_are(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    setenv("SYNCD_STATE", "an old one", 1); /* ours must not shadow it */
    int rc = run("sh", "-c",
                 "[ \"$SYNCD_SOURCE\" = db ] && [ \"$SYNCD_STATE\" = failed ] && "
                 "[ \"$SYNCD_AS_OF\" = 2026-10-14T17:46:40Z ] && "
                 "[ \"$SYNCD_ERROR\" = 'it'\"'\"'s $(full) \"of\" things' ] && [ -n \"$PATH\" ]",
                 5, &e);
    unsetenv("SYNCD_STATE");
    if (rc)
        fail_msg("%s", e.message);
}

/* It, and what it started, even when that does not care for SIGTERM. */
static void one_that_hangs_is_ended_with_its_children(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    char path[] = "/tmp/syncd-test-hook-XXXXXX", script[256];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    snprintf(script, sizeof script, "trap '' TERM; sleep 60 & echo $! >%s; wait; sleep 60", path);
    int64_t begun_us = clock_mono_us();
    assert_int_equal(run("sh", "-c", script, 1, &e), ERR_TIMEOUT);
    assert_in_range(clock_mono_us() - begun_us, 900 * US_PER_MS, 6 * US_PER_S);
    struct buf b = BUF_INIT;
    assert_int_equal(io_read_file(path, 64, &b, &e), 0);
    pid_t child = (pid_t)strtol(buf_cstr(&b), NULL, 10);
    assert_true(child > 1);
    for (int i = 0; i < 50 && kill(child, 0) == 0; i++)
        usleep(20000);
    /* A zombie of it may still be there when nobody reaps orphans. */
    char stat_path[64];
    snprintf(stat_path, sizeof stat_path, "/proc/%ld/stat", (long)child);
    buf_reset(&b);
    if (io_read_file(stat_path, 4096, &b, &e) == 0)
        assert_non_null(strstr(buf_cstr(&b), ") Z "));
    buf_free(&b);
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exit_codes_decide),
        cmocka_unit_test(no_hook_is_no_failure),
        cmocka_unit_test(facts_arrive_as_they_are),
        cmocka_unit_test(one_that_hangs_is_ended_with_its_children),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
