/* A growable byte buffer for writing, and a bounded cursor for reading, both little-endian.
 *
 * Errors are sticky, so that a run of puts or gets is checked once at its end: a buffer that could
 * not grow, or a cursor that was asked for more than there is, stays bad and does nothing more. */
#ifndef SYNCD_BASE_BUF_H
#define SYNCD_BASE_BUF_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct buf {
    uint8_t *data;
    size_t len, cap;
    bool bad; /* out of memory */
};

#define BUF_INIT ((struct buf){0})

void buf_free(struct buf *b);
#define OWN_BUF __attribute__((cleanup(buf_free)))

void buf_reset(struct buf *b);                /* length 0, memory kept */
uint8_t *buf_extend(struct buf *b, size_t n); /* n more bytes, uninitialised; NULL when bad */
void buf_put(struct buf *b, const void *p, size_t n);
void buf_put_str(struct buf *b, const char *s); /* the bytes of s without the NUL */
void buf_put_u8(struct buf *b, uint8_t v);
void buf_put_u16(struct buf *b, uint16_t v);
void buf_put_u32(struct buf *b, uint32_t v);
void buf_put_u64(struct buf *b, uint64_t v);
void buf_put_varint(struct buf *b, uint64_t v); /* LEB128: 7 bits a byte, lowest first */
void buf_put_zigzag(struct buf *b, int64_t v);  /* signed, as varint of (v << 1) ^ (v >> 63) */
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The contents as a C string (a NUL is appended, not counted); NULL when bad. Owned by b. */
const char *buf_cstr(struct buf *b);

struct cursor {
    const uint8_t *p, *end;
    bool bad; /* asked for more than there was, or a malformed number */
};

struct cursor cursor_of(const void *p, size_t n);
size_t cursor_left(const struct cursor *c);
const uint8_t *cursor_take(struct cursor *c, size_t n);  /* NULL when bad */
void cursor_copy(struct cursor *c, void *dst, size_t n); /* zeroes dst when bad */
uint8_t cursor_u8(struct cursor *c);                     /* the numbers are 0 when bad */
uint16_t cursor_u16(struct cursor *c);
uint32_t cursor_u32(struct cursor *c);
uint64_t cursor_u64(struct cursor *c);
uint64_t cursor_varint(struct cursor *c); /* at most 10 bytes, no overlong or overflowing form */
int64_t cursor_zigzag(struct cursor *c);

/* Plain little-endian loads and stores. */
static inline uint16_t le16_get(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return le16toh(v);
}

static inline uint32_t le32_get(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return le32toh(v);
}

static inline uint64_t le64_get(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return le64toh(v);
}

static inline void le32_put(void *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof v);
}

static inline void le64_put(void *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, sizeof v);
}

/* Lower-case hex. `ret` has room for 2 * n + 1 bytes. */
void hex_encode(const void *p, size_t n, char *ret);
/* Exactly 2 * n lower-case hex digits and then the end of the string; false otherwise. */
bool hex_decode(const char *s, void *ret, size_t n);

#endif
