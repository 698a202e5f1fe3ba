/* Decoding of a part's metadata: everything here comes from a worker and is believed only after its
 * id was checked, and not even then without limits. */
#include <inttypes.h>
#include <string.h>

#include "snapshot/part.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define SMALLEST_BLOCK (4 + DIGEST_SIZE) /* bytes of metadata that a block takes at the least */

struct decode {
    struct cursor c;
    struct part_meta *m;
    const char *name;
    struct err *e;
    uint64_t offset; /* of the next block in the file */
};

static int damaged(struct decode *d, const char *what, size_t index)
{
    size_t at = (size_t)(d->c.p - d->m->raw.data);
    return err_set(d->e, ERR_DAMAGED, d->name,
                   "%s is damaged: %s %zu does not make sense (byte %zu of its metadata)", d->name,
                   what, index, at);
}

/* Page numbers must stay below this, so that page number x page size stays a file offset. */
static bool page_is_sane(uint64_t page, uint8_t shift)
{
    return page < (UINT64_C(1) << (62 - shift));
}

static bool decode_pages(struct decode *d, struct part_block *b)
{
    b->image = cursor_u64(&d->c);
    b->page_shift = cursor_u8(&d->c);
    if (d->c.bad || b->page_shift < 9 || b->page_shift > 16 ||
        (uint64_t)b->count << b->page_shift != b->raw_bytes)
        return false;
    const uint8_t *start = d->c.p;
    uint64_t page = cursor_varint(&d->c);
    for (uint32_t i = 1; i < b->count && page_is_sane(page, b->page_shift); i++)
        page += (uint64_t)cursor_zigzag(&d->c);
    if (d->c.bad || !page_is_sane(page, b->page_shift))
        return false;
    b->items = start;
    b->items_len = (size_t)(d->c.p - start);
    b->fingerprints = cursor_take(&d->c, 8 * (size_t)b->count);
    d->m->page_total += b->count;
    return b->fingerprints != NULL;
}

static bool decode_chunks(struct decode *d, struct part_block *b)
{
    uint64_t sum = 0;
    const uint8_t *start = d->c.p;
    b->first_chunk = (uint32_t)d->m->chunk_total;
    for (uint32_t i = 0; i < b->count; i++) {
        cursor_take(&d->c, CHUNK_ID_SIZE);
        uint64_t len = cursor_varint(&d->c);
        if (d->c.bad || len == 0 || len > b->raw_bytes - sum)
            return false;
        sum += len;
    }
    b->items = start;
    b->items_len = (size_t)(d->c.p - start);
    d->m->chunk_total += b->count;
    return sum == b->raw_bytes;
}

static bool decode_block(struct decode *d, struct part_block *b)
{
    b->kind = cursor_u8(&d->c);
    b->method = cursor_u8(&d->c);
    uint64_t stored = cursor_varint(&d->c), raw = cursor_varint(&d->c);
    b->digest = cursor_take(&d->c, DIGEST_SIZE);
    uint64_t count = cursor_varint(&d->c);
    if (d->c.bad || stored == 0 || stored > PART_BLOCK_MAX || raw == 0 || raw > PART_BLOCK_MAX ||
        b->method > BLOCK_COLUMNS || (b->method == BLOCK_COLUMNS && b->kind != BLOCK_PAGES) ||
        (b->method == BLOCK_PLAIN && stored != raw) || count == 0 ||
        count > PART_ITEMS_MAX - d->m->page_total - d->m->chunk_total)
        return false;
    b->stored_bytes = (uint32_t)stored;
    b->raw_bytes = (uint32_t)raw;
    b->count = (uint32_t)count;
    b->offset = d->offset;
    d->offset += stored;
    if (b->kind == BLOCK_PAGES)
        return decode_pages(d, b);
    return b->kind == BLOCK_CHUNKS && decode_chunks(d, b);
}

static int decode_blocks(struct decode *d)
{
    uint64_t count = cursor_varint(&d->c);
    if (d->c.bad || count > PART_BLOCKS_MAX || count > cursor_left(&d->c) / SMALLEST_BLOCK)
        return damaged(d, "its number of blocks,", (size_t)count);
    d->m->blocks = mem_alloc(count, sizeof *d->m->blocks);
    if (!d->m->blocks)
        return err_nomem(d->e);
    d->m->block_count = count;
    d->offset = PART_HEADER_SIZE;
    for (size_t i = 0; i < count; i++)
        if (!decode_block(d, &d->m->blocks[i]))
            return damaged(d, "block", i);
    return 0;
}

