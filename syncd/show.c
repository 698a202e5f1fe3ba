#include "syncd/show.h"

#include <stdio.h>
#include <string.h>
#include <wchar.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"

void show_size(uint64_t bytes, char ret[static SHOW_SIZE])
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1000) {
        snprintf(ret, SHOW_SIZE, "%u B", (unsigned)bytes);
        return;
    }
    double v = (double)bytes / 1024;
    size_t unit = 0;
    while (v >= 999.5 && unit + 1 < sizeof units / sizeof units[0]) {
        v /= 1024;
        unit++;
    }
    snprintf(ret, SHOW_SIZE, v < 9.95 ? "%.1f %s" : "%.0f %s", v, units[unit]);
}

struct unit {
    int64_t seconds;
    const char *symbol, *word;
};

static const struct unit units_of_time[] = {
    {604800, "w", "week"}, {86400, "d", "day"}, {3600, "h", "hour"},
    {60, "min", "minute"}, {1, "s", "second"},
};

void show_duration(int64_t duration_us, char ret[static SHOW_SIZE])
{
    if (duration_us <= 0) {
        snprintf(ret, SHOW_SIZE, "0 s");
        return;
    }
    int64_t s = duration_us / US_PER_S + (duration_us % US_PER_S >= US_PER_S / 2);
    if (duration_us < 9950 * US_PER_MS) {
        snprintf(ret, SHOW_SIZE, "%.1f s", (double)duration_us / (double)US_PER_S);
        return;
    }
    /* Weeks are left to ages: "9 d 4 h" is how long something took. */
    const struct unit *u = units_of_time + 1;
    while (s < u->seconds)
        u++;
    long long whole = s / u->seconds, rest = u->seconds > 1 ? s % u->seconds / u[1].seconds : 0;
    if (rest)
        snprintf(ret, SHOW_SIZE, "%lld %s %lld %s", whole, u->symbol, rest, u[1].symbol);
    else
        snprintf(ret, SHOW_SIZE, "%lld %s", whole, u->symbol);
}

void show_age(int64_t t_us, int64_t now_us, char ret[static SHOW_SIZE])
{
    if (t_us <= 0) {
        snprintf(ret, SHOW_SIZE, "never");
        return;
    }
    int64_t s = (now_us - t_us) / US_PER_S;
    bool future = s < 0;
    if (future)
        s = -s;
    if (s < 5) {
        snprintf(ret, SHOW_SIZE, "now");
        return;
    }
    const struct unit *u = units_of_time;
    while (s < 2 * u->seconds && u->seconds > 1)
        u++; /* "90 minutes" says more than "1 hour" */
    long long n = s / u->seconds;
    snprintf(ret, SHOW_SIZE, future ? "in %lld %s%s" : "%lld %s%s ago", n, u->word,
             n == 1 ? "" : "s");
}

const char *show_plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

void show_id(const uint8_t id[32], char ret[static SHOW_SIZE])
{
    hex_encode(id, 6, ret);
}

static bool is_continuation(const char *s, size_t i)
{
    return ((unsigned char)s[i] & 0xc0) == 0x80;
}

size_t show_utf8(const char *s, uint32_t *ret)
{
    const unsigned char *u = (const unsigned char *)s;
    uint32_t c;
    if (u[0] < 0x80) {
        *ret = u[0];
        return 1;
    }
    if (u[0] >= 0xc2 && u[0] <= 0xdf && is_continuation(s, 1)) {
        *ret = (u[0] & 0x1fu) << 6 | (u[1] & 0x3fu);
        return 2;
    }
    if ((u[0] & 0xf0) == 0xe0 && is_continuation(s, 1) && is_continuation(s, 2)) {
        c = (u[0] & 0x0fu) << 12 | (u[1] & 0x3fu) << 6 | (u[2] & 0x3fu);
        *ret = c;
        return c < 0x800 || (c >= 0xd800 && c <= 0xdfff) ? 0 : 3;
    }
    if ((u[0] & 0xf8) == 0xf0 && is_continuation(s, 1) && is_continuation(s, 2) &&
        is_continuation(s, 3)) {
        c = (u[0] & 0x07u) << 18 | (u[1] & 0x3fu) << 12 | (u[2] & 0x3fu) << 6 | (u[3] & 0x3fu);
        *ret = c;
        return c < 0x10000 || c > 0x10ffff ? 0 : 4;
    }
    return 0;
}

static bool is_harmless(uint32_t c)
{
    bool control = c < 0x20 || (c >= 0x7f && c < 0xa0);
    bool separator = c == 0x2028 || c == 0x2029;
    bool turns_text = c == 0x61c || c == 0x200e || c == 0x200f || (c >= 0x202a && c <= 0x202e) ||
                      (c >= 0x2066 && c <= 0x2069);
    return !control && !separator && !turns_text && c != 0xfeff;
}

#define SAFE_MAX 17 /* four escaped bytes and the NUL */

/* One character of s, made safe; returns how many bytes of s it was. */
static size_t safe_step(const char *s, char ret[static SAFE_MAX])
{
    uint32_t c = 0;
    size_t len = show_utf8(s, &c);
    if (len && is_harmless(c)) {
        memcpy(ret, s, len);
        ret[len] = '\0';
        return len;
    }
    size_t n = len ? len : 1;
    for (size_t i = 0; i < n; i++)
        snprintf(ret + 4 * i, 5, "\\x%02x", (unsigned char)s[i]);
    return n;
}

void show_safe(const char *s, struct buf *ret)
{
    char piece[SAFE_MAX];
    while (*s) {
        s += safe_step(s, piece);
        buf_put_str(ret, piece);
    }
}

void show_safe_bytes(const void *p, size_t n, struct buf *ret)
{
    OWN_BUF struct buf copy = BUF_INIT; /* what looks ahead in it finds the NUL */
    char piece[SAFE_MAX];
    buf_put(&copy, p, n);
    const char *s = buf_cstr(&copy), *end = s ? s + n : NULL;
    while (s < end) {
        s += safe_step(s, piece);
        buf_put_str(ret, piece);
    }
    ret->bad |= !s;
}

void show_hex(const void *p, size_t n, struct buf *ret)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *from = p;
    for (size_t i = 0; i < n; i++) {
        buf_put_u8(ret, (uint8_t)digits[from[i] >> 4]);
        buf_put_u8(ret, (uint8_t)digits[from[i] & 15]);
    }
}

const char *show_safe_into(const char *s, char *ret, size_t size)
{
    size_t used = 0;
    char piece[SAFE_MAX];
    while (*s) {
        s += safe_step(s, piece);
        size_t len = strlen(piece);
        if (used + len + 1 > size)
            break;
        memcpy(ret + used, piece, len);
        used += len;
    }
    if (size)
        ret[used] = '\0';
    return ret;
}

size_t show_width(const char *s)
{
    size_t width = 0;
    while (*s) {
        uint32_t c = 0;
        size_t len = show_utf8(s, &c);
        /* In the C locale wcwidth knows no letters beyond ASCII: one column each is near enough. */
        int columns = len ? wcwidth((wchar_t)c) : 1;
        width += columns < 0 ? 1 : (size_t)columns;
        s += len ? len : 1;
    }
    return width;
}
