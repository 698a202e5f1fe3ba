#include "snapshot/dump_archive.h"

#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define VERSION(major, minor) ((major)*256 + (minor))
#define OLDEST VERSION(1, 12)
#define NEWEST VERSION(1, 16)
#define FORMAT_CUSTOM 1
#define ITEMS_MAX 16777216
#define INT_MAX_BYTES 8

enum archive_block { DATA = 1, LARGE_OBJECTS = 3 };

enum state { AT_HEAD, AT_ITEM, AT_BLOCK, AT_BLOCK_ID, AT_OBJECT, AT_LENGTH, AT_BYTES };

struct dump_archive {
    struct dump_events events;
    enum state state;
    int version;
    unsigned int_size, offset_size;
    uint32_t items_left;
    struct buf pending; /* of the head or an item; then of a number */
    struct buf texts;   /* of the item in hand */
    uint8_t block;
    int32_t id;
    uint64_t left; /* of the frame */
    uint64_t rows;
    bool rows_over;  /* the line "\." was there */
    size_t line_len; /* of the line in hand, but at most 3 */
    uint8_t line[2];
};

struct dump_archive *dump_archive_new(const struct dump_events *events)
{
    struct dump_archive *a = mem_alloc(1, sizeof *a);
    if (a)
        a->events = *events;
    return a;
}

void dump_archive_free(struct dump_archive *a)
{
    if (!a)
        return;
    buf_free(&a->pending);
    buf_free(&a->texts);
    free(a);
}

static int damaged(const char *what, struct err *e)
{
    return err_set(e, ERR_DAMAGED, NULL, "the dump is no whole archive of pg_dump: %s", what);
}

/* ---- numbers and texts: a sign, then the bytes of the number, lowest first ---- */

static int64_t number_at(const uint8_t *p, unsigned size)
{
    uint64_t v = 0;
    for (unsigned i = size; i > 0; i--)
        v = v * 256 + p[i];
    int64_t n = (int64_t)MIN(v, (uint64_t)INT64_MAX); /* more is no length, offset or count */
    return p[0] ? -n : n;
}

static int64_t take_number(const struct dump_archive *a, struct cursor *c)
{
    const uint8_t *p = cursor_take(c, 1 + a->int_size);
    return p ? number_at(p, a->int_size) : 0;
}

static const uint8_t *take_text(const struct dump_archive *a, struct cursor *c, size_t *ret_len)
{
    int64_t n = take_number(a, c);
    *ret_len = n > 0 ? (size_t)n : 0;
    if (n < 0 || c->bad)
        return NULL;
    if ((uint64_t)n > DUMP_HEAD_MAX) {
        c->bad = true;
        return NULL;
    }
    return cursor_take(c, (size_t)n);
}

static void skip_texts(const struct dump_archive *a, struct cursor *c, unsigned count)
{
    size_t n;
    while (count-- > 0 && !c->bad)
        take_text(a, c, &n);
}

/* Copies it behind the others; the answer is where. */
static size_t keep_text(struct dump_archive *a, struct cursor *c)
{
    size_t n, at = a->texts.len;
    const uint8_t *p = take_text(a, c, &n);
    if (p)
        buf_put(&a->texts, p, n);
    buf_put_u8(&a->texts, 0);
    return at;
}

/* ---- the head ---- */

static int check_head(struct dump_archive *a, struct cursor *c, struct err *e)
{
    const uint8_t *p = cursor_take(c, 11);
    if (!p)
        return 0;
    if (memcmp(p, "PGDMP", 5) != 0)
        return damaged("it does not begin as one", e);
    a->version = VERSION(p[5], p[6]);
    a->int_size = p[8];
    a->offset_size = p[9];
    if (a->version < OLDEST || a->version > NEWEST)
        return err_set(e, ERR_VERSION, NULL,
                       "the dump is an archive of version %d.%d, which this syncd does not know",
                       p[5], p[6]);
    if (a->int_size < 4 || a->int_size > INT_MAX_BYTES || a->offset_size > 16 ||
        p[10] != FORMAT_CUSTOM)
        return damaged("its head is not that of a custom archive", e);
    return 0;
}

