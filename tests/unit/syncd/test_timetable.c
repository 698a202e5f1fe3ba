/* The timetable over simulated weeks: it is told the time, and what it starts ends at once or after
 * a given while. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/timetable.h"

#define MINUTE_S 60
#define HOUR_S 3600
#define DAY_S 86400
#define START_S INT64_C(1792000000) /* 2026-10-14T17:46:40Z */
#define RUNS_MAX 20000

struct world {
    struct timetable t;
    struct moment now;
    int64_t step_us;
    int64_t takes_us[JOB_KIND_COUNT]; /* how long a job of the kind runs */
    enum job_outcome outcome;
    struct running {
        enum job_kind kind;
        char source[CONF_NAME_MAX + 1];
        int64_t ends_us;
    } running[8];
    size_t running_count, most_backups, most_others;
    struct run {
        enum job_kind kind;
        char source[CONF_NAME_MAX + 1];
        int64_t wall_s, elapsed_s;
    } runs[RUNS_MAX];
    size_t run_count;
};

static struct world *new_world(void)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    timetable_init(&w->t, 42);
    w->now.wall_us = START_S * US_PER_S;
    w->now.elapsed_us = 1000 * US_PER_S;
    w->step_us = 10 * US_PER_S;
    return w;
}

static void free_world(struct world *w)
{
    timetable_free(&w->t);
    free(w);
}

static void set(struct world *w, enum job_kind kind, const char *source, int64_t every_s,
                const char *schedule, int64_t last_s)
{
    struct timetable_plan p = {.kind = kind,
                               .source = source,
                               .every_s = every_s,
                               .schedule = schedule,
                               .last_wall_us = last_s * US_PER_S};
    struct err e = ERR_INIT;
    assert_int_equal(timetable_set(&w->t, &p, &w->now, &e), 0);
}

static void plan(struct world *w, enum job_kind kind, const char *source, int64_t every_s,
                 const char *schedule, int64_t last_s)
{
    timetable_change_begin(&w->t);
    set(w, kind, source, every_s, schedule, last_s);
    timetable_change_end(&w->t);
}

static void end_jobs(struct world *w)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->running_count; i++) {
        struct running r = w->running[i];
        if (r.ends_us > w->now.elapsed_us)
            w->running[kept++] = r;
        else
            timetable_done(&w->t, r.kind, r.source, w->outcome, &w->now);
    }
    w->running_count = kept;
}

static void begin_jobs(struct world *w)
{
    const struct timetable_item *item;
    while ((item = timetable_take(&w->t, &w->now))) {
        assert_true(w->running_count < ARRAY_LEN(w->running) && w->run_count < RUNS_MAX);
        for (size_t i = 0; i < w->running_count; i++)
            assert_false(w->running[i].kind == item->kind &&
                         strcmp(w->running[i].source, item->source) == 0);
        struct running *r = &w->running[w->running_count++];
        r->kind = item->kind;
        snprintf(r->source, sizeof r->source, "%s", item->source);
        r->ends_us = w->now.elapsed_us + w->takes_us[item->kind];
        struct run *run = &w->runs[w->run_count++];
        run->kind = item->kind;
        snprintf(run->source, sizeof run->source, "%s", item->source);
        run->wall_s = w->now.wall_us / US_PER_S;
        run->elapsed_s = w->now.elapsed_us / US_PER_S;
        size_t backups = 0;
        for (size_t i = 0; i < w->running_count; i++)
            backups += w->running[i].kind == JOB_BACKUP;
        w->most_backups = MAX(w->most_backups, backups);
        w->most_others = MAX(w->most_others, w->running_count - backups);
    }
}

static void live(struct world *w, int64_t seconds)
{
    int64_t until_us = w->now.elapsed_us + seconds * US_PER_S;
    while (w->now.elapsed_us < until_us) {
        end_jobs(w);
        begin_jobs(w);
        w->now.wall_us += w->step_us;
        w->now.elapsed_us += w->step_us;
    }
}

/* ---- every ---- */

static void every_keeps_its_beat_for_a_month(void **state)
{
    (void)state;
    struct world *w = new_world();
    plan(w, JOB_BACKUP, "db", 15 * MINUTE_S, NULL, 0);
    w->takes_us[JOB_BACKUP] = 130 * US_PER_S;
    live(w, 31 * DAY_S);
    assert_in_range(w->run_count, 31 * 96 - 1, 31 * 96 + 1);
    for (size_t i = 1; i < w->run_count; i++)
        assert_in_range(w->runs[i].elapsed_s - w->runs[i - 1].elapsed_s, 14 * MINUTE_S,
                        16 * MINUTE_S);
    free_world(w);
}

