#include "restore/block_cache.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "restore/damage.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

#define BLOCKS_MAX 1024u
#define CHAINS 512u /* of blocks with the same hash */
#define NOBODY UINT32_MAX
#define FILES_OPEN 32 /* on each worker */
#define AHEAD_BYTES (1u << 20)

struct kept_block {
    struct part_ref part;
    uint64_t offset, used; /* used: the higher the later */
    uint32_t raw_bytes, next;
    uint8_t *raw; /* NULL: nobody has it whole, see `lost` */
    struct err *lost;
};

struct open_file {
    struct store_file *file;
    struct part_ref part;
    uint64_t used;
};

/* What was read last at some place: blocks there are used in their order. */
struct stream {
    struct part_ref part;
    size_t store, len;
    uint64_t at, next, used; /* next: where the block used last ends */
    uint8_t *data;           /* AHEAD_BYTES */
};

struct block_cache {
    struct pool *pool;
    struct block_reader *reader;
    size_t limit_bytes, stream_count;
    struct block_cache_counts counts;
    uint64_t clock;
    uint32_t count, chains[CHAINS];
    struct kept_block kept[BLOCKS_MAX];
    struct open_file files[POOL_STORES_MAX][FILES_OPEN];
    struct stream streams[BLOCK_CACHE_STREAMS_MAX];
};

int block_cache_new(struct pool *pool, size_t limit_bytes, size_t streams, struct block_cache **ret,
                    struct err *e)
{
    struct block_cache *c = mem_alloc(1, sizeof *c);
    if (!c)
        return err_nomem(e);
    c->pool = pool;
    c->limit_bytes = limit_bytes;
    c->stream_count = MIN(MAX(streams, (size_t)1), (size_t)BLOCK_CACHE_STREAMS_MAX);
    for (size_t i = 0; i < CHAINS; i++)
        c->chains[i] = NOBODY;
    int rc = block_reader_new(&c->reader, e);
    if (rc)
        block_cache_free(c);
    else
        *ret = c;
    return rc;
}

void block_cache_free(struct block_cache *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < POOL_STORES_MAX; i++)
        for (size_t k = 0; k < FILES_OPEN; k++)
            store_close_file(c->files[i][k].file, NULL);
    for (size_t i = 0; i < c->stream_count; i++)
        free(c->streams[i].data);
    for (uint32_t i = 0; i < c->count; i++) {
        free(c->kept[i].raw);
        free(c->kept[i].lost);
    }
    block_reader_free(c->reader);
    free(c);
}

struct block_cache_counts block_cache_counts(const struct block_cache *c)
{
    return c->counts;
}

/* ---- files ---- */

static int file_at(struct block_cache *c, size_t store, const struct part_ref *part,
                   struct store_file **ret, struct err *e)
{
    struct open_file *oldest = &c->files[store][0];
    for (size_t i = 0; i < FILES_OPEN; i++) {
        struct open_file *f = &c->files[store][i];
        if (f->file && part_same(&f->part, part)) {
            f->used = ++c->clock;
            *ret = f->file;
            return 0;
        }
        if (!f->file || (oldest->file && f->used < oldest->used))
            oldest = f;
    }
    store_close_file(TAKE_PTR(oldest->file), NULL);
    int rc = pool_file(c->pool, store, part, &oldest->file, e);
    if (rc)
        return rc;
    oldest->part = *part;
    oldest->used = ++c->clock;
    *ret = oldest->file;
    return 0;
}

/* ---- reading ahead ---- */

static bool is_read(const struct stream *s, const struct part_block *b)
{
    return b->offset >= s->at && b->offset + b->stored_bytes <= s->at + s->len;
}

/* The stream that holds the block, or that it follows on (*ret_ahead: how much to read then), or
 * the one that was used least lately. */
static struct stream *stream_for(struct block_cache *c, size_t store, const struct part_ref *part,
                                 const struct part_block *b, size_t *ret_ahead)
{
    struct stream *oldest = &c->streams[0];
    *ret_ahead = b->stored_bytes;
    for (size_t i = 0; i < c->stream_count; i++) {
        struct stream *s = &c->streams[i];
        if (s->len && s->store == store && part_same(&s->part, part) &&
            (is_read(s, b) || s->next == b->offset)) {
            *ret_ahead = MAX(*ret_ahead, MIN(2 * s->len, AHEAD_BYTES));
            return s;
        }
        if (s->used < oldest->used)
            oldest = s;
    }
    return oldest;
}

static int ends_early(const struct block_cache *c, size_t store, const struct part_ref *part,
                      struct err *e)
{
    const char *worker = c->pool->at[store].store->name;
    return err_set(e, ERR_DAMAGED, worker,
                   "part %04" PRIu32 "-%08" PRIu64 " of source %s ends too early on %s",
                   part->epoch, part->sequence, c->pool->source, worker);
}

/* The stored bytes of a block, out of an earlier reading or by a new one. */
static int stored_at(struct block_cache *c, size_t store, const struct part_ref *part,
                     const struct part_block *b, const uint8_t **ret, struct err *e)
{
    struct store_file *f = NULL;
    size_t want, got = 0;
    struct stream *s = stream_for(c, store, part, b, &want);
    s->used = ++c->clock;
    if (!s->data && !(s->data = malloc(AHEAD_BYTES)))
        return err_nomem(e);
    if (!s->len || s->store != store || !part_same(&s->part, part) || !is_read(s, b)) {
        s->len = 0;
        int rc = file_at(c, store, part, &f, e);
        if (rc == 0)
            rc = store_read_at(f, b->offset, s->data, want, &got, e);
        if (rc)
            return rc;
        if (got < b->stored_bytes)
            return ends_early(c, store, part, e);
        c->counts.stored_bytes += got;
        s->part = *part;
        s->store = store;
        s->at = b->offset;
        s->len = got;
    }
    s->next = b->offset + b->stored_bytes;
    *ret = s->data + (b->offset - s->at);
    return 0;
}

