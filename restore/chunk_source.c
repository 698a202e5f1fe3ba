#include "restore/chunk_source.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
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
#define GATHER_FROM 1024u /* runs; content in fewer is read in its order */
#define GATHER_BYTES (3u << 20)
#define MMAP_THRESHOLD (128 << 10)
#define GATHER_CHUNKS 8192u
#define GIVE_BYTES 65536u
#define LOST UINT32_MAX

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

/* A chunk's bytes, in the cache. *ret NULL: nobody has it whole, and that is allowed. */
static int get_chunk(struct chunk_source *c, size_t part, const uint8_t *record,
                     const uint8_t **ret, struct err *e)
{
    const uint8_t *raw = NULL;
    uint8_t id[CHUNK_ID_SIZE];
    uint32_t index = le32_get(record), offset = le32_get(record + 4), n = le32_get(record + 8);
    int rc = find_block(c, part, index, e);
    if (rc)
        return rc;
    rc = block_cache_get(c->blocks, &c->o.snapshot->parts[part], &c->place.block, &raw, e);
    if (rc && !(c->o.salvage && (damage_is(rc) || rc == ERR_NOT_FOUND)))
        return rc;
    *ret = rc ? NULL : raw + offset;
    if (!c->o.check_ids || rc)
        return 0;
    digest_chunk_id(c->o.pool->repository->seed, *ret, n, id);
    return memcmp(id, record + 12, sizeof id) == 0
               ? 0
               : err_set(e, ERR_DAMAGED, c->o.pool->source,
                         "a chunk in part %04" PRIu32 "-%08" PRIu64 " is not what its name says",
                         c->o.snapshot->parts[part].epoch, c->o.snapshot->parts[part].sequence);
}

/* Of n chunks of a run from number `done` on, what the part's list says. */
static int read_records(struct chunk_source *c, size_t part, const struct part_run *run,
                        uint32_t done, uint32_t n, uint8_t *ret, struct err *e)
{
    const struct part_list *l = &c->lists[part];
    uint64_t at = l->chunks_at + (uint64_t)(run->first_chunk + done) * CHUNK_RECORD;
    errno = 0;
    if (io_pread_full(c->fd, ret, n * CHUNK_RECORD, at) != (ssize_t)(n * CHUNK_RECORD))
        return cannot_use("read", e);
    if (c->o.cancel && atomic_load(c->o.cancel))
        return err_set(e, ERR_CANCELLED, c->o.pool->source, "stopped");
    return 0;
}

static int find_run(struct chunk_source *c, const struct part_run *run, size_t *ret_part,
                    struct err *e)
{
    int rc = find_part(c, run, ret_part, e);
    if (rc == 0)
        rc = read_list(c, *ret_part, e);
    if (rc)
        return rc;
    const struct part_list *l = &c->lists[*ret_part];
    if (run->first_chunk <= l->chunk_count && run->count <= l->chunk_count - run->first_chunk)
        return 0;
    return err_set(e, ERR_DAMAGED, c->o.pool->source,
                   "part %04" PRIu32 "-%08" PRIu64 " of source %s holds no chunk %" PRIu32,
                   run->epoch, run->sequence, c->o.pool->source, run->first_chunk + run->count - 1);
}

struct giving {
    struct chunk_source *c;
    chunk_have_fn *have;
    chunk_source_fn *take;
    void *arg;
};

static int give_chunk(const struct giving *g, size_t part, const uint8_t *record, struct err *e)
{
    const uint8_t *raw = NULL;
    uint32_t n = le32_get(record + 8);
    int rc = g->have ? g->have(g->arg, record + 12, n, &raw, e) : 0;
    if (rc == 0)
        rc = get_chunk(g->c, part, record, &raw, e);
    return rc && rc != 1 ? rc : g->take(g->arg, raw, n, e);
}

static int give_run(const struct giving *g, const struct part_run *run, struct err *e)
{
    uint8_t records[CHUNKS_AT_ONCE * CHUNK_RECORD];
    size_t part = 0;
    int rc = find_run(g->c, run, &part, e);
    for (uint32_t done = 0, n; rc == 0 && done < run->count; done += n) {
        n = MIN(run->count - done, CHUNKS_AT_ONCE);
        rc = read_records(g->c, part, run, done, n, records, e);
        for (uint32_t i = 0; rc == 0 && i < n; i++)
            rc = give_chunk(g, part, records + i * CHUNK_RECORD, e);
    }
    return rc;
}

/* ---- gathering ---- */

/* A chunk that is wanted next, and its place among them. */
struct wanted {
    uint32_t part, at;
    uint8_t record[CHUNK_RECORD];
};

struct gathering {
    struct giving g;
    uint8_t *window;
    size_t filled, count;
    struct wanted *wanted;
    bool lost; /* of some there are no bytes: their record's block is LOST */
};

