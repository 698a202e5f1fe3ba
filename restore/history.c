#include "restore/history.h"

#include <string.h>

#include "syncd/base/clock.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

void history_free(struct history *h)
{
    free(h->snapshots);
    *h = (struct history){0};
}

static int compare_refs(const struct part_ref *a, const struct part_ref *b)
{
    int order = part_order(a, b);
    if (order == 0)
        order = memcmp(a->id, b->id, DIGEST_SIZE);
    return order ? order : (a->time_s > b->time_s) - (a->time_s < b->time_s);
}

static int compare_snapshots(const void *x, const void *y)
{
    const struct history_snapshot *a = x, *b = y;
    return compare_refs(&a->ref, &b->ref);
}

const struct history_snapshot *history_find(const struct history *h, const struct part_ref *ref)
{
    struct history_snapshot key = {.ref = *ref};
    return h->count ? bsearch(&key, h->snapshots, h->count, sizeof key, compare_snapshots) : NULL;
}

/* ---- what the listings show ---- */

static int add_snapshot(struct history *h, const struct listed_part *part, size_t at, struct err *e)
{
    if (mem_grow(&h->snapshots, &h->cap, h->count + 1, sizeof *h->snapshots))
        return err_nomem(e);
    struct history_snapshot *s = &h->snapshots[h->count++];
    *s = (struct history_snapshot){.ref = part->ref};
    s->ref.size_bytes = 0;
    s->as_of_us = s->taken_us = part->ref.time_s * US_PER_S;
    s->at[at].there = true;
    s->at[at].mtime_us = part->mtime_us;
    return 0;
}

/* Both workers' rows of one snapshot become one. */
static void merge(struct history *h)
{
    size_t n = 0;
    if (h->count)
        qsort(h->snapshots, h->count, sizeof *h->snapshots, compare_snapshots);
    for (size_t i = 0; i < h->count; i++) {
        if (n == 0 || compare_snapshots(&h->snapshots[n - 1], &h->snapshots[i]) != 0) {
            h->snapshots[n++] = h->snapshots[i];
            continue;
        }
        for (size_t at = 0; at < POOL_STORES_MAX; at++)
            if (h->snapshots[i].at[at].there)
                h->snapshots[n - 1].at[at] = h->snapshots[i].at[at];
    }
    h->count = n;
}

static int add_listings(struct history *h, const struct kept_params *p, struct err *e)
{
    int rc = 0;
    for (size_t at = 0; at < p->store_count; at++) {
        const struct listing *l = p->at[at].listing;
        for (size_t i = 0; rc == 0 && i < l->count; i++)
            if (l->parts[i].mark == PART_SNAP)
                rc = add_snapshot(h, &l->parts[i], at, e);
    }
    merge(h);
    return rc;
}

/* ---- what their metadata says ---- */

struct reading {
    const struct kept_params *p;
    struct pool pool;
    bool *bad[POOL_STORES_MAX]; /* per listed file: not to be counted on */
};

/* Asked once per file, not once per snapshot that lists it. */
static int note_bad(struct reading *r, struct err *e)
{
    for (size_t at = 0; at < r->p->store_count; at++) {
        const struct listing *l = r->p->at[at].listing;
        r->bad[at] = mem_alloc(l->count ? l->count : 1, sizeof **r->bad);
        if (!r->bad[at])
            return err_nomem(e);
        for (size_t i = 0; i < l->count; i++)
            r->bad[at][i] = l->parts[i].mark == PART_BAD ||
                            (r->p->is_damaged &&
                             r->p->is_damaged(r->p->arg, r->p->at[at].store, &l->parts[i].ref));
    }
    return 0;
}

static bool holds(const struct reading *r, size_t at, const struct part_ref *ref)
{
    const struct listing *l = r->p->at[at].listing;
    const struct listed_part *first = listing_find(l, ref), *c = first;
    for (; c && c < l->parts + l->count && part_same(&c->ref, ref); c++)
        if (!r->bad[at][c - l->parts] && c->ref.size_bytes == ref->size_bytes)
            return true;
    return false;
}

static bool holds_all(const struct reading *r, size_t at, const struct snapshot *s)
{
    for (size_t i = 0; i < s->part_count; i++)
        if (!holds(r, at, &s->parts[i]))
            return false;
    return true;
}

static int lost_worker(const struct reading *r, struct err *e)
{
    for (size_t at = 0; at < r->p->store_count; at++)
        if (r->pool.gone[at])
            return err_set(e, ERR_CONNECT, r->p->at[at].store->name,
                           "the connection to %s was lost", r->p->at[at].store->name);
    return 0;
}

static int read_one(struct reading *r, struct history_snapshot *h, struct err *e)
{
    OWN_SNAPSHOT struct snapshot s = {0};
    struct err own = ERR_INIT;
    int rc = pool_snapshot(&r->pool, &h->ref, &s, &own);
    if (rc == ERR_NOMEM || rc == ERR_CANCELLED) {
        *e = own;
        return rc;
    }
    if (lost_worker(r, e))
        return ERR_CONNECT;
    h->newer = rc == ERR_VERSION;
    if (rc)
        return 0; /* not readable */
    h->readable = true;
    h->complete = s.section.complete;
    h->as_of_us = s.section.as_of_us;
    h->taken_us = h->complete ? h->as_of_us : s.header.time_us;
    for (size_t at = 0; at < r->p->store_count; at++)
        h->at[at].whole = h->at[at].there && holds_all(r, at, &s);
    return 0;
}

int history_read(const struct kept_params *p, struct history *ret, struct err *e)
{
    struct reading r = {
        .p = p,
        .pool = {.repository = p->repository, .source = p->source, .store_count = p->store_count}};
    *ret = (struct history){0};
    for (size_t i = 0; i < p->store_count; i++) {
        r.pool.at[i].store = p->at[i].store;
        r.pool.at[i].listing = p->at[i].listing;
    }
    int rc = add_listings(ret, p, e);
    if (rc == 0)
        rc = note_bad(&r, e);
    for (size_t i = 0; rc == 0 && i < ret->count; i++) {
        if (p->cancel && atomic_load(p->cancel))
            rc = err_set(e, ERR_CANCELLED, p->source, "stopped");
        else
            rc = read_one(&r, &ret->snapshots[i], e);
    }
    pool_close(&r.pool);
    for (size_t at = 0; at < POOL_STORES_MAX; at++)
        free(r.bad[at]);
    return rc;
}
