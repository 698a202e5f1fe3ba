#include "restore/bolt_compact.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define HEADER 16u  /* of a page; also of a bucket in its value */
#define ELEMENT 16u /* of a branch as of a leaf */
#define BRANCH_FLAG 1u
#define LEAF_FLAG 2u
#define FREELIST_FLAG 0x10u
#define BUCKET_FLAG 1u
#define LEVELS_MAX 64u
#define COPY_BYTES 65536u
#define LOOK_EVERY 1024u /* items */

/* A page being filled. `at` of an element is where its key lies in `data`. */
struct page {
    uint32_t count;
    struct buf elements; /* as in the file, but for pos */
    struct buf data;     /* keys, and values of leaves, in order */
    struct buf key;      /* the first one's */
};

/* One bucket being written: leaves at level 0, branches above. */
struct bucket {
    struct page levels[LEVELS_MAX];
    unsigned top;
    bool has_pages;   /* a leaf was written: it cannot be inline */
    bool has_buckets; /* nor with buckets in it */
};

struct compact {
    const struct bolt_compact *o;
    uint32_t page_size;
    uint64_t next_page, limit_pages, items;
    unsigned nested;
    uint8_t *copy; /* COPY_BYTES */
};

static void page_free(struct page *p)
{
    buf_free(&p->elements);
    buf_free(&p->data);
    buf_free(&p->key);
    *p = (struct page){0};
}

static void bucket_free(struct bucket **b)
{
    for (unsigned i = 0; *b && i < LEVELS_MAX; i++)
        page_free(&(*b)->levels[i]);
    free(*b);
}

/* ---- pages ---- */

static int write_at(struct compact *c, const void *p, size_t n, uint64_t at, struct err *e)
{
    if (io_pwrite_all(c->o->fd, p, n, at) < 0)
        return err_sys(e, errno, c->o->name, "cannot write %s", c->o->name);
    return 0;
}

/* Takes as many pages as `bytes` need. */
static int take_pages(struct compact *c, uint64_t bytes, uint64_t *ret_page, uint32_t *ret_overflow,
                      struct err *e)
{
    uint64_t pages = (bytes + c->page_size - 1) / c->page_size;
    if (pages > c->limit_pages - c->next_page)
        return err_set(e, ERR_DAMAGED, c->o->name,
                       "the bolt database is damaged: it refers to its pages more than once");
    *ret_page = c->next_page;
    *ret_overflow = (uint32_t)(pages - 1);
    c->next_page += pages;
    return 0;
}

static void put_header(struct buf *b, uint64_t page, uint16_t flags, uint32_t count,
                       uint32_t overflow)
{
    buf_put_u64(b, page);
    buf_put_u16(b, flags);
    buf_put_u16(b, (uint16_t)count);
    buf_put_u32(b, overflow);
}

static size_t page_bytes(const struct page *p)
{
    return HEADER + p->elements.len + p->data.len;
}

/* Header, elements with their distances to their keys, and data. */
static void encode(const struct page *p, uint64_t page, bool leaf, uint32_t overflow,
                   struct buf *ret)
{
    size_t data = 0;
    put_header(ret, page, leaf ? LEAF_FLAG : BRANCH_FLAG, p->count, overflow);
    size_t elements = ret->len;
    buf_put(ret, p->elements.data, p->elements.len);
    buf_put(ret, p->data.data, p->data.len);
    for (uint32_t i = 0; !ret->bad && i < p->count; i++) {
        uint8_t *element = ret->data + elements + (size_t)i * ELEMENT;
        uint32_t pos = (uint32_t)((size_t)(p->count - i) * ELEMENT + data);
        le32_put(element + (leaf ? 4 : 0), pos);
        data += le32_get(element + (leaf ? 8 : 4)) + (leaf ? le32_get(element + 12) : 0);
    }
}

static int add_branch(struct compact *c, struct bucket *b, unsigned level, const struct buf *key,
                      uint64_t child, struct err *e);

/* Writes what the level holds as a page, and tells the level above. */
static int flush(struct compact *c, struct bucket *b, unsigned level, struct err *e)
{
    struct page *p = &b->levels[level];
    OWN_BUF struct buf bytes = BUF_INIT;
    uint64_t page = 0;
    uint32_t overflow = 0;
    int rc = take_pages(c, page_bytes(p), &page, &overflow, e);
    if (rc)
        return rc;
    encode(p, page, level == 0, overflow, &bytes);
    if (bytes.bad || p->key.bad || p->elements.bad || p->data.bad)
        return err_nomem(e);
    rc = write_at(c, bytes.data, bytes.len, page * c->page_size, e);
    if (rc == 0)
        rc = add_branch(c, b, level + 1, &p->key, page, e);
    b->has_pages = true;
    p->count = 0;
    buf_reset(&p->elements);
    buf_reset(&p->data);
    buf_reset(&p->key);
    return rc;
}

static bool is_full(const struct compact *c, const struct page *p, uint64_t more)
{
    return page_bytes(p) + ELEMENT + more > c->page_size / 10 * 9;
}

