#include "syncd/retention.h"

#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#include "conf/conf.h"
#include "syncd/base/clock.h"
#include "syncd/base/mem.h"

#define YEAR_10000_S INT64_C(253402300800)
#define DAY_S 86400

/* Times come from a worker: one that no calendar has is taken to its nearest end. */
static int64_t seconds_of(int64_t t_us)
{
    int64_t s = t_us / US_PER_S;
    return MIN(MAX(s, 0), YEAR_10000_S - 1);
}

static int64_t month_of(int64_t t_s)
{
    time_t t = (time_t)t_s;
    struct tm tm = {0};
    gmtime_r(&t, &tm);
    return (int64_t)tm.tm_year * 12 + tm.tm_mon;
}

/* The number of the hour, day, ... that the time is in. */
static int64_t bucket_of(enum retention_rule rule, int64_t t_us)
{
    int64_t t_s = seconds_of(t_us);
    switch (rule) {
    case RETENTION_HOURLY:
        return t_s / 3600;
    case RETENTION_DAILY:
        return t_s / DAY_S;
    case RETENTION_WEEKLY:
        return (t_s / DAY_S + 3) / 7; /* 1970-01-01 was a Thursday */
    case RETENTION_MONTHLY:
        return month_of(t_s);
    case RETENTION_YEARLY:
        return month_of(t_s) / 12;
    default:
        return 0;
    }
}

/* Notes the bucket of the next older period, and whether there are more than `allowed` then: the
 * length of the longest row of periods that grow older, as `ends` has it (ends[n].end: of the rows
 * of n + 1 periods, the one whose last is the newest, ends there; ascending in n they grow older).
 * Periods with a wrong time stand in no long row, so they cost the others nothing. */
static bool is_one_more(struct retention_item *ends, size_t *length, uint32_t allowed,
                        int64_t bucket)
{
    size_t low = 0, high = *length;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ends[middle].scratch > bucket)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == allowed)
        return false;
    ends[low].scratch = bucket;
    *length = MAX(*length, low + 1);
    return true;
}

static void judge_buckets(enum retention_rule rule, uint32_t allowed, unsigned group,
                          struct retention_item *items, size_t count)
{
    size_t length = 0, kept = 0;
    int64_t newer = 0; /* the bucket of the next newer one */
    for (size_t i = count; i > 0; i--) {
        struct retention_item *item = &items[i - 1];
        int64_t bucket = bucket_of(rule, item->time_us);
        if (!(item->groups & group) || (kept && bucket == newer))
            continue;
        if (kept / 2 >= allowed || !is_one_more(items, &length, allowed, bucket))
            return;
        kept++;
        newer = bucket;
        item->rules |= 1u << rule;
    }
}

static void judge_last(uint32_t allowed, unsigned group, struct retention_item *items, size_t count)
{
    for (size_t i = count; i > 0 && allowed > 0; i--) {
        if (!(items[i - 1].groups & group))
            continue;
        items[i - 1].rules |= 1u << RETENTION_LAST;
        allowed--;
    }
}

static bool is_believed(const struct retention_item *item, int64_t now_us, unsigned group)
{
    return (item->groups & group) &&
           (item->time_us <= now_us ||
            item->time_us / US_PER_S - now_us / US_PER_S <= RETENTION_FUTURE_US / US_PER_S);
}

static void judge_within(int64_t within_s, int64_t now_us, unsigned group,
                         struct retention_item *items, size_t count)
{
    size_t newest = within_s > 0 ? count : 0, first = 0;
    while (newest > 0 && !is_believed(&items[newest - 1], now_us, group))
        newest--;
    if (newest == 0 && within_s > 0) { /* no time to count from: all may be within it */
        for (size_t i = 0; i < count; i++)
            items[i].rules |= items[i].groups & group ? 1u << RETENTION_WITHIN : 0;
        return;
    }
    if (newest == 0)
        return;
    int64_t since_s = seconds_of(items[newest - 1].time_us) - within_s;
    while (!is_believed(&items[first], now_us, group) || seconds_of(items[first].time_us) < since_s)
        first++;
    for (size_t i = first; i < count; i++)
        items[i].rules |= items[i].groups & group ? 1u << RETENTION_WITHIN : 0;
}

void retention_judge(const struct conf_keep *keep, int64_t now_us, unsigned group,
                     struct retention_item *items, size_t count)
{
    judge_last(keep->last, group, items, count);
    judge_within(keep->within_s, now_us, group, items, count);
    judge_buckets(RETENTION_HOURLY, keep->hourly, group, items, count);
    judge_buckets(RETENTION_DAILY, keep->daily, group, items, count);
    judge_buckets(RETENTION_WEEKLY, keep->weekly, group, items, count);
    judge_buckets(RETENTION_MONTHLY, keep->monthly, group, items, count);
    judge_buckets(RETENTION_YEARLY, keep->yearly, group, items, count);
}

static void show_bucket(enum retention_rule rule, const struct tm *tm, char *ret, size_t size)
{
    size_t n = 0;
    if (rule == RETENTION_HOURLY)
        n = strftime(ret, size, " %Y-%m-%d %H:00", tm);
    else if (rule == RETENTION_DAILY)
        n = strftime(ret, size, " %Y-%m-%d", tm);
    else if (rule == RETENTION_WEEKLY)
        n = strftime(ret, size, " %G-W%V", tm);
    else if (rule == RETENTION_MONTHLY)
        n = strftime(ret, size, " %Y-%m", tm);
    else if (rule == RETENTION_YEARLY)
        n = strftime(ret, size, " %Y", tm);
    ret[n] = '\0';
}

void retention_reason(enum retention_rule rule, int64_t time_us,
                      char ret[static RETENTION_REASON_SIZE])
{
#define NAME(symbol, name) [symbol] = (name),
    static const char *const names[] = {RETENTION_RULES(NAME)};
#undef NAME
    time_t t = (time_t)seconds_of(time_us);
    char when[32];
    struct tm tm = {0};
    gmtime_r(&t, &tm);
    show_bucket(rule, &tm, when, sizeof when);
    snprintf(ret, RETENTION_REASON_SIZE, "%s%s", names[rule], when);
}
