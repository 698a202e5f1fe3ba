#include "syncd/retention.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "conf/conf.h"
#include "syncd/base/clock.h"

#define MINUTE INT64_C(60)
#define HOUR INT64_C(3600)
#define DAY INT64_C(86400)
#define START INT64_C(1735689600) /* 2025-01-01 00:00 UTC, a Wednesday */
#define ONE 1u

static const struct conf_keep usual = {
    .last = 4, .hourly = 24, .daily = 14, .weekly = 8, .monthly = 12};

/* A row of snapshots, as a source's history grows and is pruned. */
struct row {
    size_t count;
    struct retention_item items[4096];
};

static void put(struct row *r, int64_t t_s)
{
    assert_true(r->count < 4096);
    r->items[r->count++] = (struct retention_item){.time_us = t_s * US_PER_S, .groups = ONE};
}

static void judge(struct row *r, const struct conf_keep *keep, int64_t now_s)
{
    for (size_t i = 0; i < r->count; i++)
        r->items[i].rules = 0;
    retention_judge(keep, now_s * US_PER_S, ONE, r->items, r->count);
}

static void prune(struct row *r, const struct conf_keep *keep, int64_t now_s)
{
    size_t n = 0;
    judge(r, keep, now_s);
    for (size_t i = 0; i < r->count; i++)
        if (r->items[i].rules)
            r->items[n++] = r->items[i];
    r->count = n;
}

static bool has(const struct row *r, int64_t t_s)
{
    for (size_t i = 0; i < r->count; i++)
        if (r->items[i].time_us == t_s * US_PER_S)
            return true;
    return false;
}

/* ---- the calendar, told by another way than the code's ---- */

static void bucket_text(char kind, int64_t t_s, char ret[static 32])
{
    time_t t = (time_t)t_s;
    struct tm tm;
    gmtime_r(&t, &tm);
    size_t n = kind == 'h'   ? strftime(ret, 32, "%Y%m%d%H", &tm)
               : kind == 'd' ? strftime(ret, 32, "%Y%m%d", &tm)
               : kind == 'w' ? strftime(ret, 32, "%G%V", &tm)
               : kind == 'm' ? strftime(ret, 32, "%Y%m", &tm)
                             : strftime(ret, 32, "%Y", &tm);
    assert_true(n > 0);
}

/* Whether a rule keeps the snapshot of a history that has one every 15 minutes from `start` to
 * `end`: it is the last of its period, and fewer than `n` periods are newer. */
static bool is_last_of_newest(char kind, uint32_t n, int64_t t_s, int64_t end_s)
{
    char own[32], other[32], before[32] = "";
    bucket_text(kind, t_s, own);
    if (t_s + 15 * MINUTE <= end_s) {
        bucket_text(kind, t_s + 15 * MINUTE, other);
        if (strcmp(own, other) == 0)
            return false;
    }
    uint32_t newer = 0;
    for (int64_t t = end_s; t > t_s && newer < n; t -= kind == 'h' ? 15 * MINUTE : HOUR) {
        bucket_text(kind, t, other);
        newer += strcmp(other, before) != 0 && strcmp(other, own) != 0;
        memcpy(before, other, sizeof before);
    }
    return newer < n;
}

static bool expected(const struct conf_keep *k, int64_t t_s, int64_t end_s)
{
    return t_s > end_s - (int64_t)k->last * 15 * MINUTE ||
           (k->hourly && is_last_of_newest('h', k->hourly, t_s, end_s)) ||
           (k->daily && is_last_of_newest('d', k->daily, t_s, end_s)) ||
           (k->weekly && is_last_of_newest('w', k->weekly, t_s, end_s)) ||
           (k->monthly && is_last_of_newest('m', k->monthly, t_s, end_s)) ||
           (k->yearly && is_last_of_newest('y', k->yearly, t_s, end_s));
}

/* Ten years, a snapshot every 15 minutes, pruned after each: what is left is what the whole history
 * would leave, and it never grows. */