static void jitter_differs_and_is_bounded(void **state)
{
    (void)state;
    struct world *w = new_world();
    w->step_us = US_PER_S;
    plan(w, JOB_BACKUP, "db", HOUR_S, NULL, 0);
    live(w, 20 * HOUR_S);
    bool differs = false;
    for (size_t i = 1; i < w->run_count; i++) {
        int64_t beat = (w->runs[i].elapsed_s - 1000) % HOUR_S;
        assert_in_range(beat, 0, 61);
        differs |= beat != (w->runs[1].elapsed_s - 1000) % HOUR_S;
    }
    assert_true(differs);
    free_world(w);
}

static void a_long_job_does_not_pile_up(void **state)
{
    (void)state;
    struct world *w = new_world();
    plan(w, JOB_BACKUP, "db", 5 * MINUTE_S, NULL, 0);
    w->takes_us[JOB_BACKUP] = 62 * MINUTE_S * US_PER_S;
    live(w, DAY_S);
    assert_in_range(w->run_count, 22, 24); /* one after the other */
    assert_int_equal(w->most_backups, 1);
    free_world(w);
}

static void missed_runs_are_caught_up_once(void **state)
{
    (void)state;
    struct world *w = new_world();
    plan(w, JOB_BACKUP, "db", HOUR_S, NULL, START_S - 10 * DAY_S); /* off for ten days */
    live(w, 30 * MINUTE_S);
    assert_int_equal(w->run_count, 1);
    assert_in_range(w->runs[0].elapsed_s, 1000, 1070);
    /* Asleep for three days: both clocks go on, nobody looks. */
    w->now.wall_us += 3 * DAY_S * US_PER_S;
    w->now.elapsed_us += 3 * DAY_S * US_PER_S;
    live(w, 30 * MINUTE_S);
    assert_int_equal(w->run_count, 2);
    free_world(w);
}

static void what_ran_lately_is_not_run_again_at_start(void **state)
{
    (void)state;
    struct world *w = new_world();
    plan(w, JOB_BACKUP, "db", HOUR_S, NULL, START_S - 20 * MINUTE_S);
    live(w, 39 * MINUTE_S);
    assert_int_equal(w->run_count, 0);
    live(w, 3 * MINUTE_S);
    assert_int_equal(w->run_count, 1);
    free_world(w);
}

static void clock_jumps_do_not_touch_every(void **state)
{
    (void)state;
    struct world *w = new_world();
    plan(w, JOB_BACKUP, "db", HOUR_S, NULL, 0);
    live(w, 10 * HOUR_S);
    w->now.wall_us += 400 * DAY_S * US_PER_S;
    live(w, 10 * HOUR_S);
    w->now.wall_us -= 800 * DAY_S * US_PER_S;
    live(w, 10 * HOUR_S);
    assert_in_range(w->run_count, 29, 31);
    free_world(w);
}

/* The catalog says that the last run was next year. */
static void a_last_run_in_the_future_does_not_stall(void **state)
{
    (void)state;
    struct world *w = new_world();
    plan(w, JOB_BACKUP, "db", HOUR_S, NULL, START_S + 365 * DAY_S);
    live(w, 62 * MINUTE_S);
    assert_int_equal(w->run_count, 1);
    timetable_change_begin(&w->t);
    set(w, JOB_BACKUP, "cron", 0, "0 * * * *", START_S + 365 * DAY_S);
    timetable_change_end(&w->t);
    w->run_count = 0;
    live(w, 3 * HOUR_S);
    assert_int_equal(w->run_count, 3);
    free_world(w);
}

/* ---- schedules ---- */

static void set_zone(const char *zone)
{
    setenv("TZ", zone, 1);
    tzset();
}

static void schedule_through_daylight_saving(void **state)
{
    (void)state;
    set_zone("Europe/Berlin");
    struct world *w = new_world();
    plan(w, JOB_BACKUP, "db", 0, "30 2 * * *", START_S);
    live(w, 200 * DAY_S); /* 25 October 2026 back, 28 March 2027 forth */
    assert_int_equal(w->run_count, 200);
    for (size_t i = 0; i < w->run_count; i++) {
        struct tm tm;
        time_t at = (time_t)w->runs[i].wall_s;
        localtime_r(&at, &tm);
        int minute = tm.tm_hour * 60 + tm.tm_min;
        bool skipped = tm.tm_mon == 2 && tm.tm_mday == 28; /* 02:30 is not there: 03:00 */
        assert_in_range(minute, skipped ? 180 : 150, skipped ? 182 : 152);
    }
    free_world(w);
    set_zone("UTC0");
}

static void schedule_after_sleep_runs_once(void **state)
{
    (void)state;
    set_zone("UTC0");
    struct world *w = new_world();
    plan(w, JOB_BACKUP, "db", 0, "0 * * * *", START_S - 5 * DAY_S);
    live(w, 10 * MINUTE_S);
    assert_int_equal(w->run_count, 1);
    live(w, 5 * HOUR_S);
    assert_int_equal(w->run_count, 6);
    free_world(w);
}