/* A branch has two children at least, whatever the size of their keys: else it would never end. */
static int add_branch(struct compact *c, struct bucket *b, unsigned level, const struct buf *key,
                      uint64_t child, struct err *e)
{
    if (level >= LEVELS_MAX)
        return err_set(e, ERR_LIMIT, c->o->name, "a bucket has more than %u levels", LEVELS_MAX);
    struct page *p = &b->levels[level];
    int rc = p->count >= 2 && is_full(c, p, key->len) ? flush(c, b, level, e) : 0;
    if (rc)
        return rc;
    if (p->count++ == 0)
        buf_put(&p->key, key->data, key->len);
    buf_put_u32(&p->elements, 0);
    buf_put_u32(&p->elements, (uint32_t)key->len);
    buf_put_u64(&p->elements, child);
    buf_put(&p->data, key->data, key->len);
    b->top = MAX(b->top, level);
    return 0;
}

/* ---- leaves ---- */

static int add_leaf(struct compact *c, struct bucket *b, const struct bolt_item *item,
                    uint32_t value_bytes, struct err *e)
{
    struct page *p = &b->levels[0];
    if (p->count && is_full(c, p, (uint64_t)item->key_bytes + value_bytes)) {
        int rc = flush(c, b, 0, e);
        if (rc)
            return rc;
    }
    if (p->count++ == 0)
        buf_put(&p->key, item->key, item->key_bytes);
    buf_put_u32(&p->elements, item->is_bucket ? BUCKET_FLAG : 0);
    buf_put_u32(&p->elements, 0);
    buf_put_u32(&p->elements, item->key_bytes);
    buf_put_u32(&p->elements, value_bytes);
    buf_put(&p->data, item->key, item->key_bytes);
    return 0;
}

/* A value too large for a page gets pages of its own and is not held in memory. */
static int write_large(struct compact *c, struct bucket *b, const struct bolt_item *item,
                       struct err *e)
{
    OWN_BUF struct buf head = BUF_INIT, key = BUF_INIT;
    uint64_t page = 0, bytes = (uint64_t)HEADER + ELEMENT + item->key_bytes + item->value_bytes;
    uint32_t overflow = 0, n;
    int rc = b->levels[0].count ? flush(c, b, 0, e) : 0;
    if (rc == 0)
        rc = take_pages(c, bytes, &page, &overflow, e);
    if (rc)
        return rc;
    put_header(&head, page, LEAF_FLAG, 1, overflow);
    buf_put_u32(&head, 0);
    buf_put_u32(&head, ELEMENT);
    buf_put_u32(&head, item->key_bytes);
    buf_put_u32(&head, item->value_bytes);
    buf_put(&head, item->key, item->key_bytes);
    buf_put(&key, item->key, item->key_bytes);
    if (head.bad || key.bad)
        return err_nomem(e);
    uint64_t at = page * c->page_size;
    rc = write_at(c, head.data, head.len, at, e);
    at += head.len;
    for (uint32_t from = 0; rc == 0 && from < item->value_bytes; from += n) {
        n = MIN(item->value_bytes - from, COPY_BYTES);
        rc = bolt_value_read(c->o->from, item, from, c->copy, n, e);
        if (rc == 0)
            rc = write_at(c, c->copy, n, at + from, e);
        if (rc == 0 && c->o->look)
            rc = c->o->look(c->o->arg, e);
    }
    b->has_pages = true;
    return rc ? rc : add_branch(c, b, 1, &key, page, e);
}

static int add_value(struct compact *c, struct bucket *b, const struct bolt_item *item,
                     struct err *e)
{
    if (HEADER + ELEMENT + (uint64_t)item->key_bytes + item->value_bytes > c->page_size)
        return write_large(c, b, item, e);
    int rc = add_leaf(c, b, item, item->value_bytes, e);
    uint8_t *to = rc ? NULL : buf_extend(&b->levels[0].data, item->value_bytes);
    if (rc == 0 && !to)
        return err_nomem(e);
    return rc ? rc : bolt_value_read(c->o->from, item, 0, to, item->value_bytes, e);
}

/* ---- buckets ---- */

static int write_bucket(struct compact *c, const struct bolt_bucket *from, bool may_be_inline,
                        struct buf *ret, struct err *e);

/* A bucket in the bucket: written first, its value says where. */
static int add_bucket(struct compact *c, struct bucket *b, const struct bolt_bucket *in,
                      const struct bolt_item *item, struct err *e)
{
    OWN_BUF struct buf value = BUF_INIT;
    struct bolt_bucket inner;
    if (++c->nested > BOLT_COMPACT_NESTED_MAX)
        return err_set(e, ERR_DAMAGED, c->o->name, "more than %u buckets, one in another",
                       BOLT_COMPACT_NESTED_MAX);
    int rc = bolt_bucket_open(c->o->from, in, item, &inner, e);
    if (rc == 0)
        rc = write_bucket(c, &inner, true, &value, e);
    c->nested--;
    if (rc == 0)
        rc = add_leaf(c, b, item, (uint32_t)value.len, e);
    buf_put(&b->levels[0].data, value.data, value.len);
    b->has_buckets = true;
    return rc;
}

