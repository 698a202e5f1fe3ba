#include "tests/unit/snapshot/bolt_helpers.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "restore/bolt_compact.h"
#include "snapshot/bolt_copy.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define DEPTH_MAX 12    /* buckets: in a damaged file one can contain itself */
#define ITEMS_MAX 20000 /* looked at in a database that the walk has refused */

static int memory_read(void *arg, uint64_t offset, void *p, size_t n, struct err *e)
{
    struct bolt_memory *m = arg;
    (void)e;
    if (offset > m->size || n > m->size - offset)
        abort(); /* the library knows the size */
    memcpy(p, m->data + offset, n);
    m->bytes_read += n;
    return 0;
}

struct bolt_input bolt_memory_input(struct bolt_memory *m)
{
    return (struct bolt_input){
        .read = memory_read, .arg = m, .size_bytes = m->size, .name = "memory"};
}

static void put_hex(struct buf *out, const void *p, size_t n)
{
    OWN_MEM char *text = malloc(2 * n + 1);
    if (text) {
        hex_encode(p, n, text);
        buf_put_str(out, text);
    }
}

static int put_value(struct bolt_reader *r, const struct bolt_item *item, struct buf *out,
                     struct err *e)
{
    OWN_MEM uint8_t *value = malloc(item->value_bytes + 1u);
    uint8_t sum[crypto_hash_sha256_BYTES];
    if (!value)
        return err_nomem(e);
    int rc = bolt_value_read(r, item, 0, value, item->value_bytes, e);
    if (rc || !out)
        return rc;
    crypto_hash_sha256(sum, value, item->value_bytes);
    buf_printf(out, " %u ", item->value_bytes);
    put_hex(out, sum, sizeof sum);
    return 0;
}

struct describe {
    struct bolt_reader *reader;
    struct buf *out;  /* NULL: only read */
    size_t items_max; /* 0: no limit */
};

static int describe_bucket(struct describe *d, const struct bolt_bucket *b, const char *path,
                           int depth, struct err *e)
{
    OWN_BOLT_CURSOR struct bolt_cursor *c = NULL;
    struct bolt_item item, found;
    struct bolt_bucket inner;
    int rc = bolt_cursor_open(d->reader, b, &c, e);
    while (rc == 0 && (rc = bolt_cursor_next(c, &item, e)) == 0 && item.key) {
        OWN_BUF struct buf name = BUF_INIT;
        if (d->items_max && --d->items_max == 0)
            return err_set(e, ERR_LIMIT, NULL, "too many items");
        if (d->out) {
            buf_printf(&name, "%s/", path);
            put_hex(&name, item.key, item.key_bytes);
        }
        rc = bolt_find(d->reader, b, item.key, item.key_bytes, &found, e);
        if (rc == 0 && (found.value_at != item.value_at || found.is_bucket != item.is_bucket))
            rc = err_set(e, ERR_INTERNAL, path, "a key was found elsewhere");
        if (rc)
            return rc;
        if (d->out)
            buf_put(d->out, name.data, name.len);
        if (item.is_bucket) {
            rc = bolt_bucket_open(d->reader, b, &item, &inner, e);
            if (rc == 0 && d->out)
                buf_printf(d->out, " bucket %llu\n", (unsigned long long)inner.sequence);
            if (rc == 0 && depth < DEPTH_MAX)
                rc = describe_bucket(d, &inner, d->out ? buf_cstr(&name) : "", depth + 1, e);
        } else {
            rc = put_value(d->reader, &item, d->out, e);
            if (d->out)
                buf_put_str(d->out, "\n");
        }
    }
    return rc;
}

static int top_stats(struct bolt_reader *r, const struct bolt_bucket *root, struct bolt_stats *ret,
                     struct err *e)
{
    OWN_BOLT_CURSOR struct bolt_cursor *c = NULL;
    struct bolt_item item;
    struct bolt_bucket b;
    struct bolt_stats s;
    int rc = bolt_cursor_open(r, root, &c, e);
    while (rc == 0 && (rc = bolt_cursor_next(c, &item, e)) == 0 && item.key) {
        rc = bolt_bucket_open(r, root, &item, &b, e);
        if (rc == 0)
            rc = bolt_bucket_stats(r, &b, &s, e);
        if (rc == 0)
            bolt_stats_add(ret, &s);
    }
    return rc;
}

static void put_stats(struct buf *out, const struct bolt_stats *s)
{
    const uint64_t numbers[] = {s->branch_pages, s->branch_overflow_pages,
                                s->leaf_pages,   s->leaf_overflow_pages,
                                s->keys,         s->depth,
                                s->branch_alloc, s->branch_inuse,
                                s->leaf_alloc,   s->leaf_inuse,
                                s->buckets,      s->inline_buckets,
                                s->inline_inuse};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        buf_printf(out, "%s%llu", i ? " " : "", (unsigned long long)numbers[i]);
    buf_put_str(out, "\n");
}

