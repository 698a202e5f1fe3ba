#include "restore/chunk_source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "restore/block_cache.h"
#include "restore/damage.h"
#include "snapshot/spool.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define KEPT_BYTES (2u << 20) /* of blocks */
/* In the temporary file: block, offset in it, length, id. */
#define CHUNK_RECORD (12u + CHUNK_ID_SIZE)
#define BLOCK_RECORD (24u + DIGEST_SIZE)
#define CHUNKS_AT_ONCE 256u

/* Where the lists of one part lie in the temporary file. */
struct part_list {
    bool read;
    uint64_t chunks_at, blocks_at;
    uint32_t chunk_count, block_count;
};

struct block_place {
    uint8_t record[BLOCK_RECORD];
    struct part_block block; /* its digest points into the record */
};

struct chunk_source {
    struct chunk_source_options o;
    int fd;
    uint64_t end; /* of the temporary file */
    struct part_list *lists;
    struct block_cache *blocks;
    struct block_place place; /* of the block used last */
    size_t place_part;
    uint32_t place_index;
};

int chunk_source_new(const struct chunk_source_options *o, struct chunk_source **ret, struct err *e)
{
    struct chunk_source *c = mem_alloc(1, sizeof *c);
    if (!c)
        return err_nomem(e);
    c->o = *o;
    c->fd = -1;
    c->place_part = SIZE_MAX;
    c->lists = mem_alloc(o->snapshot->part_count, sizeof *c->lists);
    int rc = c->lists ? block_cache_new(o->pool, KEPT_BYTES, 1, &c->blocks, e) : err_nomem(e);
    if (rc == 0)
        rc = spool_file(o->dir, &c->fd, e);
    if (rc) {
        chunk_source_free(c);
        return rc;
    }
    *ret = c;
    return 0;
}

void chunk_source_free(struct chunk_source *c)
{
    if (!c)
        return;
    block_cache_free(c->blocks);
    mem_closep(&c->fd);
    free(c->lists);
    free(c);
}

static int cannot_use(const char *doing, struct err *e)
{
    return err_sys(e, errno ? errno : EIO, NULL, "cannot %s the temporary list of chunks", doing);
}

/* ---- the lists ---- */

static void encode_block(const struct part_block *b, struct buf *to)
{
    buf_put_u64(to, b->offset);
    buf_put_u32(to, b->stored_bytes);
    buf_put_u32(to, b->raw_bytes);
    buf_put_u32(to, b->method);
    buf_put_u32(to, 0);
    buf_put(to, b->digest, DIGEST_SIZE);
}

static void encode_chunks(const struct part_block *b, uint32_t index, struct buf *to)
{
    struct block_walk w = block_walk_begin(b);
    while (block_walk_next(&w)) {
        buf_put_u32(to, index);
        buf_put_u32(to, w.raw_offset);
        buf_put_u32(to, w.raw_bytes);
        buf_put(to, w.chunk_id, CHUNK_ID_SIZE);
    }
}

static int append(struct chunk_source *c, struct buf *b, struct err *e)
{
    if (b->bad)
        return err_nomem(e);
    if (io_pwrite_all(c->fd, b->data, b->len, c->end) < 0)
        return cannot_use("write", e);
    c->end += b->len;
    buf_reset(b);
    return 0;
}

/* Brings the lists of a part into the temporary file. */
static int read_list(struct chunk_source *c, size_t part, struct err *e)
{
    OWN_BUF struct buf b = BUF_INIT;
    const struct part_file *f;
    struct part_list *l = &c->lists[part];
    if (l->read)
        return 0;
    int rc = pool_part(c->o.pool, &c->o.snapshot->parts[part], &f, e);
    if (rc)
        return rc;
    *l = (struct part_list){.chunks_at = c->end};
    for (size_t i = 0; rc == 0 && i < f->meta->block_count; i++) {
        if (f->meta->blocks[i].kind != BLOCK_CHUNKS)
            continue;
        encode_chunks(&f->meta->blocks[i], l->block_count++, &b);
        l->chunk_count += f->meta->blocks[i].count;
        if (b.len >= 65536)
            rc = append(c, &b, e);
    }
    if (rc == 0)
        rc = append(c, &b, e);
    l->blocks_at = c->end;
    for (size_t i = 0; rc == 0 && i < f->meta->block_count; i++) {
        if (f->meta->blocks[i].kind == BLOCK_CHUNKS)
            encode_block(&f->meta->blocks[i], &b);
        if (b.len >= 65536)
            rc = append(c, &b, e);
    }
    if (rc == 0)
        rc = append(c, &b, e);
    l->read = rc == 0;
    return rc;
}

/* ---- blocks ---- */

