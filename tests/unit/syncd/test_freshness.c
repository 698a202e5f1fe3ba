#include "syncd/freshness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"
#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/report.h"

#define NOW (INT64_C(1800000000) * US_PER_S)
#define HOUR_US (INT64_C(3600) * US_PER_S)

/* A source with max_age 1 h on two workers that hold states of these ages; 0: none. */
static struct freshness with_ages(int64_t a_us, int64_t b_us)
{
    struct freshness f = {.source = "db", .max_age_s = 3600, .worker_count = 2};
    f.workers[0] = (struct freshness_worker){.name = "w1", .behind = -1};
    f.workers[1] = (struct freshness_worker){.name = "w2", .behind = -1};
    f.workers[0].as_of_us = a_us ? NOW - a_us : 0;
    f.workers[1].as_of_us = b_us ? NOW - b_us : 0;
    freshness_judge(&f, NOW);
    return f;
}

static void states_are_those_of_the_contract(void **state)
{
    (void)state;
    static const struct {
        int64_t a_us, b_us;
        enum freshness_state is, a, b;
    } cases[] = {
        {1, 2, FRESHNESS_FRESH, FRESHNESS_FRESH, FRESHNESS_FRESH},
        {1, HOUR_US - 1, FRESHNESS_FRESH, FRESHNESS_FRESH, FRESHNESS_FRESH},
        {1, HOUR_US, FRESHNESS_DEGRADED, FRESHNESS_FRESH, FRESHNESS_STALE},
        {0, 1, FRESHNESS_DEGRADED, FRESHNESS_NEVER, FRESHNESS_FRESH},
        {HOUR_US, 2 * HOUR_US, FRESHNESS_STALE, FRESHNESS_STALE, FRESHNESS_STALE},
        {0, 2 * HOUR_US, FRESHNESS_STALE, FRESHNESS_NEVER, FRESHNESS_STALE},
        {0, 0, FRESHNESS_NEVER, FRESHNESS_NEVER, FRESHNESS_NEVER},
        /* Ahead of this machine's clock: a little is the clocks' play, more is not believed. */
        {-60 * US_PER_S, 1, FRESHNESS_FRESH, FRESHNESS_FRESH, FRESHNESS_FRESH},
        {-HOUR_US, 1, FRESHNESS_DEGRADED, FRESHNESS_STALE, FRESHNESS_FRESH},
        {-HOUR_US, -HOUR_US, FRESHNESS_STALE, FRESHNESS_STALE, FRESHNESS_STALE},
        {-25 * HOUR_US, 1, FRESHNESS_CLOCK, FRESHNESS_STALE, FRESHNESS_FRESH},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct freshness f = with_ages(cases[i].a_us, cases[i].b_us);
        assert_int_equal(f.state, cases[i].is);
        assert_int_equal(f.workers[0].state, cases[i].a);
        assert_int_equal(f.workers[1].state, cases[i].b);
    }
}

static void the_best_worker_tells_as_of(void **state)
{
    (void)state;
    struct freshness f = with_ages(2 * HOUR_US, HOUR_US);
    assert_int_equal(f.as_of_us, NOW - HOUR_US);
    assert_int_equal(f.fresh_until_us, NOW);
    f = with_ages(-5 * HOUR_US, HOUR_US); /* one that is believed is better */
    assert_int_equal(f.as_of_us, NOW - HOUR_US);
}

static void what_is_not_known_is_not_fresh(void **state)
{
    (void)state;
    struct freshness f = with_ages(1, 1);
    f.max_age_s = 0;
    freshness_judge(&f, NOW);
    assert_int_equal(f.state, FRESHNESS_STALE);
    assert_int_equal(freshness_exit_code(&f, 1), EXIT_NOTHING);
    f = with_ages(1, 0);
    f.workers[1].lost = true;
    freshness_judge(&f, NOW);
    assert_int_equal(f.workers[1].state, FRESHNESS_STALE);
    assert_int_equal(f.state, FRESHNESS_DEGRADED);
    f = with_ages(1, 1);
    f.workers[1].clock_apart = true;
    freshness_judge(&f, NOW);
    assert_int_equal(f.state, FRESHNESS_CLOCK);
}

