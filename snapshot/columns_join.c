/* Columns into pages. All that comes in is a worker's word: nothing is read past a stream's end,
 * and nothing is written that lies outside of its page or was written before. */
#include "snapshot/columns_internal.h"
#include "syncd/base/buf.h"
#include "syncd/base/mem.h"

struct joining {
    struct page_rows *p;
    struct cursor streams[STREAMS];
    uint8_t *page;
};

static bool open_streams(struct joining *j, const uint8_t *from, size_t n)
{
    uint64_t lengths[STREAMS];
    struct cursor c = cursor_of(from, n);
    for (unsigned s = 0; s < STREAMS; s++)
        lengths[s] = cursor_varint(&c);
    for (unsigned s = 0; s < STREAMS && !c.bad; s++) {
        if (lengths[s] > cursor_left(&c))
            return false;
        j->streams[s] = cursor_of(cursor_take(&c, (size_t)lengths[s]), (size_t)lengths[s]);
    }
    return !c.bad && cursor_left(&c) == 0;
}

static bool join_pointers(struct joining *j)
{
    const uint8_t *high = cursor_take(&j->streams[STREAM_POINTERS_HIGH], j->p->cells);
    const uint8_t *low = cursor_take(&j->streams[STREAM_POINTERS_LOW], j->p->cells);
    uint16_t at = (uint16_t)j->p->page_bytes;
    if (!high || !low)
        return false;
    for (uint32_t i = 0; i < j->p->cells; i++) {
        at = (uint16_t)(at - (high[i] << 8 | low[i]));
        j->page[PAGE_HEAD + 2 * i] = (uint8_t)(at >> 8);
        j->page[PAGE_HEAD + 2 * i + 1] = (uint8_t)at;
    }
    return true;
}

/* The shape with that number; the next number brings a new one. */
static const struct shape *shape_numbered(struct joining *j, uint8_t number)
{
    struct page_rows *p = j->p;
    struct cursor *headers = &j->streams[STREAM_HEADERS];
    if (number < p->shape_count)
        return &p->shapes[number];
    if (number > p->shape_count ||
        !shape_parse(headers->p, cursor_left(headers), &p->shapes[number]))
        return NULL;
    cursor_take(headers, p->shapes[number].header_bytes);
    p->rows_of[number] = 0;
    p->columns = MAX(p->columns, (unsigned)p->shapes[number].columns);
    return &p->shapes[p->shape_count++];
}

/* From one rowid to the next: nearly always one byte. */
static uint64_t next_step(struct cursor *c)
{
    if (c->p == c->end || *c->p >= 0x80)
        return (uint64_t)cursor_zigzag(c);
    uint64_t v = *c->p++;
    return v >> 1 ^ (v & 1 ? UINT64_MAX : 0);
}

/* What stands before a row's columns. */
static bool join_cell(struct joining *j, uint8_t number, uint32_t at, uint64_t *rowid)
{
    struct page_rows *p = j->p;
    uint8_t head[18];
    const struct shape *s = shape_numbered(j, number);
    if (!s)
        return false;
    unsigned n = sqlite_varint_put(head, s->record_bytes);
    if (p->kind == PAGE_TABLE) {
        *rowid += next_step(&j->streams[STREAM_ROWIDS]);
        n += sqlite_varint_put(head + n, *rowid);
    }
    if (at < p->first_cell || at >= p->page_bytes || n + s->record_bytes > p->page_bytes - at ||
        !page_rows_use(p, at, at + n + s->record_bytes))
        return false;
    memcpy(j->page + at, head, n);
    /* Eight bytes are one instruction; what they say of the columns is overwritten by those. */
    if (s->header_bytes <= 8 && s->record_bytes >= 8)
        memcpy(j->page + at + n, s->header, 8);
    else
        memcpy(j->page + at + n, s->header, s->header_bytes);
    p->rows_of[number]++;
    p->shape_of[p->rows] = number;
    p->at[p->rows++] = at + n + s->header_bytes;
    return true;
}

static bool join_cells(struct joining *j)
{
    const uint8_t *shapes = cursor_take(&j->streams[STREAM_SHAPES], j->p->cells);
    uint64_t rowid = 0;
    if (!shapes)
        return false;
    for (uint32_t i = 0; i < j->p->cells; i++) {
        const uint8_t *pointer = j->page + PAGE_HEAD + 2 * (size_t)i;
        if (shapes[i] != SHAPE_NONE &&
            !join_cell(j, shapes[i], (uint32_t)pointer[0] << 8 | pointer[1], &rowid))
            return false;
    }
    return true;
}