/* *ret_used 0: more bytes are needed. */
static int take_head(struct dump_archive *a, size_t *ret_used, struct err *e)
{
    struct cursor c = cursor_of(a->pending.data, a->pending.len);
    int rc = check_head(a, &c, e);
    if (rc || c.bad)
        return rc;
    if (a->version >= VERSION(1, 15))
        cursor_take(&c, 1);
    else
        take_number(a, &c);
    for (int i = 0; i < 7; i++) /* when it was made */
        take_number(a, &c);
    skip_texts(a, &c, 3); /* the database, the server's version, pg_dump's */
    int64_t count = take_number(a, &c);
    if (c.bad)
        return 0;
    if (count < 0 || count > ITEMS_MAX)
        return damaged("the number of its items", e);
    a->items_left = (uint32_t)count;
    *ret_used = a->pending.len - cursor_left(&c);
    a->state = count ? AT_ITEM : AT_BLOCK;
    return a->events.head
               ? a->events.head(a->events.arg, a->pending.data, *ret_used, a->int_size, e)
               : 0;
}

/* ---- items ---- */

static void skip_dependencies(const struct dump_archive *a, struct cursor *c)
{
    size_t n;
    while (take_text(a, c, &n) && !c->bad)
        continue;
}

static int take_item(struct dump_archive *a, size_t *ret_used, struct err *e)
{
    struct cursor c = cursor_of(a->pending.data, a->pending.len);
    struct dump_item item = {.raw = a->pending.data};
    buf_reset(&a->texts);
    item.id = (int32_t)take_number(a, &c);
    item.has_data = take_number(a, &c) != 0;
    skip_texts(a, &c, 2); /* oids */
    size_t tag = keep_text(a, &c), kind = keep_text(a, &c);
    take_number(a, &c);   /* section */
    skip_texts(a, &c, 3); /* create, drop, copy */
    size_t schema = keep_text(a, &c);
    skip_texts(a, &c, a->version >= VERSION(1, 14) ? 2 : 1); /* tablespace, access method */
    if (a->version >= VERSION(1, 16))
        take_number(a, &c); /* kind of relation */
    size_t owner = keep_text(a, &c);
    skip_texts(a, &c, 1); /* with oids */
    skip_dependencies(a, &c);
    cursor_take(&c, 1 + a->offset_size);
    if (c.bad)
        return 0;
    if (a->texts.bad)
        return err_nomem(e);
    item.tag = (const char *)a->texts.data + tag;
    item.kind = (const char *)a->texts.data + kind;
    item.schema = (const char *)a->texts.data + schema;
    item.owner = (const char *)a->texts.data + owner;
    item.raw_len = *ret_used = a->pending.len - cursor_left(&c);
    if (--a->items_left == 0)
        a->state = AT_BLOCK;
    return a->events.item ? a->events.item(a->events.arg, &item, e) : 0;
}

/* Head and items are taken whole: bytes are gathered until one is there. */
static int feed_contents(struct dump_archive *a, const uint8_t *p, size_t n, struct err *e)
{
    buf_put(&a->pending, p, n);
    if (a->pending.bad)
        return err_nomem(e);
    size_t done = 0;
    struct buf all = a->pending;
    int rc = 0;
    while (rc == 0 && (a->state == AT_HEAD || a->state == AT_ITEM)) {
        size_t used = 0;
        a->pending = (struct buf){.data = all.data + done, .len = all.len - done};
        rc = a->state == AT_HEAD ? take_head(a, &used, e) : take_item(a, &used, e);
        if (used == 0)
            break;
        done += used;
    }
    a->pending = all;
    memmove(a->pending.data, a->pending.data + done, a->pending.len - done);
    a->pending.len -= done;
    if (rc == 0 && a->pending.len > DUMP_HEAD_MAX && a->state < AT_BLOCK)
        rc = err_set(e, ERR_LIMIT, NULL, "an item of the dump is longer than %u MiB",
                     DUMP_HEAD_MAX >> 20);
    return rc;
}

/* ---- data ---- */

static void begin_lines(struct dump_archive *a)
{
    a->rows = 0;
    a->line_len = 0;
    a->rows_over = a->block != DATA;
}