static void the_worst_decides(void **state)
{
    (void)state;
    struct freshness all[3] = {with_ages(1, 1), with_ages(1, 1), with_ages(1, 1)};
    assert_int_equal(freshness_exit_code(all, 3), EXIT_DONE);
    all[1] = with_ages(1, 0);
    assert_int_equal(freshness_exit_code(all, 3), EXIT_PARTLY);
    all[0].max_age_s = 0;
    freshness_judge(&all[0], NOW);
    assert_int_equal(freshness_exit_code(all, 3), EXIT_NOTHING);
    all[2] = with_ages(0, 0);
    assert_int_equal(freshness_exit_code(all, 3), EXIT_STALE);
    all[2] = with_ages(-25 * HOUR_US, 1);
    assert_int_equal(freshness_exit_code(all, 3), EXIT_STALE);
    assert_int_equal(freshness_exit_code(all, 0), EXIT_NOTHING);
}

static void nagios_has_one_line(void **state)
{
    (void)state;
    struct freshness all[2] = {with_ages(60 * US_PER_S, 60 * US_PER_S), with_ages(1, 0)};
    OWN_BUF struct buf b = BUF_INIT;
    all[0].size_bytes = 4096;
    snprintf(all[1].source, sizeof all[1].source, "piri");
    snprintf(all[1].workers[1].error, sizeof all[1].workers[1].error, "a|b\nc");
    assert_int_equal(freshness_nagios(all, 2, NOW, &b), NAGIOS_WARNING);
    assert_string_equal(buf_cstr(&b),
                        "SYNCD WARNING - db fresh; piri degraded, w2 never: a/b c |"
                        " 'db_age'=60s;3600;3600;0 'db_size'=4096B;;;0 'piri_age'=0s;3600;3600;0");
    buf_reset(&b);
    all[1] = with_ages(0, 0);
    assert_int_equal(freshness_nagios(all, 2, NOW, &b), NAGIOS_CRITICAL);
    assert_non_null(strstr(buf_cstr(&b), "'db_age'=U"));
    buf_reset(&b);
    assert_int_equal(freshness_nagios(all, 1, NOW, &b), NAGIOS_OK);
    buf_reset(&b);
    assert_int_equal(freshness_nagios(all, 0, NOW, &b), NAGIOS_UNKNOWN);
}

