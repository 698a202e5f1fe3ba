/* What taking apart and putting together have in common. */
#include "snapshot/columns.h"

#include <stdlib.h>

#include "snapshot/columns_internal.h"
#include "syncd/base/mem.h"

struct columns *columns_new(void)
{
    return malloc(sizeof(struct columns)); /* not cleared: most of it is never touched */
}

void columns_free(struct columns *c)
{
    free(c);
}

void page_rows_begin(struct page_rows *p, const uint8_t *head, uint32_t page_bytes)
{
    p->page_bytes = page_bytes;
    p->cells = (uint32_t)head[3] << 8 | head[4];
    p->first_cell = PAGE_HEAD + 2 * p->cells;
    p->kind = head[0] == 0x0d ? PAGE_TABLE : head[0] == 0x0a ? PAGE_INDEX : PAGE_OTHER;
    if (p->cells == 0 || p->first_cell > page_bytes)
        p->kind = PAGE_OTHER;
    p->rows = 0;
    p->shape_count = p->columns = 0;
    memset(p->used, 0, page_bytes / 8);
    if (p->kind != PAGE_OTHER)
        page_rows_use(p, PAGE_HEAD, p->first_cell);
}

/* Widths by serial type; 10 and 11 are SQLite's own, and anything beyond is text or a blob. */
static bool column_width(uint64_t type, uint32_t *ret)
{
    static const uint8_t widths[] = {0, 1, 2, 3, 4, 6, 8, 8, 0, 0};
    if (type == 10 || type == 11 || type > 2 * (uint64_t)COLUMNS_PAGE_MAX)
        return false;
    *ret = type < 10 ? widths[type] : (uint32_t)(type - 12) / 2;
    return *ret < COLUMNS_PAGE_MAX;
}

bool shape_parse(const uint8_t *header, size_t n, struct shape *ret)
{
    if (n == 0 || header[0] == 0 || header[0] > SHAPE_BYTES_MAX || header[0] > n)
        return false;
    ret->header_bytes = header[0];
    ret->columns = 0;
    ret->record_bytes = header[0];
    for (size_t at = 1; at < header[0]; ret->columns++) {
        uint64_t type;
        uint32_t width;
        unsigned taken = sqlite_varint_get(header + at, header[0] - at, &type);
        if (taken == 0 || ret->columns == ROW_COLUMNS_MAX || !column_width(type, &width))
            return false;
        ret->widths[ret->columns] = (uint16_t)width;
        ret->record_bytes += width;
        at += taken;
    }
    if (ret->record_bytes > COLUMNS_PAGE_MAX)
        return false;
    memcpy(ret->header, header, header[0]);
    return true;
}

/* The first position at or after `at` whose bit is `wanted`; page_bytes when there is none. */
static uint32_t find_bit(const struct page_rows *p, uint32_t at, bool wanted)
{
    uint64_t flip = wanted ? 0 : UINT64_MAX;
    uint32_t words = p->page_bytes / 64;
    uint32_t i = at / 64;
    if (i >= words)
        return p->page_bytes;
    uint64_t word = (p->used[i] ^ flip) & (UINT64_MAX << (at % 64));
    while (word == 0 && ++i < words)
        word = p->used[i] ^ flip;
    return word ? i * 64 + (uint32_t)__builtin_ctzll(word) : p->page_bytes;
}

bool page_rows_rest(const struct page_rows *p, bool (*range)(void *arg, uint32_t from, uint32_t to),
                    void *arg)
{
    uint32_t from = 0;
    while ((from = find_bit(p, from, false)) < p->page_bytes) {
        uint32_t to = find_bit(p, from, true);
        if (!range(arg, from, to))
            return false;
        from = to;
    }
    return true;
}

struct column page_rows_column(const struct page_rows *p, unsigned k)
{
    struct column found = {.is_planes = true};
    for (unsigned i = 0; i < p->shape_count; i++) {
        const struct shape *s = &p->shapes[i];
        if (k >= s->columns || p->rows_of[i] == 0)
            continue;
        found.is_planes &= found.count == 0 || found.width == s->widths[k];
        found.width = s->widths[k];
        found.count += p->rows_of[i];
    }
    found.is_planes &= found.width <= PLANES_MAX;
    return found;
}