static int decode_listed(struct decode *d, struct snapshot_section *s)
{
    struct part_ref self = {.epoch = d->m->header.epoch, .sequence = d->m->header.sequence};
    int64_t time_s = d->m->header.time_us / 1000000;
    uint64_t count = cursor_varint(&d->c);
    if (d->c.bad || count > PART_LISTED_MAX || count > cursor_left(&d->c) / (4 + DIGEST_SIZE))
        return damaged(d, "its number of listed parts,", (size_t)count);
    s->listed = mem_alloc(count, sizeof *s->listed);
    if (!s->listed)
        return err_nomem(d->e);
    for (size_t i = 0; i < count; i++) {
        struct part_ref *ref = &s->listed[i];
        uint64_t epoch = cursor_varint(&d->c);
        ref->sequence = cursor_varint(&d->c);
        time_s = (int64_t)((uint64_t)time_s + (uint64_t)cursor_zigzag(&d->c));
        ref->size_bytes = cursor_varint(&d->c);
        cursor_copy(&d->c, ref->id, DIGEST_SIZE);
        ref->epoch = (uint32_t)epoch;
        ref->time_s = time_s;
        bool ascending = i == 0 || part_order(&s->listed[i - 1], ref) < 0;
        if (d->c.bad || epoch > UINT32_MAX || !ascending || part_order(ref, &self) >= 0 ||
            time_s < 0 || time_s > INT64_C(253402300799)) /* 9999-12-31 */
            return damaged(d, "listed part", i);
    }
    s->listed_count = count;
    return 0;
}

static int decode_snapshot(struct decode *d)
{
    struct snapshot_section *s = &d->m->snapshot;
    s->as_of_us = (int64_t)cursor_u64(&d->c);
    uint8_t flags = cursor_u8(&d->c);
    s->complete = flags & 1;
    if (d->c.bad || flags > 1)
        return damaged(d, "its snapshot section, flags", flags);
    int rc = decode_listed(d, s);
    if (rc)
        return rc;
    s->entry_bytes = cursor_varint(&d->c);
    if (!part_runs_decode(&d->c, &s->runs, &s->run_count))
        return damaged(d, "its entry list's run", s->run_count);
    return 0;
}

static int decode_all(struct decode *d, uint64_t file_bytes)
{
    const uint8_t *header = cursor_take(&d->c, PART_HEADER_SIZE);
    if (!header)
        return damaged(d, "its metadata's length,", d->m->raw.len);
    int rc = part_header_decode(header, d->name, &d->m->header, d->e);
    if (rc == 0)
        rc = decode_blocks(d);
    if (rc)
        return rc;
    uint8_t has_snapshot = cursor_u8(&d->c);
    if (d->c.bad || has_snapshot > 1)
        return damaged(d, "its snapshot mark,", has_snapshot);
    d->m->has_snapshot = has_snapshot;
    if (has_snapshot && (rc = decode_snapshot(d)))
        return rc;
    if (cursor_left(&d->c) != 0)
        return damaged(d, "the end of its metadata, bytes left", cursor_left(&d->c));
    if (d->offset + d->m->raw.len + PART_TRAILER_SIZE != file_bytes)
        return err_set(d->e, ERR_DAMAGED, d->name,
                       "%s is damaged: it should be %" PRIu64 " bytes long but is %" PRIu64,
                       d->name, d->offset + d->m->raw.len + PART_TRAILER_SIZE, file_bytes);
    return 0;
}

int part_meta_decode(struct buf *raw, uint64_t file_bytes, const char *name, struct part_meta **ret,
                     struct err *e)
{
    struct part_meta *m = mem_alloc(1, sizeof *m);
    if (!m) {
        buf_free(raw);
        return err_nomem(e);
    }
    m->raw = *raw;
    *raw = BUF_INIT;
    struct decode d = {.c = cursor_of(m->raw.data, m->raw.len), .m = m, .name = name, .e = e};
    int rc = decode_all(&d, file_bytes);
    if (rc) {
        part_meta_free(m);
        return rc;
    }
    *ret = m;
    return 0;
}
