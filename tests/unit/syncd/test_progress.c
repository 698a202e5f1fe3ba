#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "syncd/base/clock.h"
#include "syncd/base/log.h"
#include "syncd/progress.h"
#include "terminal.h"

static const char *const workers[] = {"worker1", "worker2"};

static void nap(int ms)
{
    usleep((useconds_t)ms * 1000);
}

static int show_and_log(void)
{
    setenv("TERM", "xterm", 1);
    struct progress *p = progress_start(true, "backup of \033[31mpiri", 1000, 2, workers);
    if (!p || progress_start(true, "a second", 0, 0, NULL))
        return 1;
    progress_add(p, 500);
    progress_worker_add(p, 0, 100);
    progress_worker_text(p, 1, "behind\033[1m");
    progress_worker_add(p, 7, 1); /* no such worker */
    nap(700);
    log_msg(LOG_LEVEL_WARNING, "a line in between");
    progress_set_step(p, "pass 2");
    progress_add(p, 250);
    nap(300);
    progress_stop(p, "done");
    return 0;
}

static void it_shows_makes_room_for_log_lines_and_ends_tidily(void **state)
{
    (void)state;
    struct terminal t;
    terminal_start(&t, 100, show_and_log);
    size_t at = terminal_expect(&t, 0, "backup of \\x1b[31mpiri  [");
    at = terminal_expect(&t, at, " 50 %     500 B of 1.0 KiB");
    at = terminal_expect(&t, at, "  worker1     100 B sent");
    at = terminal_expect(&t, at, "behind\\x1b[1m");
    /* Home, cleared, and only then the line. */
    at = terminal_expect(&t, at, "\r\033[2A\033[Jsyncd: a line in between\r\n");
    at = terminal_expect(&t, at, "pass 2");
    at = terminal_expect(&t, at, " 75 %");
    at = terminal_expect(&t, at, "\r\033[2A\033[J");
    at = terminal_expect(&t, at, "piri: done, 750 B in 1.");
    at = terminal_expect(&t, at, "worker2       0 B sent  behind\\x1b[1m\r\n");
    assert_int_equal(terminal_end(&t), 0);
    assert_int_equal(t.len, at);
}

static int show_shortly(void)
{
    setenv("TERM", "xterm", 1);
    struct progress *p = progress_start(true, "short", 1000, 0, NULL);
    if (!p)
        return 1;
    progress_stop(p, "done");
    return 0;
}

static int show_hidden(void)
{
    setenv("TERM", "xterm", 1);
    struct progress *p = progress_start(true, "hidden", 1000, 0, NULL);
    progress_hide();
    progress_hide();
    progress_show();
    nap(600);
    progress_stop(p, "done");
    progress_show();
    return 0;
}

static int show_unwanted(void)
{
    setenv("TERM", "xterm", 1);
    return progress_start(false, "unwanted", 0, 0, NULL) ? 1 : 0;
}

static int show_on_dumb_terminal(void)
{
    setenv("TERM", "dumb", 1);
    struct progress *p = progress_start(true, "dumb", 0, 0, NULL);
    progress_add(p, 1);
    progress_set_total(p, 1);
    progress_set_step(p, "x");
    progress_worker_text(p, 0, "x");
    progress_stop(p, "done");
    return p ? 1 : 0;
}

static void expect_silence(unsigned short columns, int (*body)(void))
{
    struct terminal t;
    terminal_start(&t, columns, body);
    assert_int_equal(terminal_end(&t), 0);
    if (t.len)
        fail_msg("it showed: %s", t.seen);
}

static void there_are_times_for_silence(void **state)
{
    (void)state;
    expect_silence(80, show_shortly);
    expect_silence(80, show_hidden);
    expect_silence(80, show_unwanted);
    expect_silence(80, show_on_dumb_terminal);
    expect_silence(0, show_unwanted);
}

static int no_terminal(void)
{
    setenv("TERM", "xterm", 1);
    return progress_start(true, "x", 0, 0, NULL) ? 1 : 0;
}

static void a_pipe_gets_nothing(void **state)
{
    (void)state;
    expect_silence(0, no_terminal);
}

static void *hammer(void *arg)
{
    struct progress *p = arg;
    for (int i = 0; i < 20000; i++) {
        progress_add(p, 1);
        progress_worker_add(p, (size_t)i % 2, 1);
        progress_worker_text(p, 0, i % 2 ? "one" : "two");
        if (i % 5000 == 0)
            log_msg(LOG_LEVEL_ERROR, "from a thread");
    }
    return NULL;
}

static int show_many_threads(void)
{
    setenv("TERM", "xterm", 1);
    struct progress *p = progress_start(true, "threads", 60000, 2, workers);
    pthread_t threads[3];
    nap(350);
    for (int i = 0; i < 3; i++)
        if (pthread_create(&threads[i], NULL, hammer, p))
            return 1;
    progress_hide();
    nap(50);
    progress_show();
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    nap(250);
    progress_stop(p, "done");
    return 0;
}

static void no_update_is_lost(void **state)
{
    (void)state;
    struct terminal t;
    terminal_start(&t, 90, show_many_threads);
    size_t at = terminal_expect(&t, 0, "100 %    59 KiB of 59 KiB");
    terminal_expect(&t, at, "worker1    29 KiB sent");
    assert_int_equal(terminal_end(&t), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_shows_makes_room_for_log_lines_and_ends_tidily),
        cmocka_unit_test(there_are_times_for_silence),
        cmocka_unit_test(a_pipe_gets_nothing),
        cmocka_unit_test(no_update_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
