#include "snapshot/pool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "snapshot/entry.h"
#include "snapshot/spool.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

void pool_close(struct pool *p)
{
    for (size_t i = 0; i < POOL_STORES_MAX; i++) {
        part_close(p->open[i]);
        p->open[i] = NULL;
    }
}

void pool_store_gone(struct pool *p, const struct store *s)
{
    for (size_t i = 0; i < p->store_count; i++)
        p->gone[i] |= p->at[i].store == s;
}

bool pool_store_is_gone(const struct pool *p, const struct store *s)
{
    for (size_t i = 0; i < p->store_count; i++)
        if (p->at[i].store == s)
            return p->gone[i];
    return true;
}

size_t pool_holders(const struct pool *p, const struct part_ref *ref)
{
    size_t n = 0;
    for (size_t i = 0; i < p->store_count; i++)
        n += listing_holds(p->at[i].listing, ref);
    return n;
}

static void note_failure(struct pool *p, size_t i, const struct part_ref *ref, const struct err *e)
{
    bool bad = e->code == ERR_DAMAGED || e->code == ERR_FOREIGN;
    p->gone[i] |= e->code == ERR_CONNECT || e->code == ERR_TIMEOUT;
    if (bad && p->damage)
        p->damage(p->arg, p->at[i].store, ref, e);
}

/* The mark may have changed since the listing: prune renames. */
static int open_any_mark(struct pool *p, size_t i, const struct part_ref *ref,
                         enum part_mark listed, struct err *e)
{
    static const enum part_mark marks[] = {PART_SNAP, PART_PACK, PART_DEL};
    int rc = part_open(p->at[i].store, p->source, ref, listed, p->repository->id, &p->open[i], e);
    for (size_t k = 0; rc == ERR_NOT_FOUND && k < ARRAY_LEN(marks); k++)
        rc = part_open(p->at[i].store, p->source, ref, marks[k], p->repository->id, &p->open[i], e);
    return rc;
}

/* Opens the part on store i, or finds it open. */
static int open_at(struct pool *p, size_t i, const struct part_ref *ref, struct err *e)
{
    if (p->gone[i])
        return err_set(e, ERR_CONNECT, p->at[i].store->name, "the connection to %s was lost",
                       p->at[i].store->name);
    if (p->open[i] && part_same(&p->open[i]->ref, ref))
        return 0;
    const struct listed_part *listed = listing_find(p->at[i].listing, ref);
    if (!listed || listed->mark == PART_BAD)
        return err_set(e, ERR_NOT_FOUND, p->at[i].store->name,
                       "%s lacks part %04" PRIu32 "-%08" PRIu64 " of source %s",
                       p->at[i].store->name, ref->epoch, ref->sequence, p->source);
    struct part_ref want = *ref;
    if (want.size_bytes == 0)
        want.size_bytes = listed->ref.size_bytes;
    part_close(p->open[i]);
    p->open[i] = NULL;
    if (listed->ref.size_bytes != want.size_bytes)
        return err_set(e, ERR_DAMAGED, p->at[i].store->name,
                       "%s: part %04" PRIu32 "-%08" PRIu64 " of source %s is %" PRIu64
                       " bytes long, not %" PRIu64,
                       p->at[i].store->name, ref->epoch, ref->sequence, p->source,
                       listed->ref.size_bytes, want.size_bytes);
    return open_any_mark(p, i, &want, listed->mark, e);
}

void pool_failed(struct pool *p, size_t i, const struct part_ref *ref, const struct err *e)
{
    note_failure(p, i, ref, e);
}

int pool_file(struct pool *p, size_t i, const struct part_ref *ref, struct store_file **ret,
              struct err *e)
{
    static const enum part_mark marks[] = {PART_SNAP, PART_PACK, PART_DEL};
    const struct listed_part *listed = listing_find(p->at[i].listing, ref);
    char name[PART_NAME_SIZE], path[SOURCE_NAME_SIZE + 1 + PART_NAME_SIZE];
    int rc = ERR_NOT_FOUND;
    if (p->gone[i] || !listed || listed->mark == PART_BAD)
        return err_set(e, ERR_NOT_FOUND, p->at[i].store->name,
                       "%s lacks part %04" PRIu32 "-%08" PRIu64 " of source %s",
                       p->at[i].store->name, ref->epoch, ref->sequence, p->source);
    if (listed->ref.size_bytes != ref->size_bytes)
        return err_set(e, ERR_DAMAGED, p->at[i].store->name,
                       "%s: part %04" PRIu32 "-%08" PRIu64 " of source %s has another length",
                       p->at[i].store->name, ref->epoch, ref->sequence, p->source);
    for (size_t k = 0; rc == ERR_NOT_FOUND && k <= ARRAY_LEN(marks); k++) {
        part_name_format(ref, k ? marks[k - 1] : listed->mark, name);
        snprintf(path, sizeof path, "%s/%s", p->source, name);
        rc = store_open(p->at[i].store, path, ret, e);
    }
    return rc;
}