static int by_block(const void *x, const void *y)
{
    const struct wanted *a = x, *b = y;
    uint32_t m = le32_get(a->record), n = le32_get(b->record);
    if (a->part != b->part)
        return a->part < b->part ? -1 : 1;
    if (m != n)
        return m < n ? -1 : 1;
    return a->at < b->at ? -1 : 1;
}

static int by_place(const void *x, const void *y)
{
    const struct wanted *a = x, *b = y;
    return a->at < b->at ? -1 : 1;
}

static int give_window(const struct gathering *w, struct err *e)
{
    int rc = 0;
    if (!w->lost) {
        for (size_t at = 0, n; rc == 0 && at < w->filled; at += n) {
            n = MIN(w->filled - at, (size_t)GIVE_BYTES);
            rc = w->g.take(w->g.arg, w->window + at, n, e);
        }
        return rc;
    }
    qsort(w->wanted, w->count, sizeof *w->wanted, by_place);
    for (size_t i = 0; rc == 0 && i < w->count; i++) {
        const struct wanted *one = &w->wanted[i];
        bool lost = le32_get(one->record) == LOST;
        rc = w->g.take(w->g.arg, lost ? NULL : w->window + one->at, le32_get(one->record + 8), e);
    }
    return rc;
}

/* Fetches what is wanted, block by block, and gives it in its order. */
static int gather(struct gathering *w, struct err *e)
{
    int rc = 0;
    qsort(w->wanted, w->count, sizeof *w->wanted, by_block);
    w->lost = false;
    for (size_t i = 0; rc == 0 && i < w->count; i++) {
        struct wanted *one = &w->wanted[i];
        const uint8_t *raw = NULL;
        rc = get_chunk(w->g.c, one->part, one->record, &raw, e);
        if (rc == 0 && raw) {
            memcpy(w->window + one->at, raw, le32_get(one->record + 8));
        } else if (rc == 0) {
            le32_put(one->record, LOST);
            w->lost = true;
        }
    }
    if (rc == 0)
        rc = give_window(w, e);
    w->filled = w->count = 0;
    return rc;
}

static int want(struct gathering *w, size_t part, const uint8_t *record, struct err *e)
{
    uint32_t n = le32_get(record + 8);
    int rc = 0;
    if (w->count == GATHER_CHUNKS || w->filled + n > GATHER_BYTES)
        rc = gather(w, e);
    struct wanted *one = &w->wanted[w->count++];
    *one = (struct wanted){.part = (uint32_t)part, .at = (uint32_t)w->filled};
    memcpy(one->record, record, CHUNK_RECORD);
    w->filled += n;
    return rc;
}

static int gather_run(struct gathering *w, const struct part_run *run, struct err *e)
{
    uint8_t records[CHUNKS_AT_ONCE * CHUNK_RECORD];
    size_t part = 0;
    int rc = find_run(w->g.c, run, &part, e);
    for (uint32_t done = 0, n; rc == 0 && done < run->count; done += n) {
        n = MIN(run->count - done, CHUNKS_AT_ONCE);
        rc = read_records(w->g.c, part, run, done, n, records, e);
        for (uint32_t i = 0; rc == 0 && i < n; i++)
            rc = want(w, part, records + i * CHUNK_RECORD, e);
    }
    return rc;
}

static int gather_all(const struct giving *g, const struct run_list *runs, struct err *e)
{
    /* Blocks come and go: what they leave is to go back at once, which glibc leaves off as soon as
     * a block of that size was freed (3 MiB of 24). */
    mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD);
    mallopt(M_TRIM_THRESHOLD, MMAP_THRESHOLD);
    OWN_MEM uint8_t *window = malloc(GATHER_BYTES);
    OWN_MEM struct wanted *wanted = mem_alloc(GATHER_CHUNKS, sizeof *wanted);
    struct gathering w = {.g = *g, .window = window, .wanted = wanted};
    struct run_reader r;
    struct part_run run;
    int rc = window && wanted ? 0 : err_nomem(e);
    run_read(&r, runs);
    while (rc == 0 && (rc = run_next(&r, &run, e)) == 1)
        rc = gather_run(&w, &run, e);
    return rc ? rc : gather(&w, e);
}

int chunk_source_read(struct chunk_source *c, const struct run_list *runs, chunk_have_fn *have,
                      chunk_source_fn *take, void *arg, struct err *e)
{
    const struct giving g = {c, have, take, arg};
    struct run_reader r;
    struct part_run run;
    int rc = 0;
    if (!have && runs->count > GATHER_FROM)
        return gather_all(&g, runs, e);
    run_read(&r, runs);
    while (rc == 0 && (rc = run_next(&r, &run, e)) == 1)
        rc = give_run(&g, &run, e);
    return rc;
}

uint64_t chunk_source_fetched(const struct chunk_source *c)
{
    return c && c->blocks ? block_cache_counts(c->blocks).stored_bytes : 0;
}
