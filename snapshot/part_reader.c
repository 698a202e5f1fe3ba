#include "snapshot/part_reader.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <zstd.h>

#include "snapshot/columns.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

/* One read of this many bytes at the end gets trailer and metadata of nearly every increment. */
#define TAIL_GUESS 16384u

static const char trailer_magic[8] = "syncdend";

void part_close(struct part_file *f)
{
    if (!f)
        return;
    store_close_file(f->file, NULL);
    part_meta_free(f->meta);
    free(f);
}

static void part_closep(struct part_file **f)
{
    part_close(*f);
}

static int read_exactly(struct part_file *f, uint64_t offset, void *p, size_t n, struct err *e)
{
    size_t got;
    int rc = store_read_at(f->file, offset, p, n, &got, e);
    if (rc)
        return rc;
    if (got < n)
        return err_set(e, ERR_DAMAGED, f->path,
                       "%s on %s is damaged: it ends at byte %" PRIu64 ", before byte %" PRIu64,
                       f->path, f->store->name, offset + got, offset + n);
    return 0;
}

/* Reads trailer and metadata into *raw (the metadata only) and checks them against the id. */
static int read_tail(struct part_file *f, struct buf *raw, struct err *e)
{
    uint64_t size = f->ref.size_bytes;
    if (size < 2 * PART_HEADER_SIZE + PART_TRAILER_SIZE)
        return err_set(e, ERR_DAMAGED, f->path, "%s on %s is damaged: only %" PRIu64 " bytes long",
                       f->path, f->store->name, size);
    size_t guess = (size_t)MIN(size, (uint64_t)TAIL_GUESS);
    uint8_t *tail = buf_extend(raw, guess);
    if (!tail)
        return err_nomem(e);
    int rc = read_exactly(f, size - guess, tail, guess, e);
    if (rc)
        return rc;
    const uint8_t *trailer = tail + guess - PART_TRAILER_SIZE;
    uint64_t len = le64_get(trailer);
    uint8_t id[DIGEST_SIZE];
    memcpy(id, trailer + 8, DIGEST_SIZE);
    if (memcmp(trailer + 40, trailer_magic, 8) != 0 || len > PART_META_MAX ||
        len > size - PART_HEADER_SIZE - PART_TRAILER_SIZE ||
        memcmp(id, f->ref.id, DIGEST_SIZE) != 0)
        return err_set(e, ERR_DAMAGED, f->path, "%s on %s is damaged: its trailer does not fit",
                       f->path, f->store->name);
    size_t have = guess - PART_TRAILER_SIZE;
    if (len <= have) {
        memmove(raw->data, raw->data + (have - len), (size_t)len);
    } else {
        buf_reset(raw);
        uint8_t *whole = buf_extend(raw, (size_t)len);
        if (!whole)
            return err_nomem(e);
        rc = read_exactly(f, size - PART_TRAILER_SIZE - len, whole, (size_t)len, e);
        if (rc)
            return rc;
    }
    raw->len = (size_t)len;
    digest_blake2b(raw->data, raw->len, id);
    if (memcmp(id, f->ref.id, DIGEST_SIZE) != 0)
        return err_set(e, ERR_DAMAGED, f->path,
                       "%s on %s is damaged: its metadata does not match its id", f->path,
                       f->store->name);
    return 0;
}

static int check_identity(const struct part_file *f, const char *source,
                          const uint8_t repository[static REPO_ID_SIZE], struct err *e)
{
    const struct part_header *h = &f->meta->header;
    if (memcmp(h->repository, repository, REPO_ID_SIZE) != 0) {
        err_set(e, ERR_FOREIGN, f->path, "%s on %s belongs to another repository", f->path,
                f->store->name);
        return err_hint(e, "Somebody has put it there: move it out of the worker's folder.");
    }
    if (strcmp(h->source, source) != 0 || h->epoch != f->ref.epoch ||
        h->sequence != f->ref.sequence || h->time_us / 1000000 != f->ref.time_s)
        return err_set(e, ERR_DAMAGED, f->path,
                       "%s on %s is not what its name says: source %s, part %" PRIu32 "-%" PRIu64,
                       f->path, f->store->name, h->source, h->epoch, h->sequence);
    return 0;
}

int part_open(struct store *s, const char *source, const struct part_ref *want, enum part_mark mark,
              const uint8_t repository[static REPO_ID_SIZE], struct part_file **ret, struct err *e)
{
    char name[PART_NAME_SIZE];
    CLEANUP(part_closep) struct part_file *f = mem_alloc(1, sizeof *f);
    OWN_BUF struct buf raw = BUF_INIT;
    if (!f)
        return err_nomem(e);
    f->store = s;
    f->ref = *want;
    part_name_format(want, mark, name);
    snprintf(f->path, sizeof f->path, "%s/%s", source, name);
    struct store_stat st;
    int rc = 0;
    if (f->ref.size_bytes == 0 && (rc = store_stat(s, f->path, &st, e)) == 0)
        f->ref.size_bytes = st.size_bytes;
    if (rc == 0)
        rc = store_open(s, f->path, &f->file, e);
    if (rc == 0)
        rc = read_tail(f, &raw, e);
    if (rc == 0)
        rc = part_meta_decode(&raw, f->ref.size_bytes, f->path, &f->meta, e);
    if (rc == 0)
        rc = check_identity(f, source, repository, e);
    if (rc == 0)
        *ret = TAKE_PTR(f);
    return rc;
}