/* The order in which stores are asked: one that has the part open first. */
static size_t first_store(const struct pool *p, const struct part_ref *ref)
{
    for (size_t i = 0; i < p->store_count; i++)
        if (p->open[i] && part_same(&p->open[i]->ref, ref))
            return i;
    return 0;
}

int pool_part(struct pool *p, const struct part_ref *ref, const struct part_file **ret,
              struct err *e)
{
    size_t first = first_store(p, ref);
    struct err newer = ERR_INIT;
    int rc = p->store_count ? 0 : err_set(e, ERR_CONNECT, p->source, "no worker answers");
    for (size_t k = 0; k < p->store_count; k++) {
        size_t i = (first + k) % p->store_count;
        struct err own = ERR_INIT;
        rc = open_at(p, i, ref, &own);
        if (rc == 0) {
            *ret = p->open[i];
            return 0;
        }
        note_failure(p, i, ref, &own);
        if (rc == ERR_VERSION)
            newer = own;
        if (e)
            *e = own;
    }
    /* A copy whose id fits tells what the part is, whatever ails the other. */
    if (newer.code) {
        rc = newer.code;
        if (e)
            *e = newer;
    }
    return rc;
}

int pool_block(struct pool *p, const struct part_ref *ref, size_t index, struct block_reader *r,
               const uint8_t **ret_raw, struct err *e)
{
    size_t first = first_store(p, ref);
    int rc = p->store_count ? 0 : err_set(e, ERR_CONNECT, p->source, "no worker answers");
    for (size_t k = 0; k < p->store_count; k++) {
        size_t i = (first + k) % p->store_count;
        rc = open_at(p, i, ref, e);
        if (rc == 0)
            rc = part_read_block(p->open[i], &p->open[i]->meta->blocks[index], r, ret_raw, e);
        if (rc == 0)
            return 0;
        note_failure(p, i, ref, e);
    }
    return rc;
}

static const struct part_ref *find_ref(const struct content *c, const struct part_run *run)
{
    for (size_t i = c->ref_count; i > 0; i--)
        if (c->refs[i - 1].epoch == run->epoch && c->refs[i - 1].sequence == run->sequence)
            return &c->refs[i - 1];
    return NULL;
}

/* The block of kind 2 that holds the chunk; block_count when there is none. */
static size_t block_of_chunk(const struct part_meta *m, uint32_t chunk)
{
    size_t i = 0;
    while (i < m->block_count && (m->blocks[i].kind != BLOCK_CHUNKS ||
                                  chunk - m->blocks[i].first_chunk >= m->blocks[i].count))
        i++;
    return i;
}

/* Gives the chunks of one block that lie in [*at, end). */
/* One chunk of a block in hand. */
struct chunk_at {
    uint8_t id[CHUNK_ID_SIZE];
    uint32_t index, raw_offset, raw_bytes;
};

/* The block's chunks that the run wants, copied: whoever takes them may have the pool open another
 * part, and the metadata goes then. */
static int wanted_chunks(const struct part_block *b, const struct part_run *run,
                         struct chunk_at **ret, size_t *ret_count, struct err *e)
{
    struct block_walk w = block_walk_begin(b);
    struct chunk_at *at = mem_alloc(MIN(b->count, run->count), sizeof *at);
    size_t n = 0;
    if (!at)
        return err_nomem(e);
    while (n < MIN(b->count, run->count) && block_walk_next(&w)) {
        if (b->first_chunk + w.index != run->first_chunk + n)
            continue;
        at[n] = (struct chunk_at){.index = run->first_chunk + (uint32_t)n,
                                  .raw_offset = w.raw_offset,
                                  .raw_bytes = w.raw_bytes};
        memcpy(at[n++].id, w.chunk_id, CHUNK_ID_SIZE);
    }
    *ret = at;
    *ret_count = n;
    return 0;
}

