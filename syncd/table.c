/* The aligned table of show.h. */
#include <stdlib.h>
#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/mem.h"
#include "syncd/show.h"

#define GAP 2

struct cell {
    size_t offset, len; /* in the text */
    size_t width;
};

struct table {
    size_t column_count;
    bool *right;
    size_t *width;
    struct buf text;
    struct cell *cells; /* row by row; the titles are the first row */
    size_t cell_count, cell_cap;
    bool bad; /* out of memory: rows may be missing */
};

struct table *table_new(const char *const *titles)
{
    struct table *t = mem_alloc(1, sizeof *t);
    if (!t)
        return NULL;
    while (titles[t->column_count])
        t->column_count++;
    t->right = mem_alloc(t->column_count, sizeof *t->right);
    t->width = mem_alloc(t->column_count, sizeof *t->width);
    if (!t->right || !t->width) {
        table_free(t);
        return NULL;
    }
    for (size_t i = 0; i < t->column_count; i++) {
        t->right[i] = titles[i][0] == '>';
        table_add(t, titles[i] + (t->right[i] ? 1 : 0));
    }
    return t;
}

void table_add(struct table *t, const char *cell)
{
    size_t start = t->text.len, column = t->cell_count % t->column_count;
    show_safe(cell ? cell : "-", &t->text);
    buf_put_u8(&t->text, '\0');
    if (t->text.bad || mem_grow(&t->cells, &t->cell_cap, t->cell_count + 1, sizeof *t->cells)) {
        t->bad = true;
        return;
    }
    size_t width = show_width((const char *)t->text.data + start);
    t->cells[t->cell_count++] =
        (struct cell){.offset = start, .len = t->text.len - start - 1, .width = width};
    t->width[column] = MAX(t->width[column], width);
}

static void blanks(struct buf *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf_put_u8(b, ' ');
}

void table_print(const struct table *t, struct buf *ret)
{
    size_t owed = 0; /* blanks that are put only when something follows on the line */
    for (size_t i = 0; i < t->cell_count; i++) {
        const struct cell *cell = &t->cells[i];
        size_t column = i % t->column_count, rest = t->width[column] - cell->width;
        if (column == 0 && i > 0)
            buf_put_u8(ret, '\n');
        owed = column == 0 ? 0 : owed + GAP;
        if (t->right[column])
            owed += rest;
        if (cell->len) {
            blanks(ret, owed);
            owed = 0;
            buf_put(ret, t->text.data + cell->offset, cell->len);
        } else {
            owed += cell->width;
        }
        if (!t->right[column])
            owed += rest;
    }
    buf_put_u8(ret, '\n');
    ret->bad = ret->bad || t->bad;
}

void table_free(struct table *t)
{
    if (!t)
        return;
    free(t->right);
    free(t->width);
    free(t->cells);
    buf_free(&t->text);
    free(t);
}
