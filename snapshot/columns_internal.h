/* Shared by columns_split.c and columns_join.c: what a page's rows look like. */
#ifndef SYNCD_SNAPSHOT_COLUMNS_INTERNAL_H
#define SYNCD_SNAPSHOT_COLUMNS_INTERNAL_H

#include <string.h>

#include "snapshot/columns.h"
#include "snapshot/part.h"

#define COLUMNS_PAGE_MAX 65536u
#define COLUMNS_PAGES_MAX (PART_BLOCK_MAX / 512)
#define PAGE_HEAD 8u /* of a leaf page, before its cell pointers */
#define CELLS_MAX ((COLUMNS_PAGE_MAX - PAGE_HEAD) / 2)
#define ROW_COLUMNS_MAX 64
#define SHAPE_BYTES_MAX 127 /* its length is one byte */
#define SHAPES_MAX 255
#define SHAPE_NONE 255   /* the cell stays as it lies */
#define VALUE_STREAMS 16 /* of each kind of page; the last one has all further columns */
#define PLANES_MAX 64

enum page_kind { PAGE_TABLE, PAGE_INDEX, PAGE_OTHER };

enum {
    STREAM_REST,
    STREAM_SHAPES,
    STREAM_HEADERS,
    STREAM_POINTERS_HIGH,
    STREAM_POINTERS_LOW,
    STREAM_ROWIDS,
    STREAM_VALUES,
    STREAMS = STREAM_VALUES + 2 * VALUE_STREAMS
};

/* A record's header, which says how wide each column is (SQLite's file format, 2.1). */
struct shape {
    uint8_t header[SHAPE_BYTES_MAX];
    uint8_t header_bytes;
    uint8_t columns;
    uint16_t widths[ROW_COLUMNS_MAX];
    uint32_t record_bytes; /* header and columns */
};

/* One leaf page, being taken apart or put together. */
struct page_rows {
    uint32_t page_bytes;
    enum page_kind kind;
    uint32_t cells, first_cell; /* the pointers' number, and where they end */
    uint32_t rows;              /* cells that are taken apart */
    unsigned shape_count;
    unsigned columns; /* of the widest shape */
    struct shape shapes[SHAPES_MAX];
    uint32_t rows_of[SHAPES_MAX];         /* how many rows have each shape */
    uint8_t shape_of[CELLS_MAX];          /* of each row */
    uint32_t at[CELLS_MAX];               /* where each row's next column begins */
    uint64_t used[COLUMNS_PAGE_MAX / 64]; /* a bit for each byte of pointers and rows */
};

struct segment {
    uint32_t at, bytes;
};

struct columns {
    struct page_rows rows;
    /* Taking apart: */
    uint8_t slots[256]; /* shapes by hash, 1-based */
    uint8_t pieces[PART_BLOCK_MAX + COLUMNS_PAGE_MAX];
    uint8_t whole[PART_BLOCK_MAX];
    size_t piece_bytes;
    uint32_t row_bytes;
    struct segment segments[COLUMNS_PAGES_MAX][STREAMS];
};

/* Reads kind, number of cells and so on from a page's first PAGE_HEAD bytes, and clears the rest.
 * PAGE_OTHER: it is not taken apart. */
void page_rows_begin(struct page_rows *p, const uint8_t *head, uint32_t page_bytes);

/* Parses a record header of up to n bytes. False when it is none that can be taken apart. */
bool shape_parse(const uint8_t *header, size_t n, struct shape *ret);

/* Marks [from, to) as used; false, changing nothing, when some of it is. */
static inline bool page_rows_use(struct page_rows *p, uint32_t from, uint32_t to)
{
    uint32_t first = from / 64, last = (to - 1) / 64;
    uint64_t head = UINT64_MAX << (from % 64), tail = UINT64_MAX >> (63 - (to - 1) % 64);
    if (first == last) {
        if (p->used[first] & head & tail)
            return false;
        p->used[first] |= head & tail;
        return true;
    }
    if (p->used[first] & head || p->used[last] & tail)
        return false;
    for (uint32_t i = first + 1; i < last; i++)
        if (p->used[i])
            return false;
    p->used[first] |= head;
    p->used[last] |= tail;
    for (uint32_t i = first + 1; i < last; i++)
        p->used[i] = UINT64_MAX;
    return true;
}

/* Calls with each unused range, ascending; ends early when the callback is false. */
bool page_rows_rest(const struct page_rows *p, bool (*range)(void *arg, uint32_t from, uint32_t to),
                    void *arg);

/* Column k of the page: how many rows have it; and whether its values, all of one width, are turned
 * into planes. (FORMAT.md says so of widths from 2; of 0 and 1 it comes to the same.) */
struct column {
    uint32_t count, width;
    bool is_planes;
};
struct column page_rows_column(const struct page_rows *p, unsigned k);

static inline bool row_has(const struct page_rows *p, uint32_t row, unsigned k)
{
    return k < p->shapes[p->shape_of[row]].columns;
}

/* Eight rows of eight bytes, each a little-endian number, become eight columns. */
static inline void transpose_8x8(uint64_t x[8])
{
    static const uint64_t masks[] = {UINT64_C(0xffffffff), UINT64_C(0xffff0000ffff),
                                     UINT64_C(0xff00ff00ff00ff)};
    for (unsigned step = 4, k = 0; step > 0; step /= 2, k++) {
        for (unsigned i = 0; i < 8; i++) {
            if (i & step)
                continue;
            uint64_t swap = (x[i] >> 8 * step ^ x[i + step]) & masks[k];
            x[i + step] ^= swap;
            x[i] ^= swap << 8 * step;
        }
    }
}

static inline unsigned column_stream(enum page_kind kind, unsigned k)
{
    return STREAM_VALUES + (kind == PAGE_INDEX ? VALUE_STREAMS : 0) +
           (k < VALUE_STREAMS ? k : VALUE_STREAMS - 1);
}

/* SQLite's varint: big-endian, seven bits a byte, the ninth byte whole. */
static inline unsigned sqlite_varint_bytes(uint64_t v)
{
    unsigned n = 1;
    while (n < 9 && v >> (7 * n))
        n++;
    return n;
}

/* Bytes taken, 0 when it goes on past n. */
static inline unsigned sqlite_varint_get(const uint8_t *p, size_t n, uint64_t *ret)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < 8 && i < n; i++) {
        v = v << 7 | (p[i] & 0x7f);
        if (p[i] < 0x80) {
            *ret = v;
            return i + 1;
        }
    }
    if (n < 9)
        return 0;
    *ret = v << 8 | p[8];
    return 9;
}

static inline unsigned sqlite_varint_put(uint8_t *p, uint64_t v)
{
    unsigned n = sqlite_varint_bytes(v);
    unsigned i = n;
    if (n == 9) {
        p[--i] = (uint8_t)v;
        v >>= 8;
    }
    while (i-- > 0) {
        p[i] = (uint8_t)((v & 0x7f) | (i + 1 < n ? 0x80 : 0));
        v >>= 7;
    }
    return n;
}

#endif