static int take_from_block(struct pool *p, const struct part_ref *ref, struct part_run *left,
                           struct block_reader *r, content_fn *take, void *arg, struct err *e)
{
    const struct part_file *f;
    const uint8_t *raw;
    int rc = pool_part(p, ref, &f, e);
    if (rc)
        return rc;
    size_t index = block_of_chunk(f->meta, left->first_chunk);
    if (index == f->meta->block_count)
        return err_set(e, ERR_DAMAGED, f->path, "%s holds no chunk %" PRIu32, f->path,
                       left->first_chunk);
    rc = pool_block(p, ref, index, r, &raw, e);
    if (rc == 0)
        rc = pool_part(p, ref, &f, e);
    if (rc)
        return rc;
    OWN_MEM struct chunk_at *chunks = NULL;
    size_t count = 0;
    rc = wanted_chunks(&f->meta->blocks[index], left, &chunks, &count, e);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct part_run at = {left->epoch, left->sequence, chunks[i].index, 1};
        rc = take(arg, chunks[i].id, &at, raw + chunks[i].raw_offset, chunks[i].raw_bytes, e);
    }
    left->first_chunk += (uint32_t)count;
    left->count -= (uint32_t)count;
    return rc;
}

int pool_content(struct pool *p, const struct content *c, struct block_reader *r, content_fn *take,
                 void *arg, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < c->run_count; i++) {
        struct part_run left = c->runs[i];
        const struct part_ref *ref = find_ref(c, &left);
        if (!ref)
            return err_set(e, ERR_DAMAGED, p->source,
                           "content of source %s lies in part %04" PRIu32 "-%08" PRIu64
                           ", which the snapshot does not list",
                           p->source, left.epoch, left.sequence);
        while (rc == 0 && left.count > 0)
            rc = take_from_block(p, ref, &left, r, take, arg, e);
    }
    return rc;
}

void snapshot_free(struct snapshot *s)
{
    snapshot_section_free(&s->section);
    free(s->parts);
    *s = (struct snapshot){0};
}

static int copy_snapshot(const struct part_file *f, struct snapshot *s, struct err *e)
{
    const struct snapshot_section *from = &f->meta->snapshot;
    s->ref = f->ref;
    s->header = f->meta->header;
    s->section = *from;
    s->section.listed = mem_alloc(from->listed_count, sizeof *from->listed);
    s->section.runs = mem_alloc(from->run_count, sizeof *from->runs);
    s->part_count = from->listed_count + 1;
    s->parts = mem_alloc(s->part_count, sizeof *s->parts);
    if (!s->section.listed || !s->section.runs || !s->parts)
        return err_nomem(e);
    memcpy(s->section.listed, from->listed, from->listed_count * sizeof *from->listed);
    if (from->run_count)
        memcpy(s->section.runs, from->runs, from->run_count * sizeof *from->runs);
    memcpy(s->parts, from->listed, from->listed_count * sizeof *from->listed);
    s->parts[s->part_count - 1] = f->ref;
    return 0;
}

int pool_snapshot(struct pool *p, const struct part_ref *ref, struct snapshot *ret, struct err *e)
{
    const struct part_file *f;
    OWN_SNAPSHOT struct snapshot s = {0};
    int rc = pool_part(p, ref, &f, e);
    if (rc == 0 && !f->meta->has_snapshot)
        rc = err_set(e, ERR_DAMAGED, f->path, "%s holds no snapshot", f->path);
    if (rc == 0)
        rc = copy_snapshot(f, &s, e);
    if (rc == 0) {
        *ret = s;
        s = (struct snapshot){0};
    }
    return rc;
}

/* Entries are cut out of the stream of chunks as they become whole; a long one is gathered in a
 * temporary file. */
struct entry_stream {
    struct buf pending;
    uint64_t bytes;
    entry_fn *take;
    void *arg;
    bool refused;             /* by `take`: the error is not the list's */
    struct shared_file *file; /* NULL: there is no long one in hand */
    uint64_t file_len, file_want;
};

/* *ret_len: of its record, as far as that is known yet. */
static bool record_is_whole(const struct cursor *c, uint64_t *ret_len, size_t *ret_head)
{
    struct cursor look = *c;
    uint64_t len = cursor_varint(&look);
    *ret_len = look.bad ? 0 : len;
    *ret_head = cursor_left(c) - cursor_left(&look);
    return !look.bad && (len > ENTRY_RECORD_MAX || len <= cursor_left(&look));
}