static void ten_years(void **state)
{
    (void)state;
    struct conf_keep keep = usual;
    keep.yearly = 10;
    static struct row r;
    r.count = 0;
    size_t most = 0;
    int64_t end = START + 3652 * DAY;
    for (int64_t t = START; t <= end; t += 15 * MINUTE) {
        put(&r, t);
        prune(&r, &keep, t);
        most = r.count > most ? r.count : most;
        assert_true(has(&r, t));
    }
    assert_in_range(most, 60, 4 + 24 + 14 + 8 + 12 + 10);
    size_t found = 0;
    for (int64_t t = end; t >= START && found < r.count; t -= 15 * MINUTE) {
        /* Beyond the dailies only the last of a day can be kept. */
        if (t < end - 16 * DAY && (t + 15 * MINUTE) % DAY != 0)
            continue;
        bool want = expected(&keep, t, end);
        assert_int_equal(has(&r, t), want);
        found += want;
    }
    assert_int_equal(found, r.count);
}

static void assert_same(const struct row *a, const struct row *b)
{
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++)
        assert_int_equal(a->items[i].time_us, b->items[i].time_us);
}

static uint64_t seed;

static uint64_t rnd(uint64_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % below;
}

static struct conf_keep random_keep(void)
{
    struct conf_keep k = {.last = (uint32_t)rnd(4),
                          .hourly = (uint32_t)rnd(6),
                          .daily = (uint32_t)rnd(6),
                          .weekly = (uint32_t)rnd(4),
                          .monthly = (uint32_t)rnd(4),
                          .yearly = (uint32_t)rnd(3),
                          .within_s = (int64_t)rnd(3) * 5 * DAY};
    return k;
}

/* Clocks that only go forward, with gaps of any kind. */
static int64_t fill(struct row *r, size_t n)
{
    int64_t t = START;
    r->count = 0;
    for (size_t i = 0; i < n; i++) {
        t += (int64_t)rnd(rnd(10) ? (uint64_t)HOUR : (uint64_t)(20 * DAY));
        put(r, t);
    }
    return t;
}

/* Any wrong clock: ahead, behind, at zero, for one snapshot or for many. */
static int64_t fill_wildly(struct row *r, size_t n)
{
    int64_t t = START, off = 0;
    r->count = 0;
    for (size_t i = 0; i < n; i++) {
        t += (int64_t)rnd(6 * HOUR);
        if (rnd(20) == 0)
            off = rnd(2) ? 0 : (int64_t)rnd(4000 * DAY) - 2000 * DAY;
        put(r, rnd(50) ? t + off : (int64_t)rnd(3) * (INT64_MAX / 2000000));
    }
    return t;
}

static void twice_is_once(void **state)
{
    (void)state;
    static struct row r, once;
    for (seed = 1; seed < 400; seed++) {
        struct conf_keep keep = random_keep();
        int64_t now = seed % 2 ? fill(&r, 300) : fill_wildly(&r, 300);
        prune(&r, &keep, now);
        once = r;
        prune(&r, &keep, now);
        assert_same(&r, &once);
    }
}

/* What was dropped is not asked for again, however often or seldom was pruned meanwhile. */
static void dropped_is_dropped(void **state)
{
    (void)state;
    static struct row all, step, whole;
    for (seed = 1; seed < 400; seed++) {
        struct conf_keep keep = random_keep();
        int64_t now = fill(&all, 300);
        step.count = 0;
        for (size_t i = 0; i < all.count; i++) {
            put(&step, all.items[i].time_us / US_PER_S);
            if (rnd(5) == 0)
                prune(&step, &keep, all.items[i].time_us / US_PER_S);
        }
        prune(&step, &keep, now);
        whole = all;
        prune(&whole, &keep, now);
        assert_same(&step, &whole);
    }
}