static int add_items(struct compact *c, struct bucket *b, const struct bolt_bucket *from,
                     struct err *e)
{
    OWN_BOLT_CURSOR struct bolt_cursor *cursor = NULL;
    struct bolt_item item;
    int rc = bolt_cursor_open(c->o->from, from, &cursor, e);
    while (rc == 0) {
        rc = bolt_cursor_next(cursor, &item, e);
        if (rc || !item.key)
            break;
        rc = item.is_bucket ? add_bucket(c, b, from, &item, e) : add_value(c, b, &item, e);
        if (rc == 0 && ++c->items % LOOK_EVERY == 0 && c->o->look)
            rc = c->o->look(c->o->arg, e);
    }
    return rc;
}

/* Writes what is left of each level. The root is the first one that stands alone. */
static int finish(struct compact *c, struct bucket *b, uint64_t *ret_root, struct err *e)
{
    int rc = b->levels[0].count || !b->has_pages ? flush(c, b, 0, e) : 0;
    unsigned level = 1;
    for (; rc == 0 && (level < b->top || b->levels[level].count > 1); level++)
        if (b->levels[level].count)
            rc = flush(c, b, level, e);
    if (rc == 0)
        *ret_root = le64_get(b->levels[level].elements.data + 8);
    return rc;
}

/* Small buckets lie in their value, as bbolt does it. */
static bool fits_inline(const struct compact *c, const struct bucket *b)
{
    return !b->has_pages && !b->has_buckets && page_bytes(&b->levels[0]) <= c->page_size / 4;
}

/* Puts the bucket's value into *ret. */
static int write_bucket(struct compact *c, const struct bolt_bucket *from, bool may_be_inline,
                        struct buf *ret, struct err *e)
{
    CLEANUP(bucket_free) struct bucket *b = mem_alloc(1, sizeof *b);
    uint64_t root = 0;
    if (!b)
        return err_nomem(e);
    int rc = add_items(c, b, from, e);
    bool is_inline = may_be_inline && fits_inline(c, b);
    if (rc == 0 && !is_inline)
        rc = finish(c, b, &root, e);
    buf_put_u64(ret, root);
    buf_put_u64(ret, from->sequence);
    if (rc == 0 && is_inline)
        encode(&b->levels[0], 0, true, 0, ret);
    if (rc == 0 && (ret->bad || b->levels[0].elements.bad || b->levels[0].data.bad))
        rc = err_nomem(e);
    return rc;
}

static int write_freelist(struct compact *c, uint64_t *ret_page, struct err *e)
{
    OWN_BUF struct buf b = BUF_INIT;
    uint32_t overflow = 0;
    int rc = take_pages(c, HEADER, ret_page, &overflow, e);
    put_header(&b, *ret_page, FREELIST_FLAG, 0, 0);
    if (rc == 0 && b.bad)
        rc = err_nomem(e);
    return rc ? rc : write_at(c, b.data, b.len, *ret_page * c->page_size, e);
}

static int write_all(struct compact *c, uint64_t *ret_bytes, struct err *e)
{
    OWN_BUF struct buf value = BUF_INIT;
    struct bolt_meta meta = *c->o->meta;
    struct bolt_bucket root = bolt_root(c->o->from, c->o->meta);
    OWN_MEM uint8_t *page = malloc(c->page_size);
    if (!page)
        return err_nomem(e);
    int rc = write_bucket(c, &root, false, &value, e);
    if (rc == 0)
        rc = write_freelist(c, &meta.freelist_page, e);
    if (rc)
        return rc;
    meta.root_page = le64_get(value.data);
    meta.high_water = c->next_page;
    for (unsigned slot = 0; rc == 0 && slot < 2; slot++) {
        meta.txid = slot; /* as in a new database of bbolt's: the higher one counts */
        bolt_make_meta(&meta);
        bolt_encode_meta(&meta, slot, page);
        rc = write_at(c, page, c->page_size, (uint64_t)slot * c->page_size, e);
    }
    /* The last page is as long as the others. */
    if (rc == 0 && io_ftruncate(c->o->fd, c->next_page * c->page_size) < 0)
        rc = err_sys(e, errno, c->o->name, "cannot write %s", c->o->name);
    *ret_bytes = c->next_page * c->page_size;
    return rc;
}

int bolt_compact(const struct bolt_compact *o, uint64_t *ret_bytes, struct err *e)
{
    struct compact c = {.o = o, .page_size = o->meta->page_size, .next_page = 2};
    /* Pages that are not full cost at most twice, and keys repeated in branches little more. */
    c.limit_pages = 16 + 4 * bolt_image_pages(o->from, o->meta);
    c.copy = malloc(COPY_BYTES);
    if (!c.copy)
        return err_nomem(e);
    int rc = write_all(&c, ret_bytes, e);
    free(c.copy);
    return rc;
}
