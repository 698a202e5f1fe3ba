/* schedule.c against a walker that looks at every minute of the wall clock by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "conf/schedule.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define DAY_S 86400

static void set_zone(const char *zone)
{
    setenv("TZ", zone, 1);
    tzset();
}

static int64_t utc(int year, int month, int day, int hour, int minute)
{
    struct tm tm = {.tm_year = year - 1900,
                    .tm_mon = month - 1,
                    .tm_mday = day,
                    .tm_hour = hour,
                    .tm_min = minute};
    return (int64_t)timegm(&tm);
}

static struct schedule parsed(const char *text)
{
    struct schedule s;
    struct err e = ERR_INIT;
    if (schedule_parse(text, &s, &e))
        fail_msg("%s: %s", text, e.message);
    return s;
}

static void assert_next(const char *text, int64_t after, int64_t want)
{
    struct schedule s = parsed(text);
    int64_t got = schedule_next(&s, after);
    if (got != want)
        fail_msg("%s after %lld: got %lld, want %lld", text, (long long)after, (long long)got,
                 (long long)want);
}

static void fields_mean_what_crontab_says(void **state)
{
    (void)state;
    set_zone("UTC0");
    int64_t noon = utc(2026, 11, 21, 12, 0); /* a Saturday */
    assert_next("* * * * *", noon, noon + 60);
    assert_next("* * * * *", noon + 59, noon + 60);
    assert_next("*/15 * * * *", noon, noon + 900);
    assert_next("7-59/20 * * * *", noon, noon + 420);
    assert_next("0 12 * * *", noon, noon + DAY_S);
    assert_next("0 12 * * *", noon - 1, noon);
    assert_next("30 2 * * sun", noon, utc(2026, 11, 22, 2, 30));
    assert_next("30 2 * * 7", noon, utc(2026, 11, 22, 2, 30));
    assert_next("30 2 * * 0", noon, utc(2026, 11, 22, 2, 30));
    assert_next("30 2 * * 5-7", noon, utc(2026, 11, 22, 2, 30));
    assert_next("30 2 * * MON,Wed", noon, utc(2026, 11, 23, 2, 30));
    assert_next("0 0 1 jan-mar *", noon, utc(2027, 1, 1, 0, 0));
    assert_next("  0\t0  29 2 * ", noon, utc(2028, 2, 29, 0, 0));
    assert_next("0 0 29 2 *", utc(2096, 3, 1, 0, 0), utc(2104, 2, 29, 0, 0));
    assert_next("0 0 31 * *", noon, utc(2026, 12, 31, 0, 0));
}

static void day_and_weekday_are_ored_when_both_are_restricted(void **state)
{
    (void)state;
    set_zone("UTC0");
    int64_t noon = utc(2026, 11, 21, 12, 0);
    assert_next("0 0 1 * 1", noon, utc(2026, 11, 23, 0, 0));                   /* a Monday */
    assert_next("0 0 1 * 1", utc(2026, 11, 30, 0, 0), utc(2026, 12, 1, 0, 0)); /* a first */
    assert_next("0 0 30 2 1", noon, utc(2027, 2, 1, 0, 0)); /* never the 30th, but Mondays */
    /* A field that begins with * restricts nothing: both must match. */
    assert_next("0 0 */10 * 1", noon, utc(2026, 12, 21, 0, 0));
    assert_next("0 0 29 2 */7", noon, utc(2032, 2, 29, 0, 0));
}

static void mistakes_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"", "found 0 fields"},
        {"* * * *", "found 4 fields"},
        {"* * * * * *", "found 6 fields"},
        {"@daily", "0 0 * * *"},
        {"60 * * * *", "for the minute"},
        {"* 24 * * *", "for the hour"},
        {"* * 0 * *", "for the day of month"},
        {"* * 32 * *", "for the day of month"},
        {"* * * 13 *", "for the month"},
        {"* * * foo *", "for the month"},
        {"* * * * 8", "for the day of week"},
        {"* * * * sunday", "for the day of week"},
        {"5-1 * * * *", "for the minute"},
        {"*/0 * * * *", "for the minute"},
        {"*/ * * * *", "for the minute"},
        {"5/2 * * * *", "for the minute"},
        {"1,,2 * * * *", "for the minute"},
        {"1, * * * *", "for the minute"},
        {"-1 * * * *", "for the minute"},
        {"1- * * * *", "for the minute"},
        {"99999999999999999999 * * * *", "for the minute"},
        {"0 0 30 2 *", "never comes"},
        {"0 0 31 2,4,6,9,11 *", "never comes"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct schedule s;
        struct err e = ERR_INIT;
        assert_int_equal(schedule_parse(cases[i].text, &s, &e), ERR_CONFIG);
        if (!strstr(e.message, cases[i].part))
            fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].text, e.message, cases[i].part);
    }
}

