#include "restore/chunk_source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "restore/damage.h"
#include "snapshot/spool.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

#define BLOCKS_KEPT 8
#define FILES_OPEN 8           /* on each worker */
#define AHEAD_BYTES (1u << 20) /* read at once while blocks are used in their order */
#define CHUNK_RECORD 12u       /* in the temporary file: block, offset in it, length */
#define BLOCK_RECORD (24u + DIGEST_SIZE)
#define CHUNKS_AT_ONCE 256u

/* Where the lists of one part lie in the temporary file. */
struct part_list {
    bool read;
    uint64_t chunks_at, blocks_at;
    uint32_t chunk_count, block_count;
};

struct kept_block {
    bool filled, lost;
    size_t part;
    uint32_t index;
    uint64_t used; /* the higher the later */
    uint32_t raw_bytes;
    uint8_t *raw; /* PART_BLOCK_MAX */
};

struct open_file {
    struct store_file *file;
    size_t part;
    uint64_t used;
};

struct chunk_source {
    struct chunk_source_options o;
    int fd;
    uint64_t end; /* of the temporary file */
    struct part_list *lists;
    struct block_reader *reader;
    struct kept_block kept[BLOCKS_KEPT];
    struct open_file files[POOL_STORES_MAX][FILES_OPEN];
    uint64_t clock;
    /* The last reading, of stored bytes that may reach over several blocks. */
    uint8_t *ahead;
    size_t ahead_part, ahead_store, ahead_len;
    uint64_t ahead_at;
    size_t last_part; /* the block that was read last */
    uint32_t last_index;
};

