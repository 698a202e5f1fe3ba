#include "syncd/base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t offset_from_environment(const char *name)
{
    const char *text = getenv(name);
    return text ? strtoll(text, NULL, 10) * US_PER_S : 0;
}

static int64_t read_clock(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * US_PER_S + ts.tv_nsec / 1000;
}

int64_t clock_now_us(void)
{
    return read_clock(CLOCK_REALTIME) + offset_from_environment("SYNCD_TEST_CLOCK_OFFSET_S");
}

int64_t clock_mono_us(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t clock_boot_us(void)
{
    return read_clock(CLOCK_BOOTTIME) + offset_from_environment("SYNCD_TEST_BOOT_OFFSET_S");
}

static int64_t floor_seconds(int64_t t_us)
{
    int64_t s = t_us / US_PER_S;
    return t_us % US_PER_S < 0 ? s - 1 : s;
}

void clock_rfc3339(int64_t t_us, char ret[static CLOCK_TEXT_SIZE])
{
    time_t s = (time_t)floor_seconds(t_us);
    struct tm tm;
    if (!gmtime_r(&s, &tm) || !strftime(ret, CLOCK_TEXT_SIZE, "%Y-%m-%dT%H:%M:%SZ", &tm))
        snprintf(ret, CLOCK_TEXT_SIZE, "?");
}

void clock_compact(int64_t t_us, char ret[static CLOCK_TEXT_SIZE])
{
    time_t s = (time_t)floor_seconds(t_us);
    struct tm tm;
    if (!gmtime_r(&s, &tm) || !strftime(ret, CLOCK_TEXT_SIZE, "%Y%m%dT%H%M%SZ", &tm))
        snprintf(ret, CLOCK_TEXT_SIZE, "?");
}

void clock_local(int64_t t_us, char ret[static CLOCK_TEXT_SIZE])
{
    time_t s = (time_t)floor_seconds(t_us);
    struct tm tm;
    if (!localtime_r(&s, &tm) || !strftime(ret, CLOCK_TEXT_SIZE, "%Y-%m-%d %H:%M:%S %Z", &tm))
        snprintf(ret, CLOCK_TEXT_SIZE, "?");
}

/* Reads exactly `count` digits at *s into *ret and moves on. */
static bool digits(const char **s, int count, int *ret)
{
    int v = 0;
    for (int i = 0; i < count; i++, (*s)++) {
        if (**s < '0' || **s > '9')
            return false;
        v = v * 10 + (**s - '0');
    }
    *ret = v;
    return true;
}

static bool literal(const char **s, char c)
{
    if (**s != c)
        return false;
    (*s)++;
    return true;
}

static bool fields_are_real(const struct tm *tm)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year = tm->tm_year + 1900;
    if (year < 1970 || tm->tm_mon < 0 || tm->tm_mon > 11 || tm->tm_mday < 1)
        return false;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    int last = days[tm->tm_mon] + (leap && tm->tm_mon == 1);
    return tm->tm_mday <= last && tm->tm_hour < 24 && tm->tm_min < 60 && tm->tm_sec < 60;
}

static bool read_date(const char **s, const char *separator, struct tm *ret)
{
    bool dashes = *separator != '\0';
    if (!digits(s, 4, &ret->tm_year) || (dashes && !literal(s, '-')) ||
        !digits(s, 2, &ret->tm_mon) || (dashes && !literal(s, '-')) || !digits(s, 2, &ret->tm_mday))
        return false;
    ret->tm_year -= 1900;
    ret->tm_mon -= 1;
    return true;
}

bool clock_parse_compact(const char *s, int64_t *ret_t_us)
{
    struct tm tm = {0};
    if (!read_date(&s, "", &tm) || !literal(&s, 'T') || !digits(&s, 2, &tm.tm_hour) ||
        !digits(&s, 2, &tm.tm_min) || !digits(&s, 2, &tm.tm_sec) || !literal(&s, 'Z') || *s ||
        !fields_are_real(&tm))
        return false;
    *ret_t_us = (int64_t)timegm(&tm) * US_PER_S;
    return true;
}

static bool parse_ago(const char *s, int64_t now_us, int64_t *ret_t_us)
{
    static const struct {
        const char *name;
        int64_t seconds;
    } units[] = {{"minute", 60}, {"hour", 3600}, {"day", 86400}, {"week", 604800}};
    char *end;
    errno = 0;
    long long n = strtoll(s, &end, 10);
    if (end == s || errno || n < 0 || n > 1000000 || *end != ' ')
        return false;
    end++;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        size_t len = strlen(units[i].name);
        if (strncmp(end, units[i].name, len) != 0)
            continue;
        const char *rest = end + len;
        if (*rest == 's')
            rest++;
        if (strcmp(rest, " ago") != 0)
            return false;
        *ret_t_us = now_us - n * units[i].seconds * US_PER_S;
        return true;
    }
    return false;
}

/* The zone at the end of a TIME: seconds east of UTC, or *ret_local when there is none. */
static bool read_zone(const char *s, bool *ret_local, int *ret_east_s)
{
    *ret_local = *s == '\0';
    *ret_east_s = 0;
    if (*ret_local || strcmp(s, "Z") == 0)
        return true;
    int sign = *s == '-' ? -1 : 1, hours, minutes;
    if (*s != '+' && *s != '-')
        return false;
    s++;
    if (!digits(&s, 2, &hours) || !literal(&s, ':') || !digits(&s, 2, &minutes) || *s ||
        hours > 14 || minutes > 59)
        return false;
    *ret_east_s = sign * (hours * 3600 + minutes * 60);
    return true;
}

bool clock_parse_user(const char *s, int64_t now_us, int64_t *ret_t_us)
{
    if (parse_ago(s, now_us, ret_t_us))
        return true;
    struct tm tm = {.tm_isdst = -1};
    bool local;
    int east_s;
    if (!read_date(&s, "-", &tm))
        return false;
    if ((*s == ' ' || *s == 'T') && s[1]) {
        s++;
        if (!digits(&s, 2, &tm.tm_hour) || !literal(&s, ':') || !digits(&s, 2, &tm.tm_min))
            return false;
        if (*s == ':' && (s++, !digits(&s, 2, &tm.tm_sec)))
            return false;
    }
    if (!fields_are_real(&tm) || !read_zone(s, &local, &east_s))
        return false;
    time_t t = local ? mktime(&tm) : timegm(&tm);
    if (t == (time_t)-1)
        return false;
    *ret_t_us = ((int64_t)t - east_s) * US_PER_S;
    return true;
}