static void schedule_through_clock_jumps(void **state)
{
    (void)state;
    set_zone("UTC0");
    struct world *w = new_world();
    plan(w, JOB_BACKUP, "db", 0, "0 * * * *", START_S);
    live(w, 3 * HOUR_S);
    size_t before = w->run_count;
    w->now.wall_us += 2 * DAY_S * US_PER_S; /* forth: once, then on the hour */
    live(w, 3 * HOUR_S);
    assert_in_range(w->run_count - before, 3, 4);
    before = w->run_count;
    w->now.wall_us -= 3 * DAY_S * US_PER_S; /* back: no stall of three days */
    live(w, 3 * HOUR_S);
    assert_in_range(w->run_count - before, 3, 3);
    /* A small step back over a time that is done does not repeat it. */
    before = w->run_count;
    while (w->run_count == before)
        live(w, 10);
    w->now.wall_us -= 5 * MINUTE_S * US_PER_S;
    live(w, 30 * MINUTE_S);
    assert_int_equal(w->run_count, before + 1);
    free_world(w);
}

/* ---- failures ---- */

static void failures_back_off_and_are_capped(void **state)
{
    (void)state;
    struct world *w = new_world();
    w->outcome = JOB_FAILED;
    plan(w, JOB_BACKUP, "db", 7 * DAY_S, NULL, 0);
    live(w, 2 * DAY_S);
    int64_t gap_s = 0;
    for (size_t i = 1; i < w->run_count; i++) {
        gap_s = w->runs[i].elapsed_s - w->runs[i - 1].elapsed_s;
        assert_in_range(gap_s, 60, 37 * MINUTE_S);
    }
    assert_in_range(w->runs[1].elapsed_s - w->runs[0].elapsed_s, 60, 82);
    assert_true(gap_s >= 30 * MINUTE_S);
    assert_in_range(w->run_count, 80, 105);
    w->outcome = JOB_DONE;
    live(w, HOUR_S);
    size_t before = w->run_count;
    live(w, 2 * DAY_S);
    assert_int_equal(w->run_count, before); /* well again: the regular time comes next */
    free_world(w);
}

static void a_retry_never_delays_the_regular_time(void **state)
{
    (void)state;
    struct world *w = new_world();
    w->step_us = US_PER_S;
    w->outcome = JOB_FAILED;
    plan(w, JOB_BACKUP, "db", 5, NULL, 0);
    live(w, HOUR_S);
    assert_in_range(w->run_count, 710, 721);
    free_world(w);
}

static void a_partial_run_is_tried_three_times_more(void **state)
{
    (void)state;
    struct world *w = new_world();
    w->outcome = JOB_PARTIAL;
    plan(w, JOB_BACKUP, "db", DAY_S, NULL, 0);
    live(w, 23 * HOUR_S);
    assert_int_equal(w->run_count, 4);
    live(w, 24 * HOUR_S);
    assert_int_equal(w->run_count, 5);
    free_world(w);
}

/* A worker that is away for two days is looked for all the time, but ever less often. */
static void a_later_request_goes_on_until_it_succeeds(void **state)
{
    (void)state;
    struct world *w = new_world();
    plan(w, JOB_SYNC, "", 0, NULL, 0);
    live(w, HOUR_S);
    assert_int_equal(w->run_count, 0);
    w->outcome = JOB_FAILED;
    timetable_request_later(&w->t, JOB_SYNC, "", &w->now);
    timetable_request_later(&w->t, JOB_SYNC, "", &w->now);
    timetable_request_later(&w->t, JOB_SYNC, "no such item", &w->now);
    live(w, 4 * MINUTE_S);
    assert_int_equal(w->run_count, 0);
    live(w, 2 * DAY_S);
    assert_in_range(w->run_count, 2 * 24 * 60 / 36, 2 * 24 * 2 + 4);
    w->outcome = JOB_DONE;
    live(w, HOUR_S);
    size_t so_far = w->run_count;
    live(w, DAY_S);
    assert_int_equal(w->run_count, so_far);
    free_world(w);
}

/* ---- several jobs ---- */

static void limits_hold_and_backups_go_first(void **state)
{
    (void)state;
    struct world *w = new_world();
    const char *names[] = {"a", "b", "c", "d"};
    timetable_change_begin(&w->t);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        set(w, JOB_VERIFY, names[i], DAY_S, NULL, 0);
        set(w, JOB_BACKUP, names[i], HOUR_S, NULL, 0);
    }
    set(w, JOB_PRUNE, "", DAY_S, NULL, 0);
    timetable_change_end(&w->t);
    w->takes_us[JOB_BACKUP] = 25 * MINUTE_S * US_PER_S;
    w->takes_us[JOB_VERIFY] = 5 * HOUR_S * US_PER_S;
    live(w, 7 * DAY_S);
    assert_int_equal(w->most_backups, 2);
    assert_int_equal(w->most_others, 1);
    size_t of[JOB_KIND_COUNT] = {0};
    for (size_t i = 0; i < w->run_count; i++)
        of[w->runs[i].kind]++;
    assert_in_range(of[JOB_BACKUP], 4 * 24 * 7 - 8, 4 * 24 * 7 + 4); /* verify holds none up */
    assert_in_range(of[JOB_VERIFY], 26, 28);
    assert_in_range(of[JOB_PRUNE], 7, 8);
    free_world(w);
}