int chunk_source_new(const struct chunk_source_options *o, struct chunk_source **ret, struct err *e)
{
    struct chunk_source *c = mem_alloc(1, sizeof *c);
    if (!c)
        return err_nomem(e);
    c->o = *o;
    c->fd = -1;
    c->last_index = UINT32_MAX;
    c->lists = mem_alloc(o->snapshot->part_count, sizeof *c->lists);
    c->ahead = malloc(AHEAD_BYTES);
    int rc = c->lists && c->ahead ? block_reader_new(&c->reader, e) : err_nomem(e);
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
    for (size_t i = 0; i < POOL_STORES_MAX; i++)
        for (size_t k = 0; k < FILES_OPEN; k++)
            store_close_file(c->files[i][k].file, NULL);
    for (size_t i = 0; i < BLOCKS_KEPT; i++)
        free(c->kept[i].raw);
    block_reader_free(c->reader);
    mem_closep(&c->fd);
    free(c->lists);
    free(c->ahead);
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

struct block_place {
    uint8_t record[BLOCK_RECORD];
    struct part_block block; /* its digest points into the record */
};

static int find_block(struct chunk_source *c, size_t part, uint32_t index, struct block_place *ret,
                      struct err *e)
{
    uint64_t at = c->lists[part].blocks_at + (uint64_t)index * BLOCK_RECORD;
    errno = 0;
    if (io_pread_full(c->fd, ret->record, BLOCK_RECORD, at) != BLOCK_RECORD)
        return cannot_use("read", e);
    ret->block = (struct part_block){.kind = BLOCK_CHUNKS,
                                     .offset = le64_get(ret->record),
                                     .stored_bytes = le32_get(ret->record + 8),
                                     .raw_bytes = le32_get(ret->record + 12),
                                     .method = (uint8_t)le32_get(ret->record + 16),
                                     .digest = ret->record + 24};
    return 0;
}

static int file_at(struct chunk_source *c, size_t store, size_t part, struct store_file **ret,
                   struct err *e)
{
    struct open_file *oldest = &c->files[store][0];
    for (size_t i = 0; i < FILES_OPEN; i++) {
        struct open_file *f = &c->files[store][i];
        if (f->file && f->part == part) {
            f->used = ++c->clock;
            *ret = f->file;
            return 0;
        }
        if (!f->file || (oldest->file && f->used < oldest->used))
            oldest = f;
    }
    store_close_file(TAKE_PTR(oldest->file), NULL);
    int rc = pool_file(c->o.pool, store, &c->o.snapshot->parts[part], &oldest->file, e);
    if (rc)
        return rc;
    oldest->part = part;
    oldest->used = ++c->clock;
    *ret = oldest->file;
    return 0;
}

/* The stored bytes of a block, out of the last reading or by a new one. */
static int stored_at(struct chunk_source *c, size_t store, size_t part, uint32_t index,
                     const struct part_block *b, const uint8_t **ret, struct err *e)
{
    struct store_file *f;
    bool in_order = c->last_part == part && c->last_index + 1 == index;
    if (c->ahead_len && c->ahead_part == part && c->ahead_store == store &&
        b->offset >= c->ahead_at && b->offset + b->stored_bytes <= c->ahead_at + c->ahead_len) {
        *ret = c->ahead + (b->offset - c->ahead_at);
        return 0;
    }
    c->ahead_len = 0;
    int rc = file_at(c, store, part, &f, e);
    size_t want = in_order ? AHEAD_BYTES : b->stored_bytes, got = 0;
    if (rc == 0)
        rc = store_read_at(f, b->offset, c->ahead, want, &got, e);
    if (rc)
        return rc;
    if (got < b->stored_bytes)
        return err_set(e, ERR_DAMAGED, c->o.pool->at[store].store->name,
                       "part %04" PRIu32 "-%08" PRIu64 " of source %s ends too early on %s",
                       c->o.snapshot->parts[part].epoch, c->o.snapshot->parts[part].sequence,
                       c->o.pool->source, c->o.pool->at[store].store->name);
    c->ahead_part = part;
    c->ahead_store = store;
    c->ahead_at = b->offset;
    c->ahead_len = got;
    *ret = c->ahead;
    return 0;
}

static int unpack_from(struct chunk_source *c, size_t store, size_t part, uint32_t index,
                       const struct part_block *b, const uint8_t **ret, struct err *e)
{
    char name[PART_NAME_SIZE], path[SOURCE_NAME_SIZE + 1 + PART_NAME_SIZE];
    const uint8_t *stored = NULL;
    int rc = stored_at(c, store, part, index, b, &stored, e);
    if (rc)
        return rc;
    part_name_format(&c->o.snapshot->parts[part], PART_SNAP, name);
    *strrchr(name, '.') = '\0';
    snprintf(path, sizeof path, "%s/%s", c->o.pool->source, name);
    return block_unpack(c->reader, b, path, stored, ret, e);
}

/* From whoever has it whole. */
static int fetch_block(struct chunk_source *c, size_t part, uint32_t index, struct kept_block *to,
                       struct err *e)
{
    struct block_place at;
    const uint8_t *raw = NULL;
    int rc = find_block(c, part, index, &at, e);
    if (rc)
        return rc;
    rc = ERR_NOT_FOUND;
    for (size_t i = 0; rc && i < c->o.pool->store_count; i++) {
        if (c->o.pool->gone[i] && i + 1 < c->o.pool->store_count)
            continue;
        rc = unpack_from(c, i, part, index, &at.block, &raw, e);
        if (rc)
            pool_failed(c->o.pool, i, &c->o.snapshot->parts[part], e);
    }
    to->lost = rc != 0;
    to->raw_bytes = at.block.raw_bytes;
    if (rc && !(c->o.salvage && (damage_is(rc) || rc == ERR_NOT_FOUND)))
        return rc;
    if (!to->lost)
        memcpy(to->raw, raw, at.block.raw_bytes);
    c->last_part = part;
    c->last_index = index;
    return 0;
}

static int block_of(struct chunk_source *c, size_t part, uint32_t index,
                    const struct kept_block **ret, struct err *e)
{
    struct kept_block *oldest = &c->kept[0];
    for (size_t i = 0; i < BLOCKS_KEPT; i++) {
        struct kept_block *k = &c->kept[i];
        if (k->filled && k->part == part && k->index == index) {
            k->used = ++c->clock;
            *ret = k;
            return 0;
        }
        if (k->used < oldest->used)
            oldest = k;
    }
    if (!oldest->raw && !(oldest->raw = malloc(PART_BLOCK_MAX)))
        return err_nomem(e);
    oldest->filled = false;
    int rc = fetch_block(c, part, index, oldest, e);
    if (rc)
        return rc;
    oldest->filled = true;
    oldest->part = part;
    oldest->index = index;
    oldest->used = ++c->clock;
    *ret = oldest;
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

static int give_chunk(struct chunk_source *c, size_t part, const uint8_t *record,
                      chunk_source_fn *take, void *arg, struct err *e)
{
    const struct kept_block *b = NULL;
    uint32_t index = le32_get(record), offset = le32_get(record + 4), n = le32_get(record + 8);
    int rc = block_of(c, part, index, &b, e);
    if (rc || !b)
        return rc;
    return take(arg, b->lost ? NULL : b->raw + offset, n, e);
}

static int give_run(struct chunk_source *c, const struct part_run *run, chunk_source_fn *take,
                    void *arg, struct err *e)
{
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
            rc = give_chunk(c, part, records + i * CHUNK_RECORD, take, arg, e);
        if (rc == 0 && c->o.cancel && atomic_load(c->o.cancel))
            rc = err_set(e, ERR_CANCELLED, c->o.pool->source, "stopped");
    }
    return rc;
}

int chunk_source_read(struct chunk_source *c, const struct part_run *runs, size_t count,
                      chunk_source_fn *take, void *arg, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = give_run(c, &runs[i], take, arg, e);
    return rc;
}