/* Of `n` rows, the first of which is the `done`th that has the column. */
static void join_bytes(uint8_t *page, const uint32_t *at, const uint8_t *from,
                       const struct column *column, uint32_t done, uint32_t n)
{
    for (uint32_t j = 0; j < column->width; j++)
        for (uint32_t i = 0; i < n; i++)
            page[at[i] + j] = from[(size_t)j * column->count + done + i];
}

/* Eight bytes, `first` on, of each of eight rows. */
static void join_square(uint8_t *page, const uint32_t *at, const uint8_t *from,
                        const struct column *column, uint32_t done, uint32_t first)
{
    uint64_t x[8];
    for (uint32_t i = 0; i < 8; i++)
        x[i] = le64_get(from + (size_t)(first + i) * column->count + done);
    transpose_8x8(x);
    for (uint32_t i = 0; i < 8; i++)
        le64_put(page + at[i] + first, x[i]);
}

/* All of eight rows; where eight does not go into the width the last square overlaps. */
static void join_eight(uint8_t *page, const uint32_t *at, const uint8_t *from,
                       const struct column *column, uint32_t done)
{
    if (column->width < 8) {
        join_bytes(page, at, from, column, done, 8);
        return;
    }
    for (uint32_t j = 0; j + 8 <= column->width; j += 8)
        join_square(page, at, from, column, done, j);
    if (column->width % 8)
        join_square(page, at, from, column, done, column->width - 8);
}

static bool join_planes(struct joining *j, unsigned k, const struct column *column,
                        struct cursor *stream)
{
    struct page_rows *p = j->p;
    const uint8_t *from = cursor_take(stream, (size_t)column->width * column->count);
    uint32_t i = 0, done = 0;
    if (!from)
        return false;
    if (column->count == p->rows)
        for (; i + 8 <= p->rows; i += 8)
            join_eight(j->page, p->at + i, from, column, i);
    for (done = i; i < p->rows; i++)
        if (row_has(p, i, k))
            join_bytes(j->page, p->at + i, from, column, done++, 1);
    for (i = 0; i < p->rows; i++)
        if (row_has(p, i, k))
            p->at[i] += column->width;
    return true;
}

static bool join_values(struct joining *j, unsigned k, struct cursor *stream)
{
    struct page_rows *p = j->p;
    for (uint32_t i = 0; i < p->rows; i++) {
        if (!row_has(p, i, k))
            continue;
        uint16_t width = p->shapes[p->shape_of[i]].widths[k];
        const uint8_t *from = cursor_take(stream, width);
        if (!from)
            return false;
        memcpy(j->page + p->at[i], from, width);
        p->at[i] += width;
    }
    return true;
}

static bool join_columns(struct joining *j)
{
    for (unsigned k = 0; k < j->p->columns; k++) {
        struct column column = page_rows_column(j->p, k);
        struct cursor *stream = &j->streams[column_stream(j->p->kind, k)];
        if (!(column.is_planes ? join_planes(j, k, &column, stream) : join_values(j, k, stream)))
            return false;
    }
    return true;
}

static bool join_rest(void *arg, uint32_t from, uint32_t to)
{
    struct joining *j = arg;
    const uint8_t *data = cursor_take(&j->streams[STREAM_REST], to - from);
    if (data)
        memcpy(j->page + from, data, to - from);
    return data != NULL;
}

static bool join_page(struct joining *j, uint32_t page_bytes)
{
    const struct cursor *rest = &j->streams[STREAM_REST];
    if (cursor_left(rest) < PAGE_HEAD)
        return false;
    page_rows_begin(j->p, rest->p, page_bytes);
    if (j->p->kind != PAGE_OTHER && (!join_pointers(j) || !join_cells(j) || !join_columns(j)))
        return false;
    return page_rows_rest(j->p, join_rest, j);
}

bool columns_join(struct columns *c, const uint8_t *from, size_t n, uint8_t page_shift,
                  uint32_t count, uint8_t *raw)
{
    struct joining j = {.p = &c->rows};
    if (!open_streams(&j, from, n))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        j.page = raw + ((size_t)i << page_shift);
        if (!join_page(&j, UINT32_C(1) << page_shift))
            return false;
    }
    for (unsigned s = 0; s < STREAMS; s++)
        if (j.streams[s].bad || cursor_left(&j.streams[s]) != 0)
            return false;
    return true;
}
