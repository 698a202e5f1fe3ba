/* Five-field cron expressions (minute hour day-of-month month day-of-week, as in POSIX crontab,
 * with lists, ranges, steps, names of months and days, and 7 for Sunday), in this machine's zone.
 * As in cron, day-of-month and day-of-week are or-ed when both are restricted; a field that begins
 * with * restricts nothing in this sense (so that with a step it must match beside the other). */
#ifndef SYNCD_CONF_SCHEDULE_H
#define SYNCD_CONF_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

struct err;

struct schedule {
    uint64_t minutes;
    uint32_t hours, days, months, weekdays; /* bit n: value n */
    bool any_day, any_weekday;
};

/* ERR_CONFIG with the field and what was expected; also for a date that never comes (30 February)
 * and for @daily and its like. */
int schedule_parse(const char *text, struct schedule *ret, struct err *e);

/* The first time strictly after `after` (seconds since 1970 UTC) that matches. A time that daylight
 * saving skips runs at the first minute after the gap; a repeated one runs once. But a schedule for
 * every hour (all 24) follows the clock on the wall minute by minute through both, or a
 * quarter-hour schedule would rest for an hour each autumn. */
int64_t schedule_next(const struct schedule *s, int64_t after);

/* The longest time between two neighbouring runs, the first of which is in the year that begins at
 * `from` (or is the first at all after that), seconds. */
int64_t schedule_longest_gap(const struct schedule *s, int64_t from);

#endif