static void a_request_runs_once_and_waits_for_a_retry(void **state)
{
    (void)state;
    struct world *w = new_world();
    plan(w, JOB_SYNC, "", 0, NULL, 0);
    live(w, DAY_S);
    assert_int_equal(w->run_count, 0);
    assert_int_equal(timetable_next(&w->t, &w->now), INT64_MAX);
    timetable_request(&w->t, JOB_SYNC, "");
    timetable_request(&w->t, JOB_SYNC, "");
    timetable_request(&w->t, JOB_SYNC, "unknown");
    live(w, HOUR_S);
    assert_int_equal(w->run_count, 1);
    w->outcome = JOB_FAILED;
    timetable_request(&w->t, JOB_SYNC, "");
    live(w, 2 * MINUTE_S);
    assert_int_equal(w->run_count, 2);
    timetable_request(&w->t, JOB_SYNC, "");
    live(w, 2 * MINUTE_S);
    assert_int_equal(w->run_count, 2);
    live(w, 5 * MINUTE_S);
    assert_int_equal(w->run_count, 3);
    free_world(w);
}

static void a_change_keeps_times_and_drops_what_is_gone(void **state)
{
    (void)state;
    struct world *w = new_world();
    w->takes_us[JOB_BACKUP] = 10 * MINUTE_S * US_PER_S;
    timetable_change_begin(&w->t);
    set(w, JOB_BACKUP, "stays", HOUR_S, NULL, START_S - 30 * MINUTE_S);
    set(w, JOB_BACKUP, "goes", HOUR_S, NULL, 0);
    timetable_change_end(&w->t);
    live(w, 5 * MINUTE_S);
    assert_int_equal(w->run_count, 1); /* "goes" runs */
    int64_t wall_us = timetable_next_wall(&w->t, JOB_BACKUP, "stays", &w->now);
    plan(w, JOB_BACKUP, "stays", HOUR_S, NULL, 0);
    assert_int_equal(timetable_next_wall(&w->t, JOB_BACKUP, "stays", &w->now), wall_us);
    assert_int_equal(timetable_next_wall(&w->t, JOB_BACKUP, "goes", &w->now), 0);
    assert_int_equal(w->t.count, 2); /* until it has ended */
    live(w, 10 * MINUTE_S);
    assert_int_equal(w->t.count, 1);
    live(w, 20 * MINUTE_S);
    assert_int_equal(w->run_count, 2);
    assert_string_equal(w->runs[1].source, "stays");
    free_world(w);
}

static void a_bad_schedule_is_an_error(void **state)
{
    (void)state;
    struct world *w = new_world();
    struct timetable_plan p = {.kind = JOB_BACKUP, .source = "db", .schedule = "61 * * * *"};
    struct err e = ERR_INIT;
    assert_int_equal(timetable_set(&w->t, &p, &w->now, &e), ERR_CONFIG);
    assert_int_equal(w->t.count, 0);
    free_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_keeps_its_beat_for_a_month),
        cmocka_unit_test(jitter_differs_and_is_bounded),
        cmocka_unit_test(a_long_job_does_not_pile_up),
        cmocka_unit_test(missed_runs_are_caught_up_once),
        cmocka_unit_test(what_ran_lately_is_not_run_again_at_start),
        cmocka_unit_test(clock_jumps_do_not_touch_every),
        cmocka_unit_test(a_last_run_in_the_future_does_not_stall),
        cmocka_unit_test(schedule_through_daylight_saving),
        cmocka_unit_test(schedule_after_sleep_runs_once),
        cmocka_unit_test(schedule_through_clock_jumps),
        cmocka_unit_test(failures_back_off_and_are_capped),
        cmocka_unit_test(a_retry_never_delays_the_regular_time),
        cmocka_unit_test(a_partial_run_is_tried_three_times_more),
        cmocka_unit_test(a_later_request_goes_on_until_it_succeeds),
        cmocka_unit_test(limits_hold_and_backups_go_first),
        cmocka_unit_test(a_request_runs_once_and_waits_for_a_retry),
        cmocka_unit_test(a_change_keeps_times_and_drops_what_is_gone),
        cmocka_unit_test(a_bad_schedule_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