static void more_allowed_keeps_more(void **state)
{
    (void)state;
    static struct row less, more;
    for (seed = 1; seed < 200; seed++) {
        struct conf_keep keep = random_keep();
        int64_t now = seed % 2 ? fill(&less, 300) : fill_wildly(&less, 300);
        more = less;
        judge(&less, &keep, now);
        keep.last += (uint32_t)rnd(2);
        keep.daily += (uint32_t)rnd(2);
        keep.monthly += (uint32_t)rnd(2);
        keep.within_s += (int64_t)rnd(2) * DAY;
        judge(&more, &keep, now);
        for (size_t i = 0; i < less.count; i++)
            assert_true(!less.items[i].rules || more.items[i].rules);
    }
}

static void any_rule_keeps_the_newest(void **state)
{
    (void)state;
    static struct row r;
    for (seed = 1; seed < 200; seed++) {
        struct conf_keep keep = random_keep();
        int64_t now = fill(&r, 50);
        judge(&r, &keep, now);
        bool any = keep.last || keep.hourly || keep.daily || keep.weekly || keep.monthly ||
                   keep.yearly || keep.within_s;
        assert_int_equal(r.items[49].rules != 0, any);
    }
}

/* Snapshots with a clock at 1970 or years ahead, up to three in a row, cost none of the others
 * their place. */
static void a_jump_costs_nothing(void **state)
{
    (void)state;
    struct conf_keep keep = {.daily = 5, .within_s = 3 * DAY};
    static const int64_t wrong[] = {0, START + 1500 * DAY, 3 * DAY};
    for (unsigned mask = 1; mask < 8; mask++) {
        static struct row r, without;
        bool is_wrong[16] = {0};
        r.count = without.count = 0;
        for (int day = 0; day < 10; day++) {
            put(&r, START + day * DAY);
            put(&without, START + day * DAY);
            for (size_t k = 0; day == 7 && k < 3; k++) {
                if (!(mask & 1u << k))
                    continue;
                is_wrong[r.count] = true;
                put(&r, wrong[k]);
            }
        }
        judge(&r, &keep, START + 9 * DAY);
        judge(&without, &keep, START + 9 * DAY);
        for (size_t i = 0, k = 0; i < r.count; i++) {
            if (is_wrong[i])
                assert_true(r.items[i].rules);
            else
                assert_int_equal(r.items[i].rules, without.items[k++].rules);
        }
    }
}

/* A clock that starts at the same time after each start of the machine: what is kept stays bounded.
 */
static void a_clock_that_is_never_set_fills_nothing(void **state)
{
    (void)state;
    static struct row r;
    r.count = 0;
    for (int boot = 0; boot < 500; boot++) {
        for (int64_t t = 0; t < 8 * HOUR; t += HOUR) {
            put(&r, START + t);
            prune(&r, &usual, START + t);
        }
    }
    assert_in_range(r.count, 8, 2 * (4 + 24 + 14 + 8 + 12));
}

/* Ten days with the clock at 2020, pruned all the time: they are ten days, and the days before stay
 * as long as they would have. */
static void days_in_the_past_are_days(void **state)
{
    (void)state;
    struct conf_keep keep = {.last = 1, .daily = 14};
    static struct row r;
    r.count = 0;
    for (int64_t t = 0; t < 24 * DAY; t += HOUR) {
        bool wrong = t >= 10 * DAY && t < 20 * DAY;
        int64_t shown = wrong ? START - 2000 * DAY + t : START + t;
        put(&r, shown);
        prune(&r, &keep, shown);
    }
    assert_in_range(r.count, 14, 28);
    for (int64_t day = 10; day < 20; day++)
        assert_true(has(&r, START - 2000 * DAY + (day + 1) * DAY - HOUR));
}