int bolt_describe(struct bolt_reader *r, struct bolt_walked *ret_walked, struct buf *ret,
                  struct err *e)
{
    struct bolt_meta meta;
    struct bolt_stats stats = {0};
    int rc = bolt_read_meta(r, &meta, e);
    if (rc == 0)
        rc = bolt_walk(r, &meta, NULL, NULL, ret_walked, e);
    if (rc)
        return rc;
    struct bolt_bucket root = bolt_root(r, &meta);
    rc = top_stats(r, &root, &stats, e);
    if (rc == 0 && ret)
        put_stats(ret, &stats);
    struct describe d = {.reader = r, .out = ret};
    if (rc == 0)
        rc = describe_bucket(&d, &root, "", 0, e);
    if (rc)
        bolt_walked_free(ret_walked);
    return rc;
}

/* All items as text. */
static void describe_all(struct bolt_reader *r, const struct bolt_meta *meta, struct buf *ret)
{
    struct err e = ERR_INIT;
    struct bolt_bucket root = bolt_root(r, meta);
    struct describe d = {.reader = r, .out = ret};
    if (describe_bucket(&d, &root, "", 0, &e) || ret->bad)
        abort();
}

/* What was written must be whole, hold the same, and have no page to spare. */
static void check_compacted(struct bolt_reader *r, const struct bolt_meta *meta, int fd,
                            uint64_t bytes)
{
    OWN_BOLT struct bolt_reader *again = NULL;
    OWN_BUF struct buf before = BUF_INIT, after = BUF_INIT;
    struct err e = ERR_INIT;
    struct bolt_local file = {.fd = fd, .path = "compacted"};
    struct bolt_input input;
    struct bolt_meta new_meta;
    struct bolt_walked walked;
    if (bolt_local_input(&file, &input, &e) || input.size_bytes != bytes ||
        bolt_open(&input, &again, &e) || bolt_read_meta(again, &new_meta, &e) ||
        bolt_walk(again, &new_meta, NULL, NULL, &walked, &e))
        abort();
    if (walked.free_pages || walked.lost_pages ||
        walked.reachable_pages * new_meta.page_size != bytes ||
        new_meta.root_sequence != meta->root_sequence)
        abort();
    bolt_walked_free(&walked);
    describe_all(r, meta, &before);
    describe_all(again, &new_meta, &after);
    if (before.len != after.len || (before.len && memcmp(before.data, after.data, after.len) != 0))
        abort();
}

static void exercise_compact(struct bolt_reader *r, const struct bolt_meta *meta, int verdict)
{
    struct err e = ERR_INIT;
    uint64_t bytes = 0;
    OWN_FD int fd = memfd_create("compacted", MFD_CLOEXEC);
    struct bolt_compact c = {.from = r, .meta = meta, .fd = fd, .name = "compacted"};
    if (fd < 0)
        abort();
    int rc = bolt_compact(&c, &bytes, &e);
    if (verdict == 0 && rc)
        abort();
    if (verdict == 0)
        check_compacted(r, meta, fd, bytes);
}

int bolt_exercise(struct bolt_memory *m)
{
    OWN_BOLT struct bolt_reader *r = NULL;
    struct bolt_input input = bolt_memory_input(m);
    struct err e = ERR_INIT;
    struct bolt_meta meta;
    struct bolt_walked walked;
    struct bolt_stats stats = {0};
    uint64_t run;
    bolt_sniff(m->data, m->size);
    int rc = bolt_open(&input, &r, &e);
    if (rc == 0)
        rc = bolt_read_meta(r, &meta, &e);
    if (rc)
        return rc;
    int verdict = bolt_walk(r, &meta, NULL, NULL, &walked, &e);
    if (verdict == 0) {
        uint64_t pages = 0;
        for (uint64_t p = 0; (p = bolt_map_next(&walked.reachable, p, 7, &run)), run > 0; p += run)
            pages += run;
        if (pages != walked.reachable_pages)
            abort();
        bolt_walked_free(&walked);
    }
    struct bolt_bucket root = bolt_root(r, &meta);
    struct describe d = {.reader = r, .items_max = verdict ? ITEMS_MAX : 0};
    rc = describe_bucket(&d, &root, "", 0, &e);
    /* What the walk has accepted can be read to the end. */
    if (verdict == 0 && rc != 0)
        abort();
    rc = top_stats(r, &root, &stats, &e);
    exercise_compact(r, &meta, verdict);
    return verdict;
}

void bolt_seal_meta(uint8_t *data, uint32_t page_size, unsigned slot)
{
    uint8_t *meta = data + (size_t)slot * page_size + 16;
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < 56; i++)
        h = (h ^ meta[i]) * UINT64_C(0x100000001b3);
    le64_put(meta + 56, h);
}