/* A row is a line; the line "\." ends them. */
static void count_lines(struct dump_archive *a, const uint8_t *p, size_t n)
{
    const uint8_t *end = p + n;
    while (!a->rows_over && p < end) {
        const uint8_t *newline = memchr(p, '\n', (size_t)(end - p));
        const uint8_t *stop = newline ? newline : end;
        for (const uint8_t *at = p; at < stop && a->line_len < 3; at++, a->line_len++)
            if (a->line_len < 2)
                a->line[a->line_len] = *at;
        if (!newline)
            return;
        a->rows_over = a->line_len == 2 && a->line[0] == '\\' && a->line[1] == '.';
        a->rows += !a->rows_over;
        a->line_len = 0;
        p = newline + 1;
    }
}

static int tell_data(struct dump_archive *a, const uint8_t *p, size_t n, struct err *e)
{
    return a->events.data ? a->events.data(a->events.arg, a->id, p, n, e) : 0;
}

static int tell_end(struct dump_archive *a, struct err *e)
{
    a->state = AT_BLOCK;
    return a->events.end ? a->events.end(a->events.arg, a->id, a->rows, e) : 0;
}

/* A number is whole in a->pending; for AT_BLOCK_ID the block's type is before it. */
static int take_data_number(struct dump_archive *a, struct err *e)
{
    size_t type = a->state == AT_BLOCK_ID ? 1 : 0;
    int64_t v = number_at(a->pending.data + type, a->int_size);
    int rc = 0;
    if (a->state == AT_BLOCK_ID) {
        a->id = (int32_t)v;
        begin_lines(a);
    }
    rc = tell_data(a, a->pending.data, a->pending.len, e);
    if (rc)
        return rc;
    if (a->state == AT_BLOCK_ID) {
        a->state = a->block == DATA ? AT_LENGTH : AT_OBJECT;
        return 0;
    }
    if (v < 0)
        return damaged("a length", e);
    bool objects = a->block == LARGE_OBJECTS;
    if (v == 0)
        return a->state == AT_LENGTH && objects ? (a->state = AT_OBJECT, 0) : tell_end(a, e);
    if (a->state == AT_OBJECT) {
        a->state = AT_LENGTH;
    } else {
        a->left = (uint64_t)v;
        a->state = AT_BYTES;
    }
    return 0;
}

static size_t bytes_of_number(const struct dump_archive *a)
{
    return a->state == AT_BLOCK ? 1 : a->state == AT_BLOCK_ID ? 2 + a->int_size : 1 + a->int_size;
}

/* The answer says how many bytes were used. */
static int feed_number(struct dump_archive *a, const uint8_t *p, size_t n, size_t *ret_used,
                       struct err *e)
{
    size_t need = bytes_of_number(a);
    *ret_used = MIN(n, need - a->pending.len);
    buf_put(&a->pending, p, *ret_used);
    if (a->pending.bad)
        return err_nomem(e);
    if (a->pending.len < need)
        return 0;
    if (a->state == AT_BLOCK) {
        a->block = a->pending.data[0];
        a->state = AT_BLOCK_ID;
        return a->block == DATA || a->block == LARGE_OBJECTS
                   ? 0
                   : damaged("a block of an unknown kind", e);
    }
    int rc = take_data_number(a, e);
    buf_reset(&a->pending);
    return rc;
}

static int feed_bytes(struct dump_archive *a, const uint8_t *p, size_t n, size_t *ret_used,
                      struct err *e)
{
    *ret_used = (size_t)MIN((uint64_t)n, a->left);
    a->left -= *ret_used;
    if (a->left == 0)
        a->state = AT_LENGTH;
    count_lines(a, p, *ret_used);
    return tell_data(a, p, *ret_used, e);
}

int dump_archive_feed(struct dump_archive *a, const void *bytes, size_t n, struct err *e)
{
    const uint8_t *p = bytes;
    OWN_BUF struct buf rest = BUF_INIT;
    int rc = 0;
    if (a->state < AT_BLOCK) {
        rc = feed_contents(a, p, n, e);
        if (rc || a->state < AT_BLOCK)
            return rc;
        /* What follows the items belongs to the data. */
        rest = a->pending;
        a->pending = BUF_INIT;
        p = rest.data;
        n = rest.len;
    }
    while (rc == 0 && n > 0) {
        size_t used = 0;
        rc = a->state == AT_BYTES ? feed_bytes(a, p, n, &used, e) : feed_number(a, p, n, &used, e);
        p += used;
        n -= used;
    }
    return rc;
}

int dump_archive_end(const struct dump_archive *a, struct err *e)
{
    return a->state == AT_BLOCK && a->pending.len == 0 ? 0 : damaged("it is cut", e);
}