static int give(struct entry_stream *s, int rc, struct entry *entry, struct err *e)
{
    if (rc)
        return rc;
    rc = s->take(s->arg, entry, e);
    s->refused = rc != 0;
    entry_free(entry);
    return rc;
}

static int begin_long(struct entry_stream *s, uint64_t len, struct err *e)
{
    int fd = -1, rc = spool_file(NULL, &fd, e);
    if (rc)
        return rc;
    s->file = shared_file_new(fd);
    s->file_len = 0;
    s->file_want = len;
    return s->file ? 0 : err_nomem(e);
}

/* *ret_used: bytes that belong to the long record. */
static int add_to_long(struct entry_stream *s, const uint8_t *p, size_t n, size_t *ret_used,
                       struct err *e)
{
    struct entry entry;
    *ret_used = (size_t)MIN((uint64_t)n, s->file_want - s->file_len);
    if (io_pwrite_all(s->file->fd, p, *ret_used, s->file_len) < 0)
        return err_sys(e, errno, NULL, "cannot write a temporary file in memory");
    s->file_len += *ret_used;
    if (s->file_len < s->file_want)
        return 0;
    int rc = give(s, entry_decode_at(s->file, 0, s->file_len, &entry, e), &entry, e);
    shared_file_unref(TAKE_PTR(s->file));
    return rc;
}

/* The records that are whole in p; *ret_used is what can be forgotten of it. */
static int take_records(struct entry_stream *s, const uint8_t *p, size_t n, size_t *ret_used,
                        struct err *e)
{
    struct cursor c = cursor_of(p, n);
    uint64_t len = 0;
    size_t head = 0;
    int rc = 0;
    while (rc == 0 && cursor_left(&c) > 0 && record_is_whole(&c, &len, &head)) {
        struct entry entry;
        rc = give(s, entry_decode(&c, &entry, e), &entry, e);
    }
    if (rc == 0 && cursor_left(&c) > 0 && len > ENTRY_RECORD_LONG) {
        cursor_take(&c, head);
        rc = begin_long(s, len, e);
    }
    *ret_used = n - cursor_left(&c);
    return rc;
}

static int take_entry_bytes(void *arg, const uint8_t id[static CHUNK_ID_SIZE],
                            const struct part_run *at, const uint8_t *p, size_t n, struct err *e)
{
    struct entry_stream *s = arg;
    (void)id;
    (void)at;
    buf_put(&s->pending, p, n);
    if (s->pending.bad)
        return err_nomem(e);
    s->bytes += n;
    size_t done = 0, used;
    int rc = 0;
    do {
        used = 0;
        const uint8_t *from = s->pending.data + done;
        size_t left = s->pending.len - done;
        if (left)
            rc = s->file ? add_to_long(s, from, left, &used, e)
                         : take_records(s, from, left, &used, e);
        done += used;
    } while (rc == 0 && used);
    memmove(s->pending.data, s->pending.data + done, s->pending.len - done);
    s->pending.len -= done;
    return rc;
}

/* Without its list nothing tells what a snapshot holds: there is nothing to salvage. */
static void explain_list(const struct pool *p, struct err *e)
{
    err_prefix(e, "the list of the snapshot's entries cannot be read");
    err_hint(e,
             "`syncd snapshots` names older ones, for --snapshot ID; --salvage cannot help here.%s",
             p->store_count < POOL_STORES_MAX ? " Another worker may have it whole." : "");
}

int pool_entries(struct pool *p, const struct snapshot *s, struct block_reader *r, entry_fn *take,
                 void *arg, struct err *e)
{
    struct entry_stream stream = {.take = take, .arg = arg};
    struct content c = {s->section.runs, s->section.run_count, s->parts, s->part_count};
    int rc = pool_content(p, &c, r, take_entry_bytes, &stream, e);
    if (rc == 0 &&
        (stream.pending.len != 0 || stream.file || stream.bytes != s->section.entry_bytes))
        rc = err_set(e, ERR_DAMAGED, p->source,
                     "the entry list of a snapshot of source %s is damaged: it is cut", p->source);
    buf_free(&stream.pending);
    shared_file_unref(stream.file);
    if (e && !stream.refused && (rc == ERR_DAMAGED || rc == ERR_NOT_FOUND))
        explain_list(p, e);
    return rc;
}
