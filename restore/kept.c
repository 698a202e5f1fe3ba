#include "restore/kept.h"

#include <inttypes.h>
#include <string.h>

#include "syncd/base/mem.h"
#include "transport/store.h"

/* Beyond what the listings show: parts that snapshots list and nobody has. A worker that makes
 * snapshots up must not take all memory. */
#define LOST_PARTS_MAX 1000000u

void kept_free(struct kept *k)
{
    free(k->parts);
    for (size_t i = 0; i < POOL_STORES_MAX; i++)
        damage_list_free(&k->damaged[i]);
    *k = (struct kept){0};
}

static int compare_refs(const struct part_ref *a, const struct part_ref *b)
{
    int order = part_order(a, b);
    if (order == 0)
        order = memcmp(a->id, b->id, DIGEST_SIZE);
    return order ? order : (a->time_s > b->time_s) - (a->time_s < b->time_s);
}

static int compare_parts(const void *x, const void *y)
{
    const struct kept_part *a = x, *b = y;
    return compare_refs(&a->ref, &b->ref);
}

struct kept_part *kept_find(const struct kept *k, const struct part_ref *ref)
{
    size_t low = 0, high = k->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_refs(&k->parts[middle].ref, ref);
        if (order == 0)
            return &k->parts[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

bool kept_has_copy(const struct kept_part *part, size_t at)
{
    const struct kept_copy *c = &part->at[at];
    return c->mark != PART_BAD && part->ref.size_bytes && c->size_bytes == part->ref.size_bytes;
}

bool kept_holds(const struct kept_part *part, size_t at)
{
    return kept_has_copy(part, at) && !part->at[at].damaged;
}

bool kept_holds_all(const struct kept *k, const struct snapshot_section *section, size_t at)
{
    for (size_t i = 0; i < section->listed_count; i++) {
        const struct kept_part *part = kept_find(k, &section->listed[i]);
        if (!part || !kept_holds(part, at) || part->ref.size_bytes != section->listed[i].size_bytes)
            return false;
    }
    return true;
}

size_t kept_lacking(const struct kept *k, size_t at)
{
    size_t n = 0;
    for (size_t i = 0; i < k->count; i++)
        n += k->parts[i].wanted && !kept_holds(&k->parts[i], at);
    return n;
}

/* ---- what the workers have ---- */

static int add_part(struct kept *k, const struct part_ref *ref, struct err *e)
{
    if (mem_grow(&k->parts, &k->cap, k->count + 1, sizeof *k->parts))
        return err_nomem(e);
    struct kept_part *part = &k->parts[k->count++];
    *part = (struct kept_part){.ref = *ref, .mtime_us = -1};
    part->ref.size_bytes = 0;
    for (size_t i = 0; i < POOL_STORES_MAX; i++)
        part->at[i].mark = PART_BAD;
    return 0;
}

static void sort_parts(struct kept *k)
{
    size_t unique = 0;
    if (k->count)
        qsort(k->parts, k->count, sizeof *k->parts, compare_parts);
    for (size_t i = 0; i < k->count; i++)
        if (unique == 0 || compare_parts(&k->parts[unique - 1], &k->parts[i]) != 0)
            k->parts[unique++] = k->parts[i];
    k->count = unique;
}

static int add_listings(struct kept *k, struct err *e)
{
    for (size_t s = 0; s < k->p->store_count; s++) {
        const struct listing *l = k->p->at[s].listing;
        for (size_t i = 0; i < l->count; i++)
            if (add_part(k, &l->parts[i].ref, e))
                return ERR_NOMEM;
    }
    sort_parts(k);
    return 0;
}

static bool is_fresh(const struct kept *k, const struct part_ref *ref)
{
    return k->p->fresh && part_same(k->p->fresh, ref);
}

/* Which of a worker's copies of the part counts: one with the right size, then by mark. */
static void choose_copy(const struct kept *k, struct kept_part *part, size_t at)
{
    const struct listing *l = k->p->at[at].listing;
    const struct listed_part *c = listing_find(l, &part->ref), *best = NULL;
    struct kept_copy *copy = &part->at[at];
    bool best_fits = false;
    copy->others = false;
    for (; c && c < l->parts + l->count && part_same(&c->ref, &part->ref); c++) {
        bool fits = part->ref.size_bytes && c->ref.size_bytes == part->ref.size_bytes;
        if (c->mark == PART_SNAP || is_fresh(k, &part->ref))
            part->mtime_us = MAX(part->mtime_us, c->mtime_us);
        bool better = c->mark != PART_BAD && (!best || (fits && !best_fits));
        copy->others |= best || c->mark == PART_BAD;
        if (better) {
            best = c;
            best_fits = fits;
        }
    }
    if (best) {
        copy->mark = best->mark;
        copy->size_bytes = best->ref.size_bytes;
        copy->mtime_us = best->mtime_us;
    }
    copy->damaged |=
        best && k->p->is_damaged && k->p->is_damaged(k->p->arg, k->p->at[at].store, &part->ref);
}

static void choose_copies(struct kept *k)
{
    for (size_t i = 0; i < k->count; i++)
        for (size_t at = 0; at < k->p->store_count; at++)
            choose_copy(k, &k->parts[i], at);
}

/* What an earlier run has found. */
static void note_known_damage(struct kept *k)
{
    for (size_t i = 0; k->p->is_damaged && i < k->count; i++)
        for (size_t at = 0; at < k->p->store_count; at++)
            k->parts[i].at[at].damaged |=
                k->parts[i].at[at].mark != PART_BAD &&
                k->p->is_damaged(k->p->arg, k->p->at[at].store, &k->parts[i].ref);
}

static bool is_snapshot_at(const struct listing *l, const struct part_ref *ref)
{
    const struct listed_part *c = listing_find(l, ref);
    for (; c && c < l->parts + l->count && part_same(&c->ref, ref); c++)
        if (c->mark == PART_SNAP)
            return true;
    return false;
}

static bool is_snapshot_somewhere(const struct kept *k, const struct part_ref *ref)
{
    for (size_t i = 0; i < k->p->store_count; i++)
        if (is_snapshot_at(k->p->at[i].listing, ref))
            return true;
    return is_fresh(k, ref);
}

/* ---- what the snapshots want ---- */

void kept_note_damage(struct kept *k, struct kept_part *part, size_t at, int64_t block,
                      const struct err *why)
{
    enum part_mark mark = part->at[at].mark;
    part->at[at].damaged = true;
    bool told = !damage_add(&k->damaged[at], k->p->source, &part->ref, mark, block, why);
    if (k->p->damaged && !told)
        k->p->damaged(k->p->arg, k->p->at[at].store, &part->ref, why);
}

void kept_note_mended(struct kept *k, struct kept_part *part, size_t at)
{
    part->at[at].damaged = false;
    damage_mend(&k->damaged[at], &part->ref);
    if (k->p->mended)
        k->p->mended(k->p->arg, k->p->at[at].store, &part->ref);
}

/* The pool's: a copy's metadata is not what it should be. */
static void note_metadata(void *arg, struct store *s, const struct part_ref *ref,
                          const struct err *e)
{
    struct kept *k = arg;
    struct kept_part *part = kept_find(k, ref);
    for (size_t i = 0; part && i < k->p->store_count; i++)
        if (k->p->at[i].store == s)
            kept_note_damage(k, part, i, DAMAGE_NO_BLOCK, e);
}

static void want(struct kept_part *part, const struct part_ref *listed)
{
    part->disputed |= part->wanted && part->ref.size_bytes != listed->size_bytes;
    part->wanted = true;
    part->ref.size_bytes = listed->size_bytes;
}

static int want_listed(struct kept *k, const struct snapshot *s, size_t *lost, struct err *e)
{
    size_t before = k->count;
    for (size_t i = 0; i < s->part_count; i++) {
        struct kept known = *k;
        known.count = before; /* what is added here is not sorted yet */
        struct kept_part *part = kept_find(&known, &s->parts[i]);
        if (part) {
            want(part, &s->parts[i]);
            continue;
        }
        if (++*lost > LOST_PARTS_MAX)
            return err_set(e, ERR_LIMIT, k->p->source,
                           "the snapshots of source %s list more than %u parts that no worker has",
                           k->p->source, LOST_PARTS_MAX);
        int rc = add_part(k, &s->parts[i], e);
        if (rc)
            return rc;
        want(&k->parts[k->count - 1], &s->parts[i]);
    }
    if (k->count > before)
        sort_parts(k);
    return 0;
}

static bool all_gone(const struct pool *pool)
{
    for (size_t i = 0; i < pool->store_count; i++)
        if (!pool->gone[i])
            return false;
    return true;
}

static int read_snapshot(struct kept *k, struct pool *pool, size_t index, size_t *lost,
                         struct err *e)
{
    OWN_SNAPSHOT struct snapshot s = {0};
    struct part_ref ref = k->parts[index].ref; /* size 0: each worker's own */
    ref.size_bytes = 0;
    int rc = pool_snapshot(pool, &ref, &s, e);
    k->snapshots++;
    k->parts[index].snapshot = true;
    if (rc == 0)
        return want_listed(k, &s, lost, e);
    if (rc == ERR_NOMEM || rc == ERR_CANCELLED || all_gone(pool))
        return rc;
    if (rc ==
        ERR_VERSION) { /* its id fits: nothing is wrong with it, and nobody here can judge it */
        k->newer++;
        k->parts[index].snapshot = false;
        return 0;
    }
    k->parts[index].unreadable = true;
    return 0;
}

static int read_snapshots(struct kept *k, struct pool *pool, struct err *e)
{
    size_t lost = 0;
    for (size_t i = 0; i < k->count; i++) {
        struct part_ref ref = k->parts[i].ref;
        if (k->p->cancel && atomic_load(k->p->cancel))
            return err_set(e, ERR_CANCELLED, k->p->source, "stopped");
        if (!is_snapshot_somewhere(k, &ref) || (k->p->keep && !k->p->keep(k->p->arg, &ref)))
            continue;
        int rc = read_snapshot(k, pool, i, &lost, e);
        if (rc)
            return rc;
        /* Parts that nobody has were put in before it: they are older than the snapshot. */
        while (i < k->count && compare_refs(&k->parts[i].ref, &ref) < 0)
            i++;
    }
    return 0;
}

/* Snapshots that give one part different sizes cannot both be right. The metadata, which the id
 * covers, tells. */
static int settle_size(struct pool *pool, struct kept_part *part, struct err *e)
{
    const struct part_file *f;
    part->ref.size_bytes = 0;
    int rc = pool_part(pool, &part->ref, &f, e);
    if (rc == 0)
        part->ref.size_bytes = f->ref.size_bytes;
    return rc == ERR_NOMEM || rc == ERR_CANCELLED ? rc : 0;
}

static int settle_parts(struct kept *k, struct pool *pool, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < k->count; i++) {
        k->parts[i].wanted |= k->parts[i].unreadable;
        if (k->parts[i].disputed)
            rc = settle_size(pool, &k->parts[i], e);
    }
    return rc;
}

static void note_sizes(struct kept *k)
{
    for (size_t i = 0; i < k->count; i++) {
        struct kept_part *part = &k->parts[i];
        for (size_t at = 0; part->wanted && at < k->p->store_count; at++) {
            struct err e = ERR_INIT;
            if (part->at[at].mark == PART_BAD || part->ref.size_bytes == 0 ||
                kept_has_copy(part, at))
                continue;
            err_set(&e, ERR_DAMAGED, k->p->at[at].store->name,
                    "a part on %s is %" PRIu64 " bytes long, not %" PRIu64,
                    k->p->at[at].store->name, part->at[at].size_bytes, part->ref.size_bytes);
            kept_note_damage(k, part, at, DAMAGE_NO_BLOCK, &e);
        }
    }
}

int kept_read(const struct kept_params *p, struct kept *ret, struct err *e)
{
    *ret = (struct kept){.p = p};
    struct pool pool = {.repository = p->repository,
                        .source = p->source,
                        .store_count = p->store_count,
                        .damage = note_metadata,
                        .arg = ret};
    for (size_t i = 0; i < p->store_count; i++) {
        pool.at[i].store = p->at[i].store;
        pool.at[i].listing = p->at[i].listing;
    }
    int rc = add_listings(ret, e);
    choose_copies(ret);
    if (rc == 0)
        rc = read_snapshots(ret, &pool, e);
    if (rc == 0)
        rc = settle_parts(ret, &pool, e);
    pool_close(&pool);
    for (size_t i = 0; i < p->store_count; i++) {
        ret->gone[i] = pool.gone[i];
        if (pool.gone[i])
            err_set(&ret->gone_err[i], ERR_CONNECT, p->at[i].store->name,
                    "the connection to %s was lost", p->at[i].store->name);
    }
    choose_copies(ret);
    note_known_damage(ret);
    if (rc == 0)
        note_sizes(ret);
    return rc;
}

/* Unwanted leftovers that are to go by the prune rules anyway do not count. */
static bool looks_equal(const struct kept_part *part)
{
    const struct kept_copy *a = &part->at[0], *b = &part->at[1];
    bool a_stays = a->mark == PART_SNAP || a->mark == PART_PACK;
    bool b_stays = b->mark == PART_SNAP || b->mark == PART_PACK;
    if (!a_stays && !b_stays)
        return true;
    return a->mark == b->mark && a->size_bytes == b->size_bytes && !a->others && !b->others &&
           !a->damaged && !b->damaged;
}

int kept_looks_equal(const struct kept_params *p, bool *ret_equal, struct err *e)
{
    OWN_KEPT struct kept k = {.p = p};
    int rc = add_listings(&k, e);
    if (rc)
        return rc;
    choose_copies(&k);
    note_known_damage(&k);
    bool equal = true;
    for (size_t i = 0; p->store_count == 2 && equal && i < k.count; i++)
        equal = looks_equal(&k.parts[i]);
    *ret_equal = equal;
    return 0;
}
