#include "restore/part_copies.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "restore/damage.h"
#include "snapshot/part_reader.h"
#include "snapshot/repository.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

#define PIECE_BYTES (1u << 20)

struct part_copies {
    struct part_copies_options o;
    struct part_file *files[PART_COPIES_MAX]; /* NULL: not open, or its metadata is damaged */
    struct store_file *raw[PART_COPIES_MAX];  /* opened without metadata, for single blocks */
    bool raw_tried[PART_COPIES_MAX];
    size_t first; /* the copy whose metadata is used, and that is read in order */
    bool lacks;   /* with go_on: a block was found that no copy has */
    size_t failed_copy;
    struct err lacks_err;
    struct block_reader *reader; /* with content */
    uint8_t piece[PIECE_BYTES];
};

void part_copies_close(struct part_copies *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < PART_COPIES_MAX; i++) {
        part_close(c->files[i]);
        store_close_file(c->raw[i], NULL);
    }
    block_reader_free(c->reader);
    free(c);
}

static int give_up(struct part_copies *c, size_t copy, int rc)
{
    c->failed_copy = copy;
    return rc;
}

static void tell(const struct part_copies *c, size_t copy, int64_t block, const struct err *e)
{
    if (c->o.damaged)
        c->o.damaged(c->o.arg, copy, block, e);
}

static int open_copy(struct part_copies *c, size_t i, struct err *e)
{
    static const enum part_mark marks[] = {PART_SNAP, PART_PACK, PART_DEL};
    int rc = part_open(c->o.copies[i].store, c->o.source, &c->o.ref, c->o.copies[i].mark,
                       c->o.repository->id, &c->files[i], e);
    for (size_t k = 0; rc == ERR_NOT_FOUND && k < ARRAY_LEN(marks); k++) {
        rc = part_open(c->o.copies[i].store, c->o.source, &c->o.ref, marks[k], c->o.repository->id,
                       &c->files[i], e);
        if (rc != ERR_NOT_FOUND)
            c->o.copies[i].mark = marks[k];
    }
    return rc;
}

static int open_first(struct part_copies *c, struct err *e)
{
    int rc = ERR_NOT_FOUND;
    for (size_t i = 0; i < c->o.count; i++) {
        rc = open_copy(c, i, e);
        c->first = i;
        if (rc == 0)
            return 0;
        if (damage_is(rc))
            tell(c, i, DAMAGE_NO_BLOCK, e);
        else if (rc != ERR_NOT_FOUND)
            return give_up(c, i, rc);
    }
    return rc;
}

int part_copies_open(const struct part_copies_options *o, struct part_copies **ret,
                     size_t *ret_copy, struct err *e)
{
    struct part_copies *c = malloc(sizeof *c);
    if (!c)
        return err_nomem(e);
    memset(c, 0, offsetof(struct part_copies, piece));
    c->o = *o;
    c->failed_copy = o->count;
    int rc = o->content ? block_reader_new(&c->reader, e) : 0;
    if (rc == 0)
        rc = open_first(c, e);
    if (ret_copy)
        *ret_copy = c->failed_copy;
    if (rc)
        part_copies_close(c);
    else
        *ret = c;
    return rc;
}

const struct part_meta *part_copies_meta(const struct part_copies *c)
{
    return c->files[c->first]->meta;
}

static int damaged_at(const struct part_copies *c, size_t copy, uint64_t offset, const char *what,
                      struct err *e)
{
    char name[PART_NAME_SIZE];
    part_name_format(&c->o.ref, c->o.copies[copy].mark, name);
    return err_set(e, ERR_DAMAGED, c->o.copies[copy].store->name,
                   "%s/%s on %s is damaged: %s (byte %" PRIu64 ")", c->o.source, name,
                   c->o.copies[copy].store->name, what, offset);
}

static int read_from(struct part_copies *c, size_t copy, uint64_t offset, uint8_t *p, size_t n,
                     struct err *e)
{
    struct store_file *f = c->files[copy] ? c->files[copy]->file : c->raw[copy];
    size_t got = 0;
    int rc = store_read_at(f, offset, p, n, &got, e);
    if (rc == 0 && got < n)
        rc = damaged_at(c, copy, offset + got, "it ends too early", e);
    return rc;
}

/* Opens a further copy for single blocks, once. Its own metadata does not matter. */
static bool open_raw(struct part_copies *c, size_t copy)
{
    char name[PART_NAME_SIZE], path[SOURCE_NAME_SIZE + 1 + PART_NAME_SIZE];
    if (c->files[copy] || c->raw[copy])
        return true;
    if (c->raw_tried[copy])
        return false;
    c->raw_tried[copy] = true;
    part_name_format(&c->o.ref, c->o.copies[copy].mark, name);
    snprintf(path, sizeof path, "%s/%s", c->o.source, name);
    return store_open(c->o.copies[copy].store, path, &c->raw[copy], NULL) == 0;
}

/* NULL: the block is right. */
static const char *fault_of(const struct part_copies *c, const struct part_block *b,
                            const uint8_t *p)
{
    uint8_t digest[DIGEST_SIZE];
    const uint8_t *raw;
    struct err ignored = ERR_INIT;
    digest_blake2b(p, b->stored_bytes, digest);
    if (memcmp(digest, b->digest, DIGEST_SIZE) != 0)
        return "a block fails its digest";
    if (!c->o.content)
        return NULL;
    if (block_unpack(c->reader, b, c->o.source, p, &raw, &ignored))
        return "a block cannot be unpacked";
    return block_is_as_listed(b, raw, c->o.repository->seed)
               ? NULL
               : "a block holds something else than was read from the source";
}