static void prometheus_has_every_metric(void **state)
{
    (void)state;
    struct freshness f = with_ages(60 * US_PER_S, 0);
    OWN_BUF struct buf b = BUF_INIT;
    f.has_run = true;
    f.run = (struct catalog_run){.state = RUN_PARTIAL,
                                 .started_at_us = NOW - 2 * US_PER_S,
                                 .ended_at_us = NOW - US_PER_S / 2,
                                 .bytes_sent = 12345};
    f.workers[0].name = "a\"b\\c";
    freshness_prometheus(&f, 1, NOW, &b);
    const char *text = buf_cstr(&b);
    static const char *const lines[] = {
        "syncd_as_of_timestamp_seconds{source=\"db\",worker=\"a\\\"b\\\\c\"} 1799999940\n",
        "syncd_as_of_timestamp_seconds{source=\"db\",worker=\"w2\"} 0\n",
        "syncd_fresh_until_timestamp_seconds{source=\"db\",worker=\"w2\"} 0\n",
        "syncd_proven_timestamp_seconds{source=\"db\",worker=\"w2\"} 0\n",
        "syncd_last_run_duration_seconds{source=\"db\"} 1.5\n",
        "syncd_last_run_sent_bytes{source=\"db\"} 12345\n",
        "syncd_max_age_seconds{source=\"db\"} 3600\n",
        "syncd_last_run_result{source=\"db\",result=\"partial\"} 1\n",
        "syncd_last_run_result{source=\"db\",result=\"ok\"} 0\n",
        "syncd_exported_timestamp_seconds 1800000000\n",
        "# TYPE syncd_last_run_timestamp_seconds gauge\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        if (!strstr(text, lines[i]))
            fail_msg("no %s in:\n%s", lines[i], text);
}

static void json_is_the_contracts(void **state)
{
    (void)state;
    static const char *const keys[] = {"state",       "running",    "last_result", "as_of",
                                       "fresh_until", "max_age_s",  "snapshot",    "proven_at",
                                       "next_run",    "duration_s", "bytes_read",  "bytes_changed",
                                       "bytes_sent",  "size_bytes", "error",       "workers"};
    static const char *const of_worker[] = {"name",      "state",  "as_of", "fresh_until",
                                            "proven_at", "behind", "error"};
    struct freshness f = with_ages(1, 0);
    json_t *o = freshness_json(&f);
    assert_non_null(o);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        assert_non_null(json_object_get(o, keys[i]));
    json_t *w = json_array_get(json_object_get(o, "workers"), 1);
    for (size_t i = 0; i < ARRAY_LEN(of_worker); i++)
        assert_non_null(json_object_get(w, of_worker[i]));
    assert_string_equal(json_string_value(json_object_get(o, "last_result")), "none");
    assert_true(json_is_null(json_object_get(w, "as_of")));
    assert_true(json_is_null(json_object_get(w, "behind")));
    json_decref(o);
}

static int setup(void **state)
{
    char *path = strdup("/tmp/syncd-test-fresh-XXXXXX");
    *state = path;
    return mkdtemp(path) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[3][80];
    char *path = *state;
    static const char *const names[] = {"catalog.db", "catalog.db-wal", "catalog.db-shm"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(command[i], sizeof command[i], "%s/%s", path, names[i]);
        remove(command[i]);
    }
    remove(path);
    free(path);
    return 0;
}

static void the_catalog_tells_runs_and_growth(void **state)
{
    struct catalog *c = NULL;
    struct err e = ERR_INIT;
    struct conf conf = {.worker_count = 2};
    struct conf_source source = {.max_age_s = 3600};
    char source_name[] = "db", w1[] = "w1", w2[] = "w2";
    struct freshness f;
    source.name = source_name;
    conf.workers[0].name = w1;
    conf.workers[1].name = w2;
    assert_int_equal(freshness_from_catalog(&conf, &source, NULL, &f, &e), 0);
    freshness_judge(&f, NOW);
    assert_int_equal(f.state, FRESHNESS_NEVER);
    assert_int_equal(catalog_open(*state, &c, NULL, &e), 0);
    for (int day = 10; day >= 0; day--) {
        struct catalog_run run = {.source = "db", .state = RUN_OK, .has_snapshot = day != 0};
        struct catalog_run_worker workers[2] = {{.worker = "w1", .stored = day != 0},
                                                {.worker = "w2", .error = "away"}};
        int64_t at = NOW - day * 24 * HOUR_US;
        assert_int_equal(catalog_run_begin(c, "db", at, &run.number, &e), 0);
        run.started_at_us = run.as_of_us = at;
        run.ended_at_us = at + US_PER_S;
        run.size_bytes = (uint64_t)(1000000 - day * 1000);
        run.state = day ? RUN_OK : RUN_FAILED;
        assert_int_equal(catalog_run_end(c, &run, workers, 2, &e), 0);
    }
    assert_int_equal(freshness_from_catalog(&conf, &source, c, &f, &e), 0);
    assert_int_equal(freshness_add_growth(&f, c, &e), 0);
    freshness_judge(&f, NOW);
    assert_int_equal(f.state, FRESHNESS_STALE);
    assert_int_equal(f.as_of_us, NOW - 24 * HOUR_US);
    assert_int_equal(f.run.state, RUN_FAILED);
    assert_int_equal(f.size_bytes, 999000); /* of the last that made a snapshot */
    assert_true(f.has_growth);
    assert_int_equal(f.growth_bytes_per_day, 1000);
    assert_string_equal(f.workers[1].error, "away");
    assert_int_equal(f.workers[1].state, FRESHNESS_NEVER);
    catalog_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(states_are_those_of_the_contract),
        cmocka_unit_test(the_best_worker_tells_as_of),
        cmocka_unit_test(what_is_not_known_is_not_fresh),
        cmocka_unit_test(the_worst_decides),
        cmocka_unit_test(nagios_has_one_line),
        cmocka_unit_test(prometheus_has_every_metric),
        cmocka_unit_test(json_is_the_contracts),
        cmocka_unit_test_setup_teardown(the_catalog_tells_runs_and_growth, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
