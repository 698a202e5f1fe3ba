#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "conf/conf.h"
#include "syncd/base/err.h"

/* Digits up to the first other character: no sign, no 0 in front of others. */
static bool read_digits(const char **at, uint64_t *ret)
{
    const char *p = *at;
    uint64_t v = 0;
    if (!isdigit((unsigned char)*p) || (*p == '0' && isdigit((unsigned char)p[1])))
        return false;
    for (; isdigit((unsigned char)*p); p++) {
        if (v > (UINT64_MAX - 9) / 10)
            return false;
        v = v * 10 + (uint64_t)(*p - '0');
    }
    *at = p;
    *ret = v;
    return true;
}

static int64_t seconds_of(char unit)
{
    switch (unit) {
    case 's':
        return 1;
    case 'm':
        return 60;
    case 'h':
        return 3600;
    case 'd':
        return 86400;
    case 'w':
        return 7 * 86400;
    default:
        return 0;
    }
}

#define LONGEST_DURATION_S (INT64_C(100) * 366 * 86400)

int conf_parse_duration(const char *text, int64_t *ret_s, struct err *e)
{
    const char *at = text;
    uint64_t n;
    if (strcmp(text, "0") == 0) {
        *ret_s = 0;
        return 0;
    }
    bool digits = read_digits(&at, &n);
    int64_t unit = digits && *at ? seconds_of(*at) : 0;
    if (unit == 0 || at[1] != '\0')
        return err_set(e, ERR_CONFIG, NULL,
                       "found \"%.60s\", expected an integer with one unit of s m h d w, such as "
                       "\"15m\"",
                       text);
    if (n > (uint64_t)(LONGEST_DURATION_S / unit))
        return err_set(e, ERR_CONFIG, NULL, "found \"%.60s\", expected at most 100 years", text);
    *ret_s = (int64_t)n * unit;
    return 0;
}

int conf_parse_size(const char *text, uint64_t *ret_bytes, struct err *e)
{
    static const char units[] = "KMGT";
    const char *at = text;
    uint64_t n;
    unsigned shift = 0;
    bool good = read_digits(&at, &n);
    if (good && *at) {
        const char *unit = strchr(units, *at);
        good = unit && at[1] == '\0';
        if (good)
            shift = 10 * ((unsigned)(unit - units) + 1);
    }
    if (!good)
        return err_set(e, ERR_CONFIG, NULL,
                       "found \"%.60s\", expected an integer with one unit of K M G T, such as "
                       "\"64M\"",
                       text);
    if (n > (UINT64_MAX / 4) >> shift)
        return err_set(e, ERR_CONFIG, NULL, "found \"%.60s\", expected a smaller size", text);
    *ret_bytes = n << shift;
    return 0;
}
