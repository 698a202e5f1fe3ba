#include "restore/bolt_diff.h"

#include <stdlib.h>
#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define BEFORE 0
#define AFTER 1
#define PIECE_BYTES 65536u
#define SMALLEST_ITEM 17u /* bytes: an element and a key of one */
#define LOOK_EVERY 1024u

struct diff {
    const struct bolt_diff *o;
    struct bolt_reader *reader[2];
    uint64_t items, items_max;
    size_t depth;
    struct buf path[BOLT_DIFF_NESTED_MAX];
    uint8_t *piece[2];
};

/* One bucket in both states; a NULL cursor: it is not there. */
struct pair {
    const struct bolt_bucket *bucket[2];
    struct bolt_cursor *cursor[2];
    struct bolt_item item[2]; /* key NULL: none left */
};

static int diff_buckets(struct diff *d, const struct bolt_bucket *before,
                        const struct bolt_bucket *after, struct err *e);

static void close_pair(struct pair *p)
{
    bolt_cursor_close(p->cursor[BEFORE]);
    bolt_cursor_close(p->cursor[AFTER]);
}

static int next(struct diff *d, struct pair *p, int side, struct err *e)
{
    p->item[side] = (struct bolt_item){0};
    if (!p->cursor[side])
        return 0;
    if (++d->items > d->items_max)
        return err_set(e, ERR_DAMAGED, d->o->name,
                       "the bolt database is damaged: it refers to its pages more than once");
    if (d->items % LOOK_EVERY == 0 && d->o->look) {
        int rc = d->o->look(d->o->arg, e);
        if (rc)
            return rc;
    }
    return bolt_cursor_next(p->cursor[side], &p->item[side], e);
}

static int compare_keys(const struct pair *p)
{
    const struct bolt_item *a = &p->item[BEFORE], *b = &p->item[AFTER];
    if (!a->key || !b->key)
        return a->key ? -1 : 1;
    int c = memcmp(a->key, b->key, MIN(a->key_bytes, b->key_bytes));
    return c ? c : (a->key_bytes > b->key_bytes) - (a->key_bytes < b->key_bytes);
}

static int values_differ(struct diff *d, const struct pair *p, bool *ret, struct err *e)
{
    const struct bolt_item *item = p->item;
    int rc = 0;
    *ret = item[BEFORE].value_bytes != item[AFTER].value_bytes;
    for (uint32_t from = 0, n; rc == 0 && !*ret && from < item[AFTER].value_bytes; from += n) {
        n = MIN(item[AFTER].value_bytes - from, PIECE_BYTES);
        for (int i = 0; rc == 0 && i < 2; i++)
            rc = bolt_value_read(d->reader[i], &item[i], from, d->piece[i], n, e);
        *ret = rc == 0 && memcmp(d->piece[BEFORE], d->piece[AFTER], n) != 0;
    }
    return rc;
}

/* A bucket inside; NULL in the state that has none of this name. */
static int go_in(struct diff *d, const struct pair *p, bool in_before, bool in_after, struct err *e)
{
    bool in[2] = {in_before, in_after};
    struct bolt_bucket inner[2];
    const struct bolt_item *named = in_before ? &p->item[BEFORE] : &p->item[AFTER];
    if (d->depth == BOLT_DIFF_NESTED_MAX)
        return err_set(e, ERR_DAMAGED, d->o->name, "more than %u buckets, one in another",
                       BOLT_DIFF_NESTED_MAX);
    for (int i = 0; i < 2; i++) {
        int rc =
            in[i] ? bolt_bucket_open(d->reader[i], p->bucket[i], &p->item[i], &inner[i], e) : 0;
        if (rc)
            return rc;
    }
    struct buf *name = &d->path[d->depth];
    buf_reset(name);
    buf_put(name, named->key, named->key_bytes);
    if (name->bad)
        return err_nomem(e);
    d->depth++;
    int rc = diff_buckets(d, in_before ? &inner[BEFORE] : NULL, in_after ? &inner[AFTER] : NULL, e);
    d->depth--;
    return rc;
}

/* The items in hand, of which those with the lower key (or both) are looked at. */
static int take(struct diff *d, struct pair *p, int order, struct bucket_diff *count, struct err *e)
{
    bool before = order <= 0, after = order >= 0;
    bool before_bucket = before && p->item[BEFORE].is_bucket;
    bool after_bucket = after && p->item[AFTER].is_bucket;
    bool both_values = before && after && !before_bucket && !after_bucket, differ = false;
    int rc = both_values ? values_differ(d, p, &differ, e) : 0;
    count->changed += differ;
    count->removed += before && !before_bucket && !both_values;
    count->added += after && !after_bucket && !both_values;
    if (rc == 0 && (before_bucket || after_bucket))
        rc = go_in(d, p, before_bucket, after_bucket, e);
    return rc;
}

static int merge(struct diff *d, struct pair *p, struct bucket_diff *count, struct err *e)
{
    int rc = next(d, p, BEFORE, e);
    if (rc == 0)
        rc = next(d, p, AFTER, e);
    while (rc == 0 && (p->item[BEFORE].key || p->item[AFTER].key)) {
        int order = compare_keys(p);
        rc = take(d, p, order, count, e);
        if (rc == 0 && order <= 0)
            rc = next(d, p, BEFORE, e);
        if (rc == 0 && order >= 0)
            rc = next(d, p, AFTER, e);
    }
    return rc;
}

static int diff_buckets(struct diff *d, const struct bolt_bucket *before,
                        const struct bolt_bucket *after, struct err *e)
{
    CLEANUP(close_pair) struct pair p = {.bucket = {before, after}};
    struct bucket_diff count = {.change = !before  ? BUCKET_ADDED
                                          : !after ? BUCKET_REMOVED
                                                   : BUCKET_BOTH};
    int rc = 0;
    for (int i = 0; rc == 0 && i < 2; i++)
        if (p.bucket[i])
            rc = bolt_cursor_open(d->reader[i], p.bucket[i], &p.cursor[i], e);
    if (rc == 0)
        rc = merge(d, &p, &count, e);
    if (rc || d->depth == 0) /* the root holds nothing but buckets */
        return rc;
    count.path = d->path;
    count.depth = d->depth;
    bool told = count.change != BUCKET_BOTH || count.added || count.removed || count.changed;
    return told ? d->o->bucket(d->o->arg, &count, e) : 0;
}

static uint64_t items_in(struct bolt_reader *r, const struct bolt_meta *meta)
{
    return 1000 + bolt_image_pages(r, meta) * (meta->page_size / SMALLEST_ITEM);
}

int bolt_diff(const struct bolt_diff *o, struct err *e)
{
    struct diff *d = mem_alloc(1, sizeof *d);
    struct bolt_bucket before = bolt_root(o->before, o->before_meta);
    struct bolt_bucket after = bolt_root(o->after, o->after_meta);
    int rc = d ? 0 : err_nomem(e);
    if (rc)
        return rc;
    d->o = o;
    d->reader[BEFORE] = o->before;
    d->reader[AFTER] = o->after;
    d->items_max = items_in(o->before, o->before_meta) + items_in(o->after, o->after_meta);
    for (int i = 0; rc == 0 && i < 2; i++)
        if (!(d->piece[i] = malloc(PIECE_BYTES)))
            rc = err_nomem(e);
    if (rc == 0)
        rc = diff_buckets(d, &before, &after, e);
    for (size_t i = 0; i < BOLT_DIFF_NESTED_MAX; i++)
        buf_free(&d->path[i]);
    free(d->piece[BEFORE]);
    free(d->piece[AFTER]);
    free(d);
    return rc;
}
