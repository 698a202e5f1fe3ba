/* Pages into columns. */
#include "snapshot/columns_internal.h"
#include "syncd/base/buf.h"
#include "syncd/base/mem.h"

/* What a page may come to at the most: a rowid's difference can take 10 bytes. A page that is not
 * taken apart has no cells, whatever stands where their number would be (an overflow page). */
static size_t room_for(const struct page_rows *p)
{
    return p->page_bytes + (p->kind == PAGE_OTHER ? 0 : (size_t)p->cells * 11);
}

static void put(struct columns *c, const void *data, size_t n)
{
    memcpy(c->pieces + c->piece_bytes, data, n);
    c->piece_bytes += n;
}

static void put_zigzag(struct columns *c, uint64_t difference)
{
    uint64_t v = difference << 1 ^ (difference >> 63 ? UINT64_MAX : 0);
    for (; v >= 0x80; v >>= 7)
        c->pieces[c->piece_bytes++] = (uint8_t)(v | 0x80);
    c->pieces[c->piece_bytes++] = (uint8_t)v;
}

/* What was put since `from` is this page's part of the stream. */
static void end_segment(struct columns *c, struct segment *s, size_t from)
{
    *s = (struct segment){.at = (uint32_t)from, .bytes = (uint32_t)(c->piece_bytes - from)};
}

static uint8_t hash_header(const uint8_t *header, size_t n)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ header[i]) * 16777619u;
    return (uint8_t)(h >> 24 ^ h);
}

/* The shape of the record at `header`; a new one becomes the page's only when its row is taken.
 * NULL when there is none, or the page has too many. */
static struct shape *find_shape(struct columns *c, const uint8_t *header, size_t n,
                                uint8_t *ret_slot)
{
    struct page_rows *p = &c->rows;
    if (n == 0 || header[0] > n)
        return NULL;
    uint8_t slot = hash_header(header, header[0]);
    for (; c->slots[slot]; slot++) {
        struct shape *s = &p->shapes[c->slots[slot] - 1];
        if (s->header_bytes == header[0] && memcmp(s->header, header, header[0]) == 0)
            return s;
    }
    *ret_slot = slot;
    /* One place in the table stays empty, where looking ends. */
    if (p->shape_count + 1 >= SHAPES_MAX || !shape_parse(header, n, &p->shapes[p->shape_count]))
        return NULL;
    return &p->shapes[p->shape_count];
}

/* A cell is taken when it is written as SQLite itself writes it, lies whole in the page, and shares
 * no byte with another: then it can be made again from its shape, its rowid and its columns. */
static uint8_t take_cell(struct columns *c, const uint8_t *page, uint32_t at, uint64_t *rowid)
{
    struct page_rows *p = &c->rows;
    uint64_t payload, row = *rowid;
    if (at < p->first_cell || at >= p->page_bytes)
        return SHAPE_NONE;
    uint32_t i = at;
    unsigned taken = sqlite_varint_get(page + i, p->page_bytes - i, &payload);
    if (taken == 0 || taken != sqlite_varint_bytes(payload))
        return SHAPE_NONE;
    i += taken;
    if (p->kind == PAGE_TABLE) {
        taken = sqlite_varint_get(page + i, p->page_bytes - i, &row);
        if (taken == 0 || taken != sqlite_varint_bytes(row))
            return SHAPE_NONE;
        i += taken;
    }
    uint8_t slot = 0;
    struct shape *s = find_shape(c, page + i, p->page_bytes - i, &slot);
    if (!s || s->record_bytes != payload || payload > p->page_bytes - i ||
        !page_rows_use(p, at, i + (uint32_t)payload))
        return SHAPE_NONE;
    uint8_t number = (uint8_t)(s - p->shapes);
    if (number == p->shape_count) {
        c->slots[slot] = (uint8_t)(number + 1);
        p->rows_of[number] = 0;
        p->shape_count++;
        p->columns = MAX(p->columns, (unsigned)s->columns);
    }
    p->rows_of[number]++;
    p->shape_of[p->rows] = number;
    p->at[p->rows++] = i + s->header_bytes;
    c->row_bytes += i + (uint32_t)payload - at;
    if (p->kind == PAGE_TABLE)
        put_zigzag(c, row - *rowid);
    *rowid = row;
    return number;
}