#define CENTRAL_EUROPE "CET-1CEST,M3.5.0,M10.5.0/3"

static void skipped_times_run_after_the_gap_and_repeated_ones_once(void **state)
{
    (void)state;
    set_zone(CENTRAL_EUROPE);
    /* 29 March 2026: 02:00 becomes 03:00 at 01:00 UTC. */
    assert_next("30 2 * * *", utc(2026, 3, 28, 12, 0), utc(2026, 3, 29, 1, 0));
    assert_next("30 2 * * *", utc(2026, 3, 29, 1, 0), utc(2026, 3, 30, 0, 30));
    assert_next("15,30 2-3 * * *", utc(2026, 3, 29, 1, 0), utc(2026, 3, 29, 1, 15));
    /* 25 October 2026: 03:00 becomes 02:00 at 01:00 UTC. */
    assert_next("30 2 * * *", utc(2026, 10, 24, 12, 0), utc(2026, 10, 25, 0, 30));
    assert_next("30 2 * * *", utc(2026, 10, 25, 0, 30), utc(2026, 10, 26, 1, 30));
    assert_next("30 2 * * *", utc(2026, 10, 25, 1, 10), utc(2026, 10, 26, 1, 30));
    /* A schedule for every hour goes on through both. */
    assert_next("*/15 * * * *", utc(2026, 3, 29, 0, 45), utc(2026, 3, 29, 1, 0));
    assert_next("*/15 * * * *", utc(2026, 10, 25, 0, 45), utc(2026, 10, 25, 1, 0));
    assert_next("*/15 * * * *", utc(2026, 10, 25, 1, 0), utc(2026, 10, 25, 1, 15));
}

/* ---- The walker ---- */

static bool wall_matches(const struct schedule *s, const struct tm *tm)
{
    bool day = s->days >> tm->tm_mday & 1, weekday = s->weekdays >> tm->tm_wday & 1;
    bool date = s->any_day || s->any_weekday ? day && weekday : day || weekday;
    return (s->minutes >> tm->tm_min & 1) && (s->hours >> tm->tm_hour & 1) &&
           (s->months >> (tm->tm_mon + 1) & 1) && date;
}

/* A wall clock reading as a count of minutes. */
static int64_t reading(struct tm tm)
{
    return (int64_t)timegm(&tm) / 60;
}

static bool reading_matches(const struct schedule *s, int64_t minute)
{
    time_t t = (time_t)(minute * 60);
    struct tm tm;
    gmtime_r(&t, &tm);
    return wall_matches(s, &tm);
}

/* Whether `t`, a whole minute, is a run; `seen` is the highest reading that the wall had before. */
static bool is_run(const struct schedule *s, int64_t t, int64_t *seen)
{
    time_t at = (time_t)t;
    struct tm tm;
    localtime_r(&at, &tm);
    int64_t now = reading(tm);
    if (s->hours == 0xffffff)
        return wall_matches(s, &tm);
    bool run = false;
    for (int64_t m = *seen + 1; m <= now; m++) /* also those skipped; none if repeated */
        run = run || reading_matches(s, m);
    *seen = now > *seen ? now : *seen;
    return run;
}

static uint64_t seed_state;

static unsigned pick(unsigned below)
{
    seed_state = seed_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(seed_state >> 33) % below;
}

static void random_field(char *out, size_t size, int low, int high)
{
    int a = low + (int)pick((unsigned)(high - low + 1));
    int b = a + (int)pick((unsigned)(high - a + 1));
    switch (pick(6)) {
    case 0:
        snprintf(out, size, "%d", a);
        break;
    case 1:
        snprintf(out, size, "%d-%d", a, b);
        break;
    case 2:
        snprintf(out, size, "*/%d", 1 + (int)pick(20));
        break;
    case 3:
        snprintf(out, size, "%d,%d-%d/3", a, a, b);
        break;
    default:
        snprintf(out, size, "*");
    }
}

/* Around a change of the clocks in each of these zones (UTC second of the change). */
static const struct {
    const char *zone;
    int year, month, day;
} changes[] = {
    {CENTRAL_EUROPE, 2026, 3, 29},
    {CENTRAL_EUROPE, 2026, 10, 25},
    {"EST5EDT,M3.2.0,M11.1.0", 2026, 3, 8},
    {"EST5EDT,M3.2.0,M11.1.0", 2026, 11, 1},
    {"<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", 2026, 4, 4}, /* half an hour */
    {"<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", 2026, 10, 3},
    {"<-03>3<-02>,M10.3.0/0,M2.3.0/0", 2026, 10, 18},   /* midnight is skipped */
    {"<-03>3<-02>,M10.3.0/0,M2.3.0/0", 2026, 2, 15},    /* 23:00 is repeated */
    {"<-03>3<-02>,M10.3.0/0,M2.3.0/0:30", 2026, 2, 15}, /* from 00:30 back to 23:30 */
    {"<-0330>3:30<-0230>,M4.1.0/0:01,M10.5.0/0:01", 2026, 10, 25},
    {"CST5CDT,M3.2.0/0,M11.1.0/1", 2026, 11, 1},    /* midnight is repeated */
    {"AAA10BBB-14,M3.2.0/0,M11.1.0/0", 2026, 3, 8}, /* a whole day is skipped */
    {"UTC0", 2026, 12, 31},
};

