#include "conf/schedule.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define DAY_S 86400
#define EVERY_HOUR 0xffffffU

/* 29 February on a given day of the week is the rarest date: at most 40 years apart. */
#define HORIZON_DAYS (41 * 366)

struct field {
    const char *name;
    int low, high;
    const char *const *words; /* the first stands for `low`; NULL: none */
};

static const char *const month_words[] = {"jan", "feb", "mar", "apr", "may", "jun", "jul",
                                          "aug", "sep", "oct", "nov", "dec", NULL};
static const char *const day_words[] = {"sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL};

static const struct field fields[5] = {{"minute", 0, 59, NULL},
                                       {"hour", 0, 23, NULL},
                                       {"day of month", 1, 31, NULL},
                                       {"month", 1, 12, month_words},
                                       {"day of week", 0, 7, day_words}};

/* A number or a name; -1 when it is neither or out of range. */
static int take_value(const struct field *f, const char **at)
{
    const char *p = *at;
    int value = 0, digits = 0;
    for (; isdigit((unsigned char)*p) && digits < 3; p++, digits++)
        value = value * 10 + (*p - '0');
    if (digits == 0) {
        value = -1;
        for (int i = 0; f->words && f->words[i]; i++)
            if (strncasecmp(p, f->words[i], 3) == 0)
                value = f->low + i;
        p += 3;
    }
    if (value < f->low || value > f->high)
        return -1;
    *at = p;
    return value;
}

/* One item of a list: `*`, `a` or `a-b`, with `/step` after the first and the last of these. */
static bool take_item(const struct field *f, const char **at, uint64_t *bits)
{
    const char *p = *at;
    int first = f->low, last = f->high, step = 1;
    bool range = true;
    if (*p == '*') {
        p++;
    } else {
        first = last = take_value(f, &p);
        range = first >= 0 && *p == '-';
        if (range) {
            p++;
            last = take_value(f, &p);
        }
    }
    if (first < 0 || last < first)
        return false;
    if (*p == '/') {
        p++;
        step = 0;
        for (int digits = 0; isdigit((unsigned char)*p) && digits < 3; p++, digits++)
            step = step * 10 + (*p - '0');
        if (step == 0 || !range)
            return false;
    }
    for (int i = first; i <= last; i += step)
        *bits |= UINT64_C(1) << i;
    *at = p;
    return true;
}

static int parse_field(const struct field *f, const char *text, size_t len, uint64_t *ret,
                       struct err *e)
{
    const char *at = text;
    uint64_t bits = 0;
    while (take_item(f, &at, &bits)) {
        if (at == text + len) {
            *ret = bits;
            return 0;
        }
        if (*at++ != ',')
            break;
    }
    const char *names = f->words == month_words ? " or jan-dec"
                        : f->words              ? " (0 and 7: Sunday) or sun-sat"
                                                : "";
    return err_set(e, ERR_CONFIG, NULL,
                   "found \"%.*s\" for the %s, expected *, %d-%d%s, lists with commas, steps such "
                   "as */%d",
                   (int)MIN(len, (size_t)60), text, f->name, f->low, f->high, names,
                   f->high > 12 ? 10 : 2);
}

static int days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

static bool day_matches(const struct schedule *s, int month, int day, int weekday)
{
    bool by_day = s->days >> day & 1;
    bool by_weekday = s->weekdays >> weekday & 1;
    if (!(s->months >> month & 1))
        return false;
    return s->any_day || s->any_weekday ? by_day && by_weekday : by_day || by_weekday;
}

/* False for 30 February and its like. */
static bool ever_comes(const struct schedule *s)
{
    if (!s->any_day && !s->any_weekday)
        return true; /* the day of the week comes in every month */
    for (int month = 1; month <= 12; month++)
        for (int day = 1; day <= days_in_month(2000, month); day++)
            if ((s->months >> month & 1) && (s->days >> day & 1))
                return true;
    return false;
}

static int check_count(const char *text, struct err *e)
{
    int count = 0;
    for (const char *p = text + strspn(text, " \t"); *p; p += strspn(p, " \t")) {
        count++;
        p += strcspn(p, " \t");
    }
    if (count == 5)
        return 0;
    if (*text == '@')
        return err_set(e, ERR_CONFIG, NULL,
                       "found \"%.60s\", expected five fields; @daily is \"0 0 * * *\"", text);
    return err_set(e, ERR_CONFIG, NULL,
                   "found %d fields in \"%.60s\", expected five: minute hour day month weekday",
                   count, text);
}

int schedule_parse(const char *text, struct schedule *ret, struct err *e)
{
    uint64_t bits[5];
    bool star[5];
    int rc = check_count(text, e);
    if (rc)
        return rc;
    const char *p = text;
    for (int i = 0; i < 5; i++) {
        p += strspn(p, " \t");
        size_t len = strcspn(p, " \t");
        star[i] = *p == '*';
        rc = parse_field(&fields[i], p, len, &bits[i], e);
        if (rc)
            return rc;
        p += len;
    }
    struct schedule s = {.minutes = bits[0],
                         .hours = (uint32_t)bits[1],
                         .days = (uint32_t)bits[2],
                         .months = (uint32_t)bits[3],
                         .weekdays = (uint32_t)((bits[4] | bits[4] >> 7) & 0x7f),
                         .any_day = star[2],
                         .any_weekday = star[4]};
    if (!ever_comes(&s))
        return err_set(e, ERR_CONFIG, NULL, "found \"%.60s\", a date that never comes", text);
    *ret = s;
    return 0;
}

/* --- Time on the wall ---
 * A time on the wall is counted in seconds as if it were UTC. */

static int64_t wall_of(int64_t t)
{
    time_t at = (time_t)t;
    struct tm tm;
    if (!localtime_r(&at, &tm))
        return t;
    return (int64_t)timegm(&tm);
}

static int64_t offset_at(int64_t t)
{
    return wall_of(t) - t;
}

/* When the wall first shows `wall`, or, if daylight saving skips that, the end of the gap. Zones
 * change at most once within four days, so the offsets on both sides are all there can be. */
static int64_t time_of_wall(int64_t wall)
{
    int64_t before = offset_at(wall - 2 * DAY_S);
    int64_t after = offset_at(wall + 2 * DAY_S);
    int64_t early = wall - MAX(before, after), late = wall - MIN(before, after);
    if (wall_of(early) == wall)
        return early;
    if (wall_of(late) == wall)
        return late;
    /* In the gap: `early` lies before the change, `late` after it. */
    while (late - early > 1) {
        int64_t middle = early + (late - early) / 2;
        if (offset_at(middle) == after)
            late = middle;
        else
            early = middle;
    }
    return late;
}

struct date {
    int year, month, day, weekday;
};

static struct date date_of_wall(int64_t wall)
{
    time_t at = (time_t)wall;
    struct tm tm = {0};
    gmtime_r(&at, &tm);
    return (struct date){tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_wday};
}

static int64_t floor_to(int64_t t, int64_t unit)
{
    int64_t rest = t % unit;
    return t - (rest < 0 ? rest + unit : rest);
}

static bool day_of_wall_matches(const struct schedule *s, int64_t midnight)
{
    struct date d = date_of_wall(midnight);
    return day_matches(s, d.month, d.day, d.weekday);
}

/* A schedule for all 24 hours: each real minute by what the wall shows. */
static int64_t next_by_minute(const struct schedule *s, int64_t after)
{
    int64_t wall = wall_of(after);
    int64_t t = after - (wall - floor_to(wall, 60)) + 60;
    for (int64_t end = after + (int64_t)HORIZON_DAYS * DAY_S; t < end;) {
        wall = wall_of(t);
        int64_t midnight = floor_to(wall, DAY_S);
        if (!day_of_wall_matches(s, midnight)) {
            int64_t tomorrow = time_of_wall(midnight + DAY_S);
            /* Where the clocks change just after midnight, a day can be shown again after the next
             * one has begun: no leap over a change. */
            t = offset_at(tomorrow) == offset_at(t) ? tomorrow : t + 60;
        } else if (s->minutes >> ((wall - midnight) / 60 % 60) & 1) {
            return t;
        } else {
            t += 60;
        }
    }
    return after + (int64_t)HORIZON_DAYS * DAY_S;
}

/* The first run after `after` on the day that begins at `midnight` on the wall; 0: none. Hours of
 * the wall that end before `from` are past. */
static int64_t next_in_day(const struct schedule *s, int64_t midnight, int64_t from, int64_t after)
{
    for (int hour = 0; hour < 24; hour++) {
        if (!(s->hours >> hour & 1) || midnight + hour * 3600 + 3599 < from)
            continue;
        for (int minute = 0; minute < 60; minute++) {
            int64_t wall = midnight + hour * 3600 + minute * 60;
            if (!(s->minutes >> minute & 1))
                continue;
            int64_t t = time_of_wall(wall);
            if (t > after)
                return t;
        }
    }
    return 0;
}

int64_t schedule_next(const struct schedule *s, int64_t after)
{
    if (s->hours == EVERY_HOUR)
        return next_by_minute(s, after);
    /* Walking up the wall also walks up in time, as each of its minutes is taken at its first
     * showing; and none below what it shows now can have its first showing later. */
    int64_t from = floor_to(wall_of(after), 60);
    int64_t midnight = floor_to(from, DAY_S);
    for (int i = 0; i < HORIZON_DAYS; i++, midnight += DAY_S) {
        if (!day_of_wall_matches(s, midnight))
            continue;
        int64_t t = next_in_day(s, midnight, from, after);
        if (t)
            return t;
    }
    return after + (int64_t)HORIZON_DAYS * DAY_S;
}

/* The longest time between two neighbouring runs of one day without a change of the clocks. */
static int64_t longest_gap_in_day(const struct schedule *s, int64_t *ret_last)
{
    int64_t longest = 0, last = -1;
    for (int minute = 0; minute < 24 * 60; minute++) {
        if (!(s->hours >> minute / 60 & 1) || !(s->minutes >> minute % 60 & 1))
            continue;
        if (last >= 0)
            longest = MAX(longest, (int64_t)minute * 60 - last);
        last = (int64_t)minute * 60;
    }
    *ret_last = last;
    return longest;
}

int64_t schedule_longest_gap(const struct schedule *s, int64_t from)
{
    int64_t last_in_day;
    int64_t longest = longest_gap_in_day(s, &last_in_day);
    int64_t end = from + INT64_C(366) * DAY_S;
    int64_t run = schedule_next(s, from);
    do {
        /* Straight to the day's last run, unless the clocks change before it. */
        int64_t last = time_of_wall(floor_to(wall_of(run), DAY_S) + last_in_day);
        if (last > run && offset_at(last) == offset_at(run))
            run = last;
        int64_t next = schedule_next(s, run);
        longest = MAX(longest, next - run);
        run = next;
    } while (run < end);
    return longest;
}