static void put_pointers(struct columns *c, const uint8_t *page, struct segment *segments)
{
    uint32_t cells = c->rows.cells;
    uint8_t *high = c->pieces + c->piece_bytes, *low = high + cells;
    uint16_t before = (uint16_t)c->rows.page_bytes;
    for (uint32_t i = 0; i < cells; i++) {
        uint16_t at = (uint16_t)(page[PAGE_HEAD + 2 * i] << 8 | page[PAGE_HEAD + 2 * i + 1]);
        uint16_t down = (uint16_t)(before - at);
        high[i] = (uint8_t)(down >> 8);
        low[i] = (uint8_t)down;
        before = at;
    }
    c->piece_bytes += cells;
    end_segment(c, &segments[STREAM_POINTERS_HIGH], c->piece_bytes - cells);
    c->piece_bytes += cells;
    end_segment(c, &segments[STREAM_POINTERS_LOW], c->piece_bytes - cells);
}

/* Of `n` rows, the first of which is the `done`th that has the column. */
static void put_bytes(uint8_t *to, const struct column *column, const uint8_t *page,
                      const uint32_t *at, uint32_t done, uint32_t n)
{
    for (uint32_t j = 0; j < column->width; j++)
        for (uint32_t i = 0; i < n; i++)
            to[(size_t)j * column->count + done + i] = page[at[i] + j];
}

/* Eight bytes, `from` on, of each of eight rows. */
static void put_square(uint8_t *to, const struct column *column, const uint8_t *page,
                       const uint32_t *at, uint32_t done, uint32_t from)
{
    uint64_t x[8];
    for (uint32_t i = 0; i < 8; i++)
        x[i] = le64_get(page + at[i] + from);
    transpose_8x8(x);
    for (uint32_t i = 0; i < 8; i++)
        le64_put(to + (size_t)(from + i) * column->count + done, x[i]);
}

/* All of eight rows; where eight does not go into the width the last square overlaps. */
static void put_eight(uint8_t *to, const struct column *column, const uint8_t *page,
                      const uint32_t *at, uint32_t done)
{
    if (column->width < 8) {
        put_bytes(to, column, page, at, done, 8);
        return;
    }
    for (uint32_t j = 0; j + 8 <= column->width; j += 8)
        put_square(to, column, page, at, done, j);
    if (column->width % 8)
        put_square(to, column, page, at, done, column->width - 8);
}

static void put_planes(struct columns *c, const uint8_t *page, unsigned k,
                       const struct column *column)
{
    struct page_rows *p = &c->rows;
    uint8_t *to = c->pieces + c->piece_bytes;
    uint32_t i = 0, done = 0;
    if (column->count == p->rows)
        for (; i + 8 <= p->rows; i += 8)
            put_eight(to, column, page, p->at + i, i);
    for (done = i; i < p->rows; i++)
        if (row_has(p, i, k))
            put_bytes(to, column, page, p->at + i, done++, 1);
    for (i = 0; i < p->rows; i++)
        if (row_has(p, i, k))
            p->at[i] += column->width;
    c->piece_bytes += (size_t)column->width * column->count;
}

static void put_values(struct columns *c, const uint8_t *page, unsigned k)
{
    struct page_rows *p = &c->rows;
    for (uint32_t i = 0; i < p->rows; i++) {
        if (!row_has(p, i, k))
            continue;
        uint16_t width = p->shapes[p->shape_of[i]].widths[k];
        put(c, page + p->at[i], width);
        p->at[i] += width;
    }
}

static void put_columns(struct columns *c, const uint8_t *page, struct segment *segments)
{
    size_t from = c->piece_bytes;
    for (unsigned k = 0; k < c->rows.columns; k++) {
        struct column column = page_rows_column(&c->rows, k);
        if (k < VALUE_STREAMS)
            from = c->piece_bytes;
        if (column.is_planes)
            put_planes(c, page, k, &column);
        else
            put_values(c, page, k);
        end_segment(c, &segments[column_stream(c->rows.kind, k)], from);
    }
}

