#include <stdlib.h>
#include <string.h>

#include "snapshot/bolt_tree.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

struct bolt_cursor {
    struct bolt_bucket bucket;
    struct bolt_steps steps;
};

struct bolt_bucket bolt_root(const struct bolt_reader *r, const struct bolt_meta *meta)
{
    return (struct bolt_bucket){.root_page = meta->root_page,
                                .sequence = meta->root_sequence,
                                .limit_pages = bolt_image_pages(r, meta)};
}

int bolt_value_read(struct bolt_reader *r, const struct bolt_item *item, uint32_t from, void *p,
                    size_t n, struct err *e)
{
    if (from > item->value_bytes || n > item->value_bytes - from)
        return err_set(e, ERR_USAGE, r->input.name, "the value has only %u bytes",
                       item->value_bytes);
    return bolt_read(r, item->value_at + from, p, n, e);
}

int bolt_bucket_open(struct bolt_reader *r, const struct bolt_bucket *in,
                     const struct bolt_item *item, struct bolt_bucket *ret, struct err *e)
{
    uint8_t header[BOLT_BUCKET_HEADER];
    if (!item->is_bucket)
        return err_set(e, ERR_USAGE, r->input.name, "a key that is not a bucket");
    if (item->value_bytes < BOLT_BUCKET_HEADER)
        return bolt_damaged(r, in->root_page, e, "has a bucket that is cut short");
    int rc = bolt_read(r, item->value_at, header, sizeof header, e);
    if (rc)
        return rc;
    struct bolt_bucket b = {.root_page = le64_get(header),
                            .sequence = le64_get(header + 8),
                            .limit_pages = in->limit_pages};
    if (in->root_page == 0)
        return bolt_damaged(r, 0, e, "a bucket inside an inline bucket");
    if (b.root_page == 0) {
        b.inline_at = item->value_at + BOLT_BUCKET_HEADER;
        b.inline_bytes = item->value_bytes - BOLT_BUCKET_HEADER;
    }
    *ret = b;
    return 0;
}

int bolt_cursor_open(struct bolt_reader *r, const struct bolt_bucket *b, struct bolt_cursor **ret,
                     struct err *e)
{
    OWN_BOLT_CURSOR struct bolt_cursor *c = mem_alloc(1, sizeof *c);
    if (!c)
        return err_nomem(e);
    c->bucket = *b;
    bolt_steps_init(&c->steps, r, b->limit_pages);
    int rc = bolt_steps_push_bucket(&c->steps, b, e);
    if (rc == 0)
        *ret = TAKE_PTR(c);
    return rc;
}

void bolt_cursor_close(struct bolt_cursor *c)
{
    if (!c)
        return;
    bolt_steps_free(&c->steps);
    free(c);
}

void bolt_cursor_closep(struct bolt_cursor **c)
{
    bolt_cursor_close(*c);
    *c = NULL;
}

int bolt_cursor_seek(struct bolt_cursor *c, const void *key, size_t key_bytes, struct err *e)
{
    c->steps.depth = 0;
    int rc = bolt_steps_push_bucket(&c->steps, &c->bucket, e);
    return rc ? rc : bolt_steps_seek(&c->steps, key, key_bytes, e);
}

int bolt_cursor_next(struct bolt_cursor *c, struct bolt_item *ret, struct err *e)
{
    struct bolt_element x;
    bool end;
    int rc = bolt_steps_next(&c->steps, &x, &end, e);
    if (rc)
        return rc;
    if (end)
        *ret = (struct bolt_item){0};
    else
        *ret = (struct bolt_item){.key = c->steps.last,
                                  .key_bytes = x.key_bytes,
                                  .value_bytes = x.value_bytes,
                                  .value_at = x.value_at,
                                  .is_bucket = x.is_bucket};
    return 0;
}

int bolt_find(struct bolt_reader *r, const struct bolt_bucket *b, const void *key, size_t key_bytes,
              struct bolt_item *ret, struct err *e)
{
    OWN_BOLT_CURSOR struct bolt_cursor *c = NULL;
    struct bolt_item item;
    int rc = bolt_cursor_open(r, b, &c, e);
    if (rc == 0)
        rc = bolt_cursor_seek(c, key, key_bytes, e);
    if (rc == 0)
        rc = bolt_cursor_next(c, &item, e);
    if (rc)
        return rc;
    if (!item.key || item.key_bytes != key_bytes || memcmp(item.key, key, key_bytes) != 0)
        return err_set(e, ERR_NOT_FOUND, r->input.name, "no such key");
    item.key = key;
    *ret = item;
    return 0;
}
