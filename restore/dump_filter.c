#include "restore/dump_filter.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/dump_archive.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

struct dump_filter {
    struct dump_archive *archive;
    const char *const *schemas;
    dump_filter_fn *out;
    void *arg;
    struct buf head, items; /* held back until the number of items is known */
    unsigned int_size;
    bool contents_out;
    uint32_t item_count;
    size_t kept_count, kept_cap;
    int32_t *kept; /* with data, as in the archive */
    size_t next;
    bool has_last, last_kept;
    int32_t last_id;
};

static bool is_chosen(const struct dump_filter *f, const char *schema)
{
    for (const char *const *s = f->schemas; *s; s++)
        if (strcmp(*s, schema) == 0)
            return true;
    return false;
}

/* Settings that every archive begins with, the schema, what is said of it, what is in it. */
static bool is_kept(const struct dump_filter *f, const struct dump_item *item)
{
    static const char *const always[] = {"ENCODING", "STDSTRINGS", "SEARCHPATH", NULL};
    for (const char *const *kind = always; *kind; kind++)
        if (strcmp(item->kind, *kind) == 0)
            return true;
    if (strcmp(item->kind, "SCHEMA") == 0)
        return is_chosen(f, item->tag);
    if (!item->schema[0])
        return strncmp(item->tag, "SCHEMA ", 7) == 0 && is_chosen(f, item->tag + 7);
    return is_chosen(f, item->schema);
}

static int on_head(void *arg, const uint8_t *p, size_t n, unsigned int_size, struct err *e)
{
    struct dump_filter *f = arg;
    f->int_size = int_size;
    buf_put(&f->head, p, n - 1 - int_size);
    return f->head.bad ? err_nomem(e) : 0;
}

static int on_item(void *arg, const struct dump_item *item, struct err *e)
{
    struct dump_filter *f = arg;
    if (!is_kept(f, item))
        return 0;
    f->item_count++;
    buf_put(&f->items, item->raw, item->raw_len);
    if (item->has_data) {
        if (mem_grow(&f->kept, &f->kept_cap, f->kept_count + 1, sizeof *f->kept))
            return err_nomem(e);
        f->kept[f->kept_count++] = item->id;
    }
    return f->items.bad ? err_nomem(e) : 0;
}

static int write_contents(struct dump_filter *f, struct err *e)
{
    if (f->contents_out)
        return 0;
    f->contents_out = true;
    buf_put_u8(&f->head, 0);
    for (unsigned i = 0; i < f->int_size; i++)
        buf_put_u8(&f->head, i < 4 ? (uint8_t)(f->item_count >> (8 * i)) : 0);
    if (f->head.bad)
        return err_nomem(e);
    int rc = f->out(f->arg, f->head.data, f->head.len, e);
    if (rc == 0 && f->items.len)
        rc = f->out(f->arg, f->items.data, f->items.len, e);
    buf_free(&f->items);
    return rc;
}

/* Data come in the order of the items, and each in many pieces. */
static bool has_data_kept(struct dump_filter *f, int32_t id)
{
    if (f->has_last && f->last_id == id)
        return f->last_kept;
    f->has_last = true;
    f->last_id = id;
    f->last_kept = false;
    for (size_t i = 0; !f->last_kept && i < f->kept_count; i++) {
        size_t at = (f->next + i) % f->kept_count;
        f->last_kept = f->kept[at] == id;
        if (f->last_kept)
            f->next = at + 1;
    }
    return f->last_kept;
}

static int on_data(void *arg, int32_t id, const uint8_t *p, size_t n, struct err *e)
{
    struct dump_filter *f = arg;
    int rc = write_contents(f, e);
    return rc || !has_data_kept(f, id) ? rc : f->out(f->arg, p, n, e);
}

struct dump_filter *dump_filter_new(const char *const *schemas, dump_filter_fn *out, void *arg)
{
    struct dump_filter *f = mem_alloc(1, sizeof *f);
    if (!f)
        return NULL;
    *f = (struct dump_filter){.schemas = schemas, .out = out, .arg = arg};
    struct dump_events events = {.head = on_head, .item = on_item, .data = on_data, .arg = f};
    f->archive = dump_archive_new(&events);
    if (f->archive)
        return f;
    free(f);
    return NULL;
}

void dump_filter_free(struct dump_filter *f)
{
    if (!f)
        return;
    dump_archive_free(f->archive);
    buf_free(&f->head);
    buf_free(&f->items);
    free(f->kept);
    free(f);
}

int dump_filter_feed(struct dump_filter *f, const void *p, size_t n, struct err *e)
{
    return dump_archive_feed(f->archive, p, n, e);
}

int dump_filter_end(struct dump_filter *f, struct err *e)
{
    int rc = dump_archive_end(f->archive, e);
    return rc ? rc : write_contents(f, e);
}