struct rest {
    struct columns *c;
    const uint8_t *page;
};

static bool put_rest(void *arg, uint32_t from, uint32_t to)
{
    struct rest *r = arg;
    put(r->c, r->page + from, to - from);
    return true;
}

static bool split_page(struct columns *c, const uint8_t *page, uint32_t page_bytes,
                       struct segment *segments)
{
    struct page_rows *p = &c->rows;
    memset(segments, 0, STREAMS * sizeof *segments);
    page_rows_begin(p, page, page_bytes);
    if (room_for(p) > sizeof c->pieces - c->piece_bytes)
        return false;
    if (p->kind != PAGE_OTHER) {
        memset(c->slots, 0, sizeof c->slots);
        put_pointers(c, page, segments);
        size_t from = c->piece_bytes;
        uint64_t rowid = 0;
        /* The numbers of the shapes wait behind the longest that the rowids can be. */
        uint8_t *shapes = c->pieces + from + 10 * (size_t)p->cells;
        for (uint32_t i = 0; i < p->cells; i++) {
            const uint8_t *pointer = page + PAGE_HEAD + 2 * (size_t)i;
            shapes[i] = take_cell(c, page, (uint32_t)pointer[0] << 8 | pointer[1], &rowid);
        }
        end_segment(c, &segments[STREAM_ROWIDS], from);
        memmove(c->pieces + c->piece_bytes, shapes, p->cells);
        c->piece_bytes += p->cells;
        end_segment(c, &segments[STREAM_SHAPES], c->piece_bytes - p->cells);
        from = c->piece_bytes;
        for (unsigned i = 0; i < p->shape_count; i++)
            put(c, p->shapes[i].header, p->shapes[i].header_bytes);
        end_segment(c, &segments[STREAM_HEADERS], from);
        put_columns(c, page, segments);
    }
    size_t from = c->piece_bytes;
    page_rows_rest(p, put_rest, &(struct rest){c, page});
    end_segment(c, &segments[STREAM_REST], from);
    return true;
}

static void put_length(uint8_t **at, uint32_t v)
{
    for (; v >= 0x80; v >>= 7)
        *(*at)++ = (uint8_t)(v | 0x80);
    *(*at)++ = (uint8_t)v;
}

/* The pieces, so far page by page, in the order of the streams. */
static size_t gather(struct columns *c, uint32_t count)
{
    uint8_t *to = c->whole;
    if (c->piece_bytes + 3 * STREAMS > sizeof c->whole)
        return 0;
    for (unsigned s = 0; s < STREAMS; s++) {
        uint32_t bytes = 0;
        for (uint32_t i = 0; i < count; i++)
            bytes += c->segments[i][s].bytes;
        put_length(&to, bytes);
    }
    for (unsigned s = 0; s < STREAMS; s++) {
        for (uint32_t i = 0; i < count; i++) {
            const struct segment *from = &c->segments[i][s];
            memcpy(to, c->pieces + from->at, from->bytes);
            to += from->bytes;
        }
    }
    return (size_t)(to - c->whole);
}

size_t columns_split(struct columns *c, const uint8_t *raw, uint8_t page_shift, uint32_t count,
                     const uint8_t **ret)
{
    uint32_t page_bytes = UINT32_C(1) << page_shift;
    c->piece_bytes = 0;
    c->row_bytes = 0;
    for (uint32_t i = 0; i < count; i++)
        if (!split_page(c, raw + (size_t)i * page_bytes, page_bytes, c->segments[i]))
            return 0;
    if (c->row_bytes < count * page_bytes / 2)
        return 0;
    size_t n = gather(c, count);
    /* The pieces have been gathered: their place serves to look at what a restore will get. */
    if (n == 0 || !columns_join(c, c->whole, n, page_shift, count, c->pieces) ||
        memcmp(c->pieces, raw, (size_t)count * page_bytes) != 0)
        return 0;
    *ret = c->whole;
    return n;
}
