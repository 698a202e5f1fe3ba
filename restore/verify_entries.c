/* The newest list comes first and is read and decoded whole; of an older one only the chunks that
 * were not read before. So a hundred lists of a tree of 200,000 files cost little more than one. */
#include <string.h>

#include "restore/verify_internal.h"
#include "snapshot/entry.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

#define LIST_CHUNKS_MAX (16u << 20)

/* Which chunks of a part were read, one bit each. */
struct seen {
    uint8_t *bits;
    size_t cap; /* bytes */
};

struct lists {
    struct verify *v;
    size_t at;
    struct pool pool;
    struct block_reader *reader;
    struct seen *seen;   /* of each part of v->kept */
    bool part_was_named; /* the damage was some listed part's, not the list's own */
};

static bool is_seen(const struct seen *s, uint32_t chunk)
{
    return chunk / 8 < s->cap && (s->bits[chunk / 8] >> (chunk % 8)) & 1;
}

/* Only after the chunks were read: then the part is known to have as many. */
static int mark_seen(struct seen *s, const struct part_run *run, struct err *e)
{
    uint32_t end = run->first_chunk + run->count;
    if (mem_grow(&s->bits, &s->cap, end / 8 + 1, 1))
        return err_nomem(e);
    for (uint32_t i = run->first_chunk; i < end; i++)
        s->bits[i / 8] |= (uint8_t)(1u << (i % 8));
    return 0;
}

static void note_part(void *arg, struct store *s, const struct part_ref *ref, const struct err *e)
{
    struct lists *l = arg;
    struct kept_part *part = kept_find(&l->v->kept, ref);
    (void)s;
    (void)e;
    l->part_was_named = true;
    if (part) /* reading it whole finds the block */
        l->v->must_read[part - l->v->kept.parts] = true;
}

static int take_entry(void *arg, struct entry *entry, struct err *e)
{
    struct lists *l = arg;
    (void)entry;
    return verify_cancelled(l->v, e);
}

static int take_chunk(void *arg, const uint8_t id[static CHUNK_ID_SIZE], const struct part_run *at,
                      const uint8_t *p, size_t n, struct err *e)
{
    struct lists *l = arg;
    (void)id;
    (void)at;
    (void)p;
    (void)n;
    return verify_cancelled(l->v, e);
}

static struct seen *seen_of(struct lists *l, const struct snapshot *s, const struct part_run *run)
{
    for (size_t i = 0; i < s->part_count; i++) {
        const struct part_ref *ref = &s->parts[i];
        const struct kept_part *part;
        if (ref->epoch == run->epoch && ref->sequence == run->sequence &&
            (part = kept_find(&l->v->kept, ref)))
            return &l->seen[part - l->v->kept.parts];
    }
    return NULL;
}

/* The chunks of the list that were not read yet. *ret_all: none was. */
static int fresh_runs(struct lists *l, const struct snapshot *s, struct part_run **ret,
                      size_t *ret_count, bool *ret_all, struct err *e)
{
    size_t cap = 0;
    uint64_t chunks = 0;
    *ret_all = true;
    for (size_t i = 0; i < s->section.run_count; i++) {
        const struct part_run *run = &s->section.runs[i];
        const struct seen *seen = seen_of(l, s, run);
        chunks += run->count;
        if (!seen || chunks > LIST_CHUNKS_MAX)
            return err_set(e, ERR_DAMAGED, l->v->p->kept.source,
                           "the entry list of a snapshot leads nowhere");
        for (uint32_t k = 0; k < run->count; k++) {
            struct part_run one = {run->epoch, run->sequence, run->first_chunk + k, 1};
            if (is_seen(seen, one.first_chunk))
                *ret_all = false;
            else if (part_runs_add(ret, ret_count, &cap, &one))
                return err_nomem(e);
        }
    }
    return 0;
}

static int read_list(struct lists *l, const struct snapshot *s, struct err *e)
{
    OWN_MEM struct part_run *fresh = NULL;
    size_t count = 0;
    bool all;
    int rc = fresh_runs(l, s, &fresh, &count, &all, e);
    struct content c = {fresh, count, s->parts, s->part_count};
    if (rc == 0 && all)
        rc = pool_entries(&l->pool, s, l->reader, take_entry, l, e);
    else if (rc == 0)
        rc = pool_content(&l->pool, &c, l->reader, take_chunk, l, e);
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = mark_seen(seen_of(l, s, &fresh[i]), &fresh[i], e);
    return rc;
}

static int check_snapshot(struct lists *l, struct kept_part *part, struct err *e)
{
    struct verify *v = l->v;
    OWN_SNAPSHOT struct snapshot s = {0};
    struct err own = ERR_INIT;
    l->part_was_named = false;
    int rc = pool_snapshot(&l->pool, &part->ref, &s, &own);
    if (rc == 0 && !kept_holds_all(&v->kept, &s.section, l->at))
        return 0; /* what is missing or bad is booked where it is */
    if (rc == 0)
        rc = read_list(l, &s, &own);
    if (rc == 0) {
        v->result->workers[l->at].snapshots++;
        return 0;
    }
    if (damage_is(rc) && !l->part_was_named)
        kept_note_damage(&v->kept, part, l->at, DAMAGE_NO_BLOCK, &own);
    return verify_settle(v, l->at, rc, &own, e);
}

static void lists_free(struct lists *l)
{
    for (size_t i = 0; l->seen && i < l->v->kept.count; i++)
        free(l->seen[i].bits);
    free(l->seen);
    block_reader_free(l->reader);
    pool_close(&l->pool);
}

int verify_entries(struct verify *v, size_t at, struct err *e)
{
    struct lists l = {.v = v, .at = at};
    l.pool = (struct pool){.repository = v->p->kept.repository,
                           .source = v->p->kept.source,
                           .store_count = 1,
                           .at = {{v->p->kept.at[at].store, v->p->kept.at[at].listing}},
                           .damage = note_part,
                           .arg = &l};
    l.seen = mem_alloc(v->kept.count, sizeof *l.seen);
    int rc = l.seen || v->kept.count == 0 ? block_reader_new(&l.reader, e) : err_nomem(e);
    for (size_t i = v->kept.count; rc == 0 && i > 0 && !v->kept.gone[at]; i--) {
        struct kept_part *part = &v->kept.parts[i - 1];
        rc = verify_cancelled(v, e);
        if (rc == 0 && part->snapshot && kept_holds(part, at) && part->at[at].mark == PART_SNAP)
            rc = check_snapshot(&l, part, e);
    }
    lists_free(&l);
    return rc;
}