static void within_counts_from_the_newest(void **state)
{
    (void)state;
    struct conf_keep keep = {.within_s = 2 * DAY};
    static struct row r;
    r.count = 0;
    put(&r, START - 3 * DAY);
    put(&r, START - 2 * DAY);
    put(&r, START);
    judge(&r, &keep, START + 100 * DAY); /* the leader was off */
    assert_int_equal(r.items[0].rules, 0);
    assert_int_equal(r.items[1].rules, 1u << RETENTION_WITHIN);
    put(&r, START + 400 * DAY); /* not believed: nothing goes because of it */
    judge(&r, &keep, START + DAY);
    assert_int_equal(r.items[1].rules, 1u << RETENTION_WITHIN);
    assert_int_equal(r.items[3].rules, 1u << RETENTION_WITHIN);
    judge(&r, &keep, START - 500 * DAY); /* now is what is wrong */
    for (size_t i = 0; i < r.count; i++)
        assert_int_equal(r.items[i].rules, 1u << RETENTION_WITHIN);
}

static void groups_do_not_see_each_other(void **state)
{
    (void)state;
    struct conf_keep keep = {.last = 1};
    struct retention_item items[] = {
        {.time_us = 1, .groups = 1}, {.time_us = 2, .groups = 2}, {.time_us = 3, .groups = 2}};
    retention_judge(&keep, 10, 1, items, 3);
    retention_judge(&keep, 10, 2, items, 3);
    assert_int_equal(items[0].rules, 1);
    assert_int_equal(items[1].rules, 0);
    assert_int_equal(items[2].rules, 1);
}

static void buckets_are_those_of_the_calendar(void **state)
{
    (void)state;
    static const struct {
        struct conf_keep keep;
        int64_t a_s, b_s; /* neighbours on both sides of a boundary */
    } cases[] = {
        {{.hourly = 9}, START - 1, START},
        {{.daily = 9}, START - 1, START},
        {{.weekly = 9}, START + 5 * DAY - 1, START + 5 * DAY}, /* Monday 2025-01-06 */
        {{.monthly = 9}, START + 31 * DAY - 1, START + 31 * DAY},
        {{.yearly = 9}, START - 1, START},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct row r = {0};
        put(&r, cases[i].a_s - 1);
        put(&r, cases[i].a_s);
        put(&r, cases[i].b_s);
        put(&r, cases[i].b_s + 1);
        judge(&r, &cases[i].keep, START + 400 * DAY);
        assert_int_equal(r.items[0].rules, 0);
        assert_int_not_equal(r.items[1].rules, 0);
        assert_int_equal(r.items[2].rules, 0);
        assert_int_not_equal(r.items[3].rules, 0);
    }
}

static void reasons_name_the_period(void **state)
{
    (void)state;
    char text[RETENTION_REASON_SIZE];
    int64_t t_us = (START + 5 * DAY + 13 * HOUR) * US_PER_S;
    retention_reason(RETENTION_HOURLY, t_us, text);
    assert_string_equal(text, "hourly 2025-01-06 13:00");
    retention_reason(RETENTION_WEEKLY, t_us, text);
    assert_string_equal(text, "weekly 2025-W02");
    retention_reason(RETENTION_LAST, t_us, text);
    assert_string_equal(text, "last");
    retention_reason(RETENTION_YEARLY, INT64_MAX, text);
    assert_string_equal(text, "yearly 9999");
    retention_reason(RETENTION_YEARLY, INT64_MIN, text);
    assert_string_equal(text, "yearly 1970");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_years),
        cmocka_unit_test(twice_is_once),
        cmocka_unit_test(dropped_is_dropped),
        cmocka_unit_test(more_allowed_keeps_more),
        cmocka_unit_test(any_rule_keeps_the_newest),
        cmocka_unit_test(a_jump_costs_nothing),
        cmocka_unit_test(a_clock_that_is_never_set_fills_nothing),
        cmocka_unit_test(days_in_the_past_are_days),
        cmocka_unit_test(within_counts_from_the_newest),
        cmocka_unit_test(groups_do_not_see_each_other),
        cmocka_unit_test(buckets_are_those_of_the_calendar),
        cmocka_unit_test(reasons_name_the_period),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