static int unpack_from(struct block_cache *c, size_t store, const struct part_ref *part,
                       const struct part_block *b, const uint8_t **ret, struct err *e)
{
    char name[PART_NAME_SIZE], path[SOURCE_NAME_SIZE + 1 + PART_NAME_SIZE];
    const uint8_t *stored = NULL;
    int rc = stored_at(c, store, part, b, &stored, e);
    if (rc)
        return rc;
    part_name_format(part, PART_SNAP, name);
    *strrchr(name, '.') = '\0';
    snprintf(path, sizeof path, "%s/%s", c->pool->source, name);
    return block_unpack(c->reader, b, path, stored, ret, e);
}

/* From whoever has it whole. */
static int fetch(struct block_cache *c, const struct part_ref *part, const struct part_block *b,
                 const uint8_t **ret, struct err *e)
{
    int rc = err_set(e, ERR_CONNECT, c->pool->source, "no worker answers any more");
    for (size_t i = 0; rc && i < c->pool->store_count; i++) {
        if (c->pool->gone[i])
            continue;
        rc = unpack_from(c, i, part, b, ret, e);
        if (rc == ERR_CANCELLED || rc == ERR_NOMEM)
            return rc;
        if (rc)
            pool_failed(c->pool, i, part, e);
    }
    c->counts.blocks += rc == 0;
    return rc;
}

/* ---- what is kept ---- */

static uint32_t *chain_of(struct block_cache *c, const struct part_ref *part, uint64_t offset)
{
    uint64_t h = (le64_get(part->id) ^ offset) * UINT64_C(0x9E3779B97F4A7C15);
    return &c->chains[h >> 55 & (CHAINS - 1)];
}

static struct kept_block *find(struct block_cache *c, const struct part_ref *part, uint64_t offset)
{
    for (uint32_t i = *chain_of(c, part, offset); i != NOBODY; i = c->kept[i].next)
        if (c->kept[i].offset == offset && part_same(&c->kept[i].part, part))
            return &c->kept[i];
    return NULL;
}

static void unlink_kept(struct block_cache *c, uint32_t index)
{
    uint32_t *at = chain_of(c, &c->kept[index].part, c->kept[index].offset);
    while (*at != index)
        at = &c->kept[*at].next;
    *at = c->kept[index].next;
}

/* Forgets the block that was used least lately; the last in the table takes its place. */
static void forget_oldest(struct block_cache *c)
{
    uint32_t oldest = 0, last = --c->count;
    for (uint32_t i = 1; i <= last; i++)
        if (c->kept[i].used < c->kept[oldest].used)
            oldest = i;
    unlink_kept(c, oldest);
    c->counts.held_bytes -= c->kept[oldest].raw_bytes;
    free(c->kept[oldest].raw);
    free(c->kept[oldest].lost);
    if (oldest != last) {
        unlink_kept(c, last);
        c->kept[oldest] = c->kept[last];
        uint32_t *chain = chain_of(c, &c->kept[oldest].part, c->kept[oldest].offset);
        c->kept[oldest].next = *chain;
        *chain = oldest;
    }
}

static struct kept_block *add(struct block_cache *c, const struct part_ref *part, uint64_t offset,
                              uint32_t raw_bytes)
{
    while (c->count == BLOCKS_MAX ||
           (c->count && c->counts.held_bytes + raw_bytes > c->limit_bytes))
        forget_oldest(c);
    uint32_t *chain = chain_of(c, part, offset), index = c->count++;
    c->kept[index] = (struct kept_block){
        .part = *part, .offset = offset, .raw_bytes = raw_bytes, .next = *chain};
    *chain = index;
    c->counts.held_bytes += raw_bytes;
    return &c->kept[index];
}

static int keep(struct block_cache *c, const struct part_ref *part, const struct part_block *b,
                const uint8_t *raw, const struct err *lost, struct kept_block **ret, struct err *e)
{
    OWN_MEM uint8_t *data = lost ? NULL : malloc(b->raw_bytes);
    OWN_MEM struct err *why = lost ? malloc(sizeof *why) : NULL;
    if (!data && !why)
        return err_nomem(e);
    struct kept_block *k = add(c, part, b->offset, lost ? 0 : b->raw_bytes);
    if (data)
        memcpy(data, raw, b->raw_bytes);
    if (why)
        *why = *lost;
    k->raw = TAKE_PTR(data);
    k->lost = TAKE_PTR(why);
    *ret = k;
    return 0;
}

int block_cache_get(struct block_cache *c, const struct part_ref *part,
                    const struct part_block *block, const uint8_t **ret_raw, struct err *e)
{
    struct kept_block *k = find(c, part, block->offset);
    struct err why = ERR_INIT;
    if (!k) {
        const uint8_t *raw = NULL;
        int rc = fetch(c, part, block, &raw, &why);
        bool lost = damage_is(rc) || rc == ERR_NOT_FOUND;
        if (rc == 0 || lost)
            rc = keep(c, part, block, raw, lost ? &why : NULL, &k, &why);
        if (rc) {
            if (e)
                *e = why;
            return rc;
        }
    }
    k->used = ++c->clock;
    if (k->lost) {
        if (e)
            *e = *k->lost;
        return k->lost->code;
    }
    *ret_raw = k->raw;
    return 0;
}
