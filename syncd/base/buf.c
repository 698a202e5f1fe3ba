#include "syncd/base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_free(struct buf *b)
{
    free(b->data);
    *b = BUF_INIT;
}

void buf_reset(struct buf *b)
{
    b->len = 0;
    b->bad = false;
}

uint8_t *buf_extend(struct buf *b, size_t n)
{
    if (b->bad || n > SIZE_MAX / 4 - b->len) {
        b->bad = true;
        return NULL;
    }
    if (b->len + n > b->cap || !b->data) {
        size_t cap = b->cap ? b->cap : 64;
        while (cap < b->len + n)
            cap *= 2;
        uint8_t *grown = realloc(b->data, cap);
        if (!grown) {
            b->bad = true;
            return NULL;
        }
        b->data = grown;
        b->cap = cap;
    }
    uint8_t *at = b->data + b->len;
    b->len += n;
    return at;
}

void buf_put(struct buf *b, const void *p, size_t n)
{
    uint8_t *at = buf_extend(b, n);
    if (at && n)
        memcpy(at, p, n);
}

void buf_put_str(struct buf *b, const char *s)
{
    buf_put(b, s, strlen(s));
}

void buf_put_u8(struct buf *b, uint8_t v)
{
    buf_put(b, &v, 1);
}

static void put_le(struct buf *b, uint64_t v, int bytes)
{
    uint8_t tmp[8];
    for (int i = 0; i < bytes; i++)
        tmp[i] = (uint8_t)(v >> (8 * i));
    buf_put(b, tmp, (size_t)bytes);
}

void buf_put_u16(struct buf *b, uint16_t v)
{
    put_le(b, v, 2);
}

void buf_put_u32(struct buf *b, uint32_t v)
{
    put_le(b, v, 4);
}

void buf_put_u64(struct buf *b, uint64_t v)
{
    put_le(b, v, 8);
}

void buf_put_varint(struct buf *b, uint64_t v)
{
    uint8_t tmp[10];
    size_t n = 0;
    do {
        tmp[n] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        n++;
        v >>= 7;
    } while (v);
    buf_put(b, tmp, n);
}

void buf_put_zigzag(struct buf *b, int64_t v)
{
    buf_put_varint(b, ((uint64_t)v << 1) ^ (v < 0 ? UINT64_MAX : 0));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *text = NULL;
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0) {
        b->bad = true;
        return;
    }
    buf_put(b, text, (size_t)n);
    free(text);
}

const char *buf_cstr(struct buf *b)
{
    uint8_t *nul = buf_extend(b, 1);
    if (!nul)
        return NULL;
    *nul = 0;
    b->len--;
    return (const char *)b->data;
}

struct cursor cursor_of(const void *p, size_t n)
{
    const uint8_t *start = p;
    return (struct cursor){.p = start, .end = n ? start + n : start, .bad = false};
}

size_t cursor_left(const struct cursor *c)
{
    return c->bad ? 0 : (size_t)(c->end - c->p);
}

const uint8_t *cursor_take(struct cursor *c, size_t n)
{
    if (c->bad || n > (size_t)(c->end - c->p)) {
        c->bad = true;
        return NULL;
    }
    const uint8_t *at = c->p;
    c->p += n;
    return at;
}

void cursor_copy(struct cursor *c, void *dst, size_t n)
{
    const uint8_t *at = cursor_take(c, n);
    if (at)
        memcpy(dst, at, n);
    else
        memset(dst, 0, n);
}

uint8_t cursor_u8(struct cursor *c)
{
    const uint8_t *at = cursor_take(c, 1);
    return at ? *at : 0;
}

uint16_t cursor_u16(struct cursor *c)
{
    const uint8_t *at = cursor_take(c, 2);
    return at ? le16_get(at) : 0;
}

uint32_t cursor_u32(struct cursor *c)
{
    const uint8_t *at = cursor_take(c, 4);
    return at ? le32_get(at) : 0;
}

uint64_t cursor_u64(struct cursor *c)
{
    const uint8_t *at = cursor_take(c, 8);
    return at ? le64_get(at) : 0;
}

uint64_t cursor_varint(struct cursor *c)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        const uint8_t *at = cursor_take(c, 1);
        if (!at)
            return 0;
        uint64_t bits = *at & 0x7f;
        bool last = !(*at & 0x80);
        bool overflow = shift == 63 && bits > 1;
        bool overlong = last && bits == 0 && shift > 0;
        if (overflow || overlong || (shift == 63 && !last)) {
            c->bad = true;
            return 0;
        }
        v |= bits << shift;
        if (last)
            return v;
    }
    c->bad = true;
    return 0;
}

int64_t cursor_zigzag(struct cursor *c)
{
    uint64_t v = cursor_varint(c);
    return (int64_t)((v >> 1) ^ (v & 1 ? UINT64_MAX : 0));
}

void hex_encode(const void *p, size_t n, char *ret)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++) {
        ret[2 * i] = digits[b[i] >> 4];
        ret[2 * i + 1] = digits[b[i] & 15];
    }
    ret[2 * n] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

bool hex_decode(const char *s, void *ret, size_t n)
{
    uint8_t *out = ret;
    for (size_t i = 0; i < n; i++) {
        int hi = hex_value(s[2 * i]);
        int lo = hi < 0 ? -1 : hex_value(s[2 * i + 1]);
        if (lo < 0)
            return false;
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    return s[2 * n] == '\0';
}