static void compare_with_walker(const char *text, const struct schedule *s, size_t change)
{
    int64_t begin =
        utc(changes[change].year, changes[change].month, changes[change].day, 0, 0) - 2 * DAY_S;
    int64_t end = begin + 5 * DAY_S;
    time_t before = (time_t)(begin - 60);
    struct tm tm;
    localtime_r(&before, &tm);
    int64_t seen = reading(tm);
    int64_t next = schedule_next(s, begin - 1);
    for (int64_t t = begin; t < end; t += 60) {
        bool want = is_run(s, t, &seen);
        if (want != (next == t))
            fail_msg("\"%s\" in %s: %s at %lld, next is %lld", text, changes[change].zone,
                     want ? "missed a run" : "ran", (long long)t, (long long)next);
        if (next == t)
            next = schedule_next(s, t + (int64_t)pick(60));
    }
    assert_true(next >= end);
}

static void agrees_with_a_minute_walker(void **state)
{
    (void)state;
    seed_state = (uint64_t)time(NULL);
    const char *given = getenv("SYNCD_TEST_SEED");
    if (given)
        seed_state = strtoull(given, NULL, 10);
    print_message("SYNCD_TEST_SEED=%llu\n", (unsigned long long)seed_state);
    for (int round = 0; round < 200; round++) {
        char f[5][32], text[200];
        random_field(f[0], sizeof f[0], 0, 59);
        random_field(f[1], sizeof f[1], 0, 23);
        random_field(f[2], sizeof f[2], 1, 31);
        snprintf(f[3], sizeof f[3], "%s", pick(4) ? "*" : "2-4,10-12");
        random_field(f[4], sizeof f[4], 0, 7);
        snprintf(text, sizeof text, "%s %s %s %s %s", f[0], f[1], f[2], f[3], f[4]);
        size_t change = pick(ARRAY_LEN(changes));
        struct schedule s;
        set_zone(changes[change].zone);
        if (schedule_parse(text, &s, NULL) == 0)
            compare_with_walker(text, &s, change);
    }
}

static int64_t gap_by_walking(const struct schedule *s, int64_t from)
{
    int64_t longest = 0;
    int64_t run = schedule_next(s, from);
    do {
        int64_t next = schedule_next(s, run);
        longest = MAX(longest, next - run);
        run = next;
    } while (run < from + INT64_C(366) * DAY_S);
    return longest;
}

static void longest_gap_is_that_of_a_whole_year(void **state)
{
    (void)state;
    set_zone("UTC0");
    int64_t from = utc(2026, 5, 10, 7, 3);
    struct schedule leap = parsed("0 0 29 2 *"), daily = parsed("0 3 * * *");
    assert_int_equal(schedule_longest_gap(&daily, from), DAY_S);
    assert_int_equal(schedule_longest_gap(&leap, from), INT64_C(1461) * DAY_S);
    set_zone(CENTRAL_EUROPE);
    assert_int_equal(schedule_longest_gap(&daily, from), DAY_S + 3600);
    static const char *const texts[] = {"7 * * * *",         "*/30 */2 * * *", "17 */6 * * *",
                                        "0 9-17 * * 1-5",    "30 2 * * sun",   "59 23 28-31 * *",
                                        "0,1 0,23 * 3,10 *", "5 4 1 1 *"};
    for (size_t z = 0; z < ARRAY_LEN(changes); z++) {
        set_zone(changes[z].zone);
        for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
            struct schedule s = parsed(texts[i]);
            if (schedule_longest_gap(&s, from) != gap_by_walking(&s, from))
                fail_msg("%s in %s: %lld, by walking %lld", texts[i], changes[z].zone,
                         (long long)schedule_longest_gap(&s, from),
                         (long long)gap_by_walking(&s, from));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_mean_what_crontab_says),
        cmocka_unit_test(day_and_weekday_are_ored_when_both_are_restricted),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(skipped_times_run_after_the_gap_and_repeated_ones_once),
        cmocka_unit_test(agrees_with_a_minute_walker),
        cmocka_unit_test(longest_gap_is_that_of_a_whole_year),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