static int find_block(struct chunk_source *c, size_t part, uint32_t index, struct err *e)
{
    uint64_t at = c->lists[part].blocks_at + (uint64_t)index * BLOCK_RECORD;
    struct block_place *p = &c->place;
    if (c->place_part == part && c->place_index == index)
        return 0;
    c->place_part = SIZE_MAX;
    errno = 0;
    if (io_pread_full(c->fd, p->record, BLOCK_RECORD, at) != BLOCK_RECORD)
        return cannot_use("read", e);
    p->block = (struct part_block){.kind = BLOCK_CHUNKS,
                                   .offset = le64_get(p->record),
                                   .stored_bytes = le32_get(p->record + 8),
                                   .raw_bytes = le32_get(p->record + 12),
                                   .method = (uint8_t)le32_get(p->record + 16),
                                   .digest = p->record + 24};
    c->place_part = part;
    c->place_index = index;
    return 0;
}

/* ---- content ---- */

static int find_part(const struct chunk_source *c, const struct part_run *run, size_t *ret,
                     struct err *e)
{
    for (size_t i = c->o.snapshot->part_count; i > 0; i--) {
        const struct part_ref *ref = &c->o.snapshot->parts[i - 1];
        if (ref->epoch == run->epoch && ref->sequence == run->sequence) {
            *ret = i - 1;
            return 0;
        }
    }
    return err_set(e, ERR_DAMAGED, c->o.pool->source,
                   "content lies in part %04" PRIu32 "-%08" PRIu64
                   ", which the snapshot does not list",
                   run->epoch, run->sequence);
}

struct giving {
    struct chunk_source *c;
    chunk_have_fn *have;
    chunk_source_fn *take;
    void *arg;
};

static int give_chunk(const struct giving *g, size_t part, const uint8_t *record, struct err *e)
{
    struct chunk_source *c = g->c;
    const uint8_t *raw = NULL;
    uint32_t index = le32_get(record), offset = le32_get(record + 4), n = le32_get(record + 8);
    int rc = g->have ? g->have(g->arg, record + 12, n, &raw, e) : 0;
    if (rc == 1)
        return g->take(g->arg, raw, n, e);
    if (rc == 0)
        rc = find_block(c, part, index, e);
    if (rc)
        return rc;
    rc = block_cache_get(c->blocks, &c->o.snapshot->parts[part], &c->place.block, &raw, e);
    if (rc && !(c->o.salvage && (damage_is(rc) || rc == ERR_NOT_FOUND)))
        return rc;
    return g->take(g->arg, rc ? NULL : raw + offset, n, e);
}

static int give_run(const struct giving *g, const struct part_run *run, struct err *e)
{
    struct chunk_source *c = g->c;
    uint8_t records[CHUNKS_AT_ONCE * CHUNK_RECORD];
    size_t part = 0;
    int rc = find_part(c, run, &part, e);
    if (rc == 0)
        rc = read_list(c, part, e);
    if (rc)
        return rc;
    const struct part_list *l = &c->lists[part];
    if (run->first_chunk > l->chunk_count || run->count > l->chunk_count - run->first_chunk)
        return err_set(e, ERR_DAMAGED, c->o.pool->source,
                       "part %04" PRIu32 "-%08" PRIu64 " of source %s holds no chunk %" PRIu32,
                       run->epoch, run->sequence, c->o.pool->source,
                       run->first_chunk + run->count - 1);
    for (uint32_t done = 0, n; rc == 0 && done < run->count; done += n) {
        n = MIN(run->count - done, CHUNKS_AT_ONCE);
        uint64_t at = l->chunks_at + (uint64_t)(run->first_chunk + done) * CHUNK_RECORD;
        errno = 0;
        if (io_pread_full(c->fd, records, n * CHUNK_RECORD, at) != (ssize_t)(n * CHUNK_RECORD))
            return cannot_use("read", e);
        for (uint32_t i = 0; rc == 0 && i < n; i++)
            rc = give_chunk(g, part, records + i * CHUNK_RECORD, e);
        if (rc == 0 && c->o.cancel && atomic_load(c->o.cancel))
            rc = err_set(e, ERR_CANCELLED, c->o.pool->source, "stopped");
    }
    return rc;
}

int chunk_source_read(struct chunk_source *c, const struct part_run *runs, size_t count,
                      chunk_have_fn *have, chunk_source_fn *take, void *arg, struct err *e)
{
    const struct giving g = {c, have, take, arg};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = give_run(&g, &runs[i], e);
    return rc;
}

uint64_t chunk_source_fetched(const struct chunk_source *c)
{
    return c && c->blocks ? block_cache_counts(c->blocks).stored_bytes : 0;
}