struct block_reader {
    ZSTD_DCtx *zstd;
    struct columns *columns;
    uint8_t stored[PART_BLOCK_MAX];
    uint8_t unpacked[PART_BLOCK_MAX]; /* columns that will be pages */
    uint8_t raw[PART_BLOCK_MAX];
    /* The block read last: neighbouring small files lie in the same one. NULL: none. */
    const uint8_t *held;
    uint8_t held_part[DIGEST_SIZE];
    uint64_t held_offset;
};

int block_reader_new(struct block_reader **ret, struct err *e)
{
    struct block_reader *r = malloc(sizeof *r);
    if (!r)
        return err_nomem(e);
    r->held = NULL;
    r->zstd = ZSTD_createDCtx();
    r->columns = columns_new();
    if (!r->zstd || !r->columns) {
        block_reader_free(r);
        return err_nomem(e);
    }
    *ret = r;
    return 0;
}

void block_reader_free(struct block_reader *r)
{
    if (!r)
        return;
    ZSTD_freeDCtx(r->zstd);
    columns_free(r->columns);
    free(r);
}

void block_reader_freep(struct block_reader **r)
{
    block_reader_free(*r);
}

static bool unpack_zstd(struct block_reader *r, const struct part_block *b, const uint8_t *stored)
{
    size_t n = ZSTD_decompressDCtx(r->zstd, r->raw, b->raw_bytes, stored, b->stored_bytes);
    return !ZSTD_isError(n) && n == b->raw_bytes;
}

static bool unpack_columns(struct block_reader *r, const struct part_block *b,
                           const uint8_t *stored)
{
    size_t n =
        ZSTD_decompressDCtx(r->zstd, r->unpacked, sizeof r->unpacked, stored, b->stored_bytes);
    return !ZSTD_isError(n) && columns_join(r->columns, r->unpacked, n, b->page_shift,
                                            b->raw_bytes >> b->page_shift, r->raw);
}

int block_unpack(struct block_reader *r, const struct part_block *b, const char *path,
                 const uint8_t *stored, const uint8_t **ret_raw, struct err *e)
{
    uint8_t digest[DIGEST_SIZE];
    r->held = NULL;
    digest_blake2b(stored, b->stored_bytes, digest);
    if (memcmp(digest, b->digest, DIGEST_SIZE) != 0)
        return err_set(e, ERR_DAMAGED, path,
                       "%s is damaged: the block at byte %" PRIu64 " fails its digest", path,
                       b->offset);
    if (b->method == BLOCK_PLAIN) {
        *ret_raw = stored;
        return 0;
    }
    if (!(b->method == BLOCK_COLUMNS ? unpack_columns(r, b, stored) : unpack_zstd(r, b, stored)))
        return err_set(e, ERR_DAMAGED, path,
                       "%s is damaged: the block at byte %" PRIu64 " does not unpack to %" PRIu32
                       " bytes",
                       path, b->offset, b->raw_bytes);
    *ret_raw = r->raw;
    return 0;
}

bool block_is_as_listed(const struct part_block *b, const uint8_t *raw,
                        const uint8_t seed[static SEED_SIZE])
{
    uint64_t page_seed = digest_page_seed(seed);
    struct block_walk w = block_walk_begin(b);
    while (block_walk_next(&w)) {
        const uint8_t *at = raw + w.raw_offset;
        uint8_t id[CHUNK_ID_SIZE];
        if (b->kind == BLOCK_PAGES) {
            if (digest_page(page_seed, w.page, at, w.raw_bytes).fingerprint != w.fingerprint)
                return false;
            continue;
        }
        digest_chunk_id(seed, at, w.raw_bytes, id);
        if (memcmp(id, w.chunk_id, CHUNK_ID_SIZE) != 0)
            return false;
    }
    return true;
}

int part_read_block(struct part_file *f, const struct part_block *b, struct block_reader *r,
                    const uint8_t **ret_raw, struct err *e)
{
    if (r->held && r->held_offset == b->offset &&
        memcmp(r->held_part, f->ref.id, DIGEST_SIZE) == 0) {
        *ret_raw = r->held;
        return 0;
    }
    r->held = NULL;
    int rc = read_exactly(f, b->offset, r->stored, b->stored_bytes, e);
    if (rc == 0)
        rc = block_unpack(r, b, f->path, r->stored, ret_raw, e);
    if (rc)
        return rc;
    r->held = *ret_raw;
    r->held_offset = b->offset;
    memcpy(r->held_part, f->ref.id, DIGEST_SIZE);
    return 0;
}