/* Reads one block from one copy; damage is told. */
static int block_from(struct part_copies *c, size_t copy, const struct part_block *b, uint8_t *p,
                      struct err *e)
{
    int rc = read_from(c, copy, b->offset, p, b->stored_bytes, e);
    const char *fault = rc == 0 ? fault_of(c, b, p) : NULL;
    if (fault)
        rc = damaged_at(c, copy, b->offset, fault, e);
    if (damage_is(rc))
        tell(c, copy, (int64_t)b->offset, e);
    return damage_is(rc) || rc == 0 ? rc : give_up(c, copy, rc);
}

/* The block failed in the copy that is read in order: from another one, if there is. */
static int mend_block(struct part_copies *c, const struct part_block *b, uint8_t *p, struct err *e)
{
    int rc = ERR_DAMAGED;
    for (size_t i = 0; i < c->o.count; i++) {
        struct err other = ERR_INIT;
        if (i == c->first || !open_raw(c, i))
            continue;
        rc = block_from(c, i, b, p, &other);
        if (rc == 0)
            return 0;
        if (!damage_is(rc)) {
            *e = other;
            return rc;
        }
    }
    if (!c->o.go_on)
        return e->code;
    if (!c->lacks)
        c->lacks_err = *e;
    c->lacks = true;
    return 0;
}

/* Blocks [from, to), which lie back to back, into the piece. */
static int read_blocks(struct part_copies *c, size_t from, size_t to, size_t n, struct err *e)
{
    const struct part_block *blocks = part_copies_meta(c)->blocks;
    int rc = read_from(c, c->first, blocks[from].offset, c->piece, n, e);
    bool whole = rc == 0;
    if (rc && !damage_is(rc))
        return give_up(c, c->first, rc);
    uint8_t *p = c->piece;
    rc = 0;
    for (size_t i = from; rc == 0 && i < to; p += blocks[i++].stored_bytes) {
        if (whole && !fault_of(c, &blocks[i], p))
            continue;
        rc = block_from(c, c->first, &blocks[i], p, e);
        if (damage_is(rc))
            rc = mend_block(c, &blocks[i], p, e);
    }
    return rc;
}

/* The header is known from the metadata: a damaged one is told of, and the right one given. */
static int read_header(struct part_copies *c, struct err *e)
{
    const uint8_t *right = part_copies_meta(c)->raw.data;
    int rc = read_from(c, c->first, 0, c->piece, PART_HEADER_SIZE, e);
    if (rc && !damage_is(rc))
        return give_up(c, c->first, rc);
    if (rc == 0 && memcmp(c->piece, right, PART_HEADER_SIZE) != 0)
        rc = damaged_at(c, c->first, 0, "its header is not the one in its metadata", e);
    if (rc == 0)
        return 0;
    tell(c, c->first, 0, e);
    memcpy(c->piece, right, PART_HEADER_SIZE);
    return 0;
}

static int read_all_blocks(struct part_copies *c, part_bytes_fn *take, void *arg, struct err *e)
{
    const struct part_meta *m = part_copies_meta(c);
    int rc = 0;
    for (size_t from = 0, to; rc == 0 && from < m->block_count; from = to) {
        size_t n = 0;
        for (to = from; to < m->block_count && n + m->blocks[to].stored_bytes <= PIECE_BYTES; to++)
            n += m->blocks[to].stored_bytes;
        if (c->o.cancel && atomic_load(c->o.cancel))
            return err_set(e, ERR_CANCELLED, c->o.source, "stopped");
        rc = read_blocks(c, from, to, n, e);
        if (rc == 0 && take)
            rc = take(arg, c->piece, n, e);
    }
    return rc;
}

/* Trailer (FORMAT.md 2.2): what part_open found, as it must be. */
static void make_trailer(const struct part_copies *c, uint8_t ret[static PART_TRAILER_SIZE])
{
    le64_put(ret, part_copies_meta(c)->raw.len);
    memcpy(ret + 8, c->o.ref.id, DIGEST_SIZE);
    memcpy(ret + 8 + DIGEST_SIZE, "syncdend", 8);
}

static int read_parts(struct part_copies *c, part_bytes_fn *take, void *arg, struct err *e)
{
    const struct part_meta *m = part_copies_meta(c);
    uint8_t trailer[PART_TRAILER_SIZE];
    int rc = read_header(c, e);
    if (rc == 0 && take)
        rc = take(arg, c->piece, PART_HEADER_SIZE, e);
    if (rc == 0)
        rc = read_all_blocks(c, take, arg, e);
    make_trailer(c, trailer);
    if (rc == 0 && take)
        rc = take(arg, m->raw.data, m->raw.len, e);
    if (rc == 0 && take)
        rc = take(arg, trailer, sizeof trailer, e);
    if (rc == 0 && c->lacks) {
        if (e)
            *e = c->lacks_err;
        return c->lacks_err.code;
    }
    return rc;
}

int part_copies_read(struct part_copies *c, part_bytes_fn *take, void *arg, size_t *ret_copy,
                     struct err *e)
{
    struct err own = ERR_INIT;
    c->failed_copy = c->o.count;
    c->lacks = false;
    int rc = read_parts(c, take, arg, &own);
    if (rc && e)
        *e = own;
    if (ret_copy)
        *ret_copy = c->failed_copy;
    return rc;
}
