#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/progress_view.h"
#include "syncd/show.h"

#define MIB (UINT64_C(1) << 20)

static struct progress_view example(void)
{
    struct progress_view v = {.title = "backup of piri",
                              .step = "pass 2",
                              .done_bytes = 231 * MIB,
                              .total_bytes = 525 * MIB,
                              .rate = 170 * MIB,
                              .elapsed_us = 2 * US_PER_S,
                              .worker_count = 2};
    snprintf(v.workers[0].name, PROGRESS_TEXT, "worker1");
    v.workers[0].sent_bytes = 120 * MIB;
    v.workers[0].rate = 40 * MIB;
    snprintf(v.workers[1].name, PROGRESS_TEXT, "nas");
    snprintf(v.workers[1].text, PROGRESS_TEXT, "detached: no space");
    return v;
}

static const char *lines(const struct progress_view *v, size_t columns, bool utf8)
{
    static char text[2048];
    OWN_BUF struct buf b = BUF_INIT;
    progress_view_lines(v, columns, utf8, &b);
    snprintf(text, sizeof text, "%s", buf_cstr(&b));
    return text;
}

static void it_says_what_there_is_to_say(void **state)
{
    (void)state;
    struct progress_view v = example();
    assert_string_equal(
        lines(&v, 120, false),
        "backup of piri, pass 2  [#############-----------------]   44 %   231 MiB of 525 MiB"
        "   170 MiB/s  1.7 s left\n"
        "  worker1   120 MiB sent    40 MiB/s\n"
        "  nas           0 B sent       0 B/s  detached: no space");
}

static void what_is_not_known_is_left_out(void **state)
{
    (void)state;
    struct progress_view v = example();
    v.total_bytes = 0;
    v.worker_count = 0;
    v.step[0] = '\0';
    assert_string_equal(lines(&v, 120, true), "backup of piri   231 MiB   170 MiB/s");
}

static void it_never_passes_the_end(void **state)
{
    (void)state;
    struct progress_view v = example();
    v.worker_count = 0;
    v.done_bytes = 600 * MIB; /* more than was thought: a second pass */
    const char *text = lines(&v, 120, false);
    assert_non_null(strstr(text, "[##############################]  100 %   600 MiB of 525 MiB"));
    assert_null(strstr(text, "left"));
}

static void no_line_is_wider_than_the_window(void **state)
{
    (void)state;
    struct progress_view v = example();
    snprintf(v.workers[1].name, PROGRESS_TEXT, "grün-und-weit-weg");
    for (size_t columns = 1; columns < 140; columns++)
        for (int utf8 = 0; utf8 < 2; utf8++) {
            char text[2048], *at = text;
            snprintf(text, sizeof text, "%s", lines(&v, columns, utf8));
            size_t count = 0;
            for (char *line; (line = strsep(&at, "\n")); count++) {
                assert_true(show_width(line) <= columns);
                uint32_t c;
                for (const char *s = line; *s; s += show_utf8(s, &c))
                    assert_true(show_utf8(s, &c) > 0); /* not cut within a character */
            }
            assert_int_equal(count, 3);
        }
}

static void a_narrow_window_keeps_what_matters(void **state)
{
    (void)state;
    struct progress_view v = example();
    const char *text = lines(&v, 24, false);
    assert_non_null(strstr(text, "backup of piri   44 %\n"));
}

static void the_numbers_go_from_the_right(void **state)
{
    (void)state;
    struct progress_view v = example();
    v.worker_count = 0;
    assert_string_equal(lines(&v, 60, false),
                        "backup of piri   44 %   231 MiB of 525 MiB   170 MiB/s");
    assert_string_equal(lines(&v, 45, false), "backup of piri   44 %   231 MiB of 525 MiB");
}

static void the_summary_stays(void **state)
{
    (void)state;
    struct progress_view v = example();
    OWN_BUF struct buf b = BUF_INIT;
    progress_view_summary(&v, "done", 120, &b);
    assert_string_equal(buf_cstr(&b), "backup of piri: done, 231 MiB in 2.0 s (116 MiB/s)\n"
                                      "  worker1   120 MiB sent\n"
                                      "  nas           0 B sent  detached: no space\n");
}

static void the_rate_is_that_of_the_last_seconds(void **state)
{
    (void)state;
    struct rate r = {.count = 0};
    int64_t now_us = 5 * US_PER_S;
    uint64_t bytes = 0;
    assert_int_equal(rate_get(&r, now_us, 0), 0);
    for (int i = 0; i < 600; i++) { /* a minute at 10 MB/s, asked ten times a second */
        rate_note(&r, now_us, bytes);
        now_us += 100 * US_PER_MS;
        bytes += 1000000;
    }
    assert_int_equal(rate_get(&r, now_us, bytes) / 100000, 100);
    for (int i = 0; i < 100; i++) { /* then ten seconds of nothing */
        rate_note(&r, now_us, bytes);
        now_us += 100 * US_PER_MS;
    }
    assert_int_equal(rate_get(&r, now_us, bytes), 0);
    assert_int_equal(rate_get(&r, now_us, 5), 0); /* set back: no rate, no overflow */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_says_what_there_is_to_say),
        cmocka_unit_test(what_is_not_known_is_left_out),
        cmocka_unit_test(it_never_passes_the_end),
        cmocka_unit_test(no_line_is_wider_than_the_window),
        cmocka_unit_test(a_narrow_window_keeps_what_matters),
        cmocka_unit_test(the_numbers_go_from_the_right),
        cmocka_unit_test(the_summary_stays),
        cmocka_unit_test(the_rate_is_that_of_the_last_seconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
