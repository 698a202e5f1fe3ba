/* Keeping the list of parts short (DESIGN 5: a list of parts, newest wins). */
#include <string.h>

#include "snapshot/plan_claims.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

/* Less than one in so many of a part's bytes still in use: it is mostly dead weight. Simulated over
 * 31 days of 15-minute snapshots, 66 of 21,362 pages each: the parts listed at the end hold 1.7
 * times the database instead of 3.4, at most 2.4 instead of 4.6, for 13 % more pages shipped. */
#define DEAD_WEIGHT_SHARE 3

struct counting {
    struct plan_claims claims;
    size_t part_count;
    struct live {
        size_t index;   /* in the list */
        uint64_t bytes; /* still in use */
        uint64_t held;  /* all that it holds */
        bool pinned;    /* holds what a carried-over entry needs */
    } * parts;
};

static void counting_free(struct counting *c)
{
    plan_claims_free(&c->claims);
    free(c->parts);
}

static int counting_begin(const struct plan *p, struct counting *c, struct err *e)
{
    c->parts = mem_alloc(p->listed_count, sizeof *c->parts);
    if (!c->parts)
        return err_nomem(e);
    c->part_count = p->listed_count;
    return plan_claims_begin(p, &c->claims, e);
}

/* What runs of entries and of the entry list refer to, in bytes: chunks in use, each as long as
 * the part's are on the average. */
static void count_runs(const struct plan *p, const struct part_file *f, struct live *live)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < f->meta->block_count; i++)
        if (f->meta->blocks[i].kind == BLOCK_CHUNKS)
            bytes += f->meta->blocks[i].raw_bytes;
    for (size_t i = 0; i < p->used_count; i++) {
        const struct plan_used *u = &p->used[i];
        if (u->epoch != f->ref.epoch || u->sequence != f->ref.sequence)
            continue;
        live->bytes += u->chunks * (bytes / MAX(f->meta->chunk_total, UINT64_C(1)));
        live->pinned |= u->pinned;
    }
}

/* Newest first, so that the first part that has a page is the one that it is in use from. */
static int count_live(struct plan *p, struct counting *c, size_t *ret_bad, struct err *e)
{
    for (size_t i = p->listed_count; i > 0; i--) {
        const struct part_file *f;
        *ret_bad = i - 1;
        int rc = plan_part(p, &p->listed[i - 1], &f, e);
        if (rc)
            return rc;
        struct live *live = &c->parts[i - 1];
        live->index = i - 1;
        count_runs(p, f, live);
        for (size_t k = 0; k < f->meta->block_count; k++) {
            const struct part_block *b = &f->meta->blocks[k];
            const struct entry *of = NULL;
            uint64_t pages = plan_claim(&c->claims, b, &of);
            live->held += b->raw_bytes;
            live->bytes += pages << b->page_shift;
            live->pinned |= pages > 0 && of->carried;
        }
    }
    return 0;
}

static int fewest_first(const void *x, const void *y)
{
    const struct live *a = x, *b = y;
    if (a->pinned != b->pinned)
        return a->pinned ? 1 : -1;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

static bool is_dead_weight(const struct live *x)
{
    return !x->pinned && x->bytes < x->held / DEAD_WEIGHT_SHARE;
}

/* Those that hold the least for what they weigh come first. */
static int deadest_first(const void *x, const void *y)
{
    const struct live *a = x, *b = y;
    double left = (double)a->bytes / (double)MAX(a->held, UINT64_C(1));
    double right = (double)b->bytes / (double)MAX(b->held, UINT64_C(1));
    if (left < right || left > right)
        return left < right ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

static int compare_refs(const void *a, const void *b)
{
    return part_order(a, b);
}

static void leave_off_one(struct plan *p, const struct live *x)
{
    p->left_off[p->left_off_count++] = p->listed[x->index];
    memset(&p->listed[x->index], 0, sizeof *p->listed);
}

/* Beside the ones with the fewest pages those that are mostly dead weight: a restore has to read
 * them whole for the little that is in use. They cost the run at most what the others once did. */
static void leave_off_parts(struct plan *p, struct counting *c)
{
    uint64_t bytes = 0;
    size_t n = 0;
    qsort(c->parts, c->part_count, sizeof *c->parts, fewest_first);
    for (; n < MIN(c->part_count, (size_t)PLAN_DROP) && !c->parts[n].pinned; n++) {
        bytes += c->parts[n].held;
        leave_off_one(p, &c->parts[n]);
    }
    qsort(c->parts + n, c->part_count - n, sizeof *c->parts, deadest_first);
    for (; n < c->part_count; n++) {
        const struct live *x = &c->parts[n];
        if (!is_dead_weight(x) || x->bytes > bytes)
            continue;
        bytes -= x->bytes;
        leave_off_one(p, x);
    }
}

static int leave_off(struct plan *p, struct counting *c, struct err *e)
{
    size_t kept = 0;
    free(p->left_off);
    p->left_off_count = 0;
    p->left_off = mem_alloc(c->part_count, sizeof *p->left_off);
    if (!p->left_off)
        return err_nomem(e);
    leave_off_parts(p, c);
    qsort(p->left_off, p->left_off_count, sizeof *p->left_off, compare_refs);
    for (size_t i = 0; i < p->listed_count; i++)
        if (p->listed[i].size_bytes)
            p->listed[kept++] = p->listed[i];
    p->listed_count = kept;
    p->as_parent = false;
    p->consolidates = true;
    return 0;
}

/* 128, or 64 plus twice the parts that a full pass fills if that is more. */
static size_t longest_list(const struct plan *p)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < p->listed_count; i++)
        bytes += p->listed[i].size_bytes;
    size_t full = (size_t)(bytes / PART_TARGET_BYTES) + 1;
    return MAX((size_t)PLAN_LISTED_MAX, PLAN_DROP + 2 * full);
}

int plan_consolidate(struct plan *p, size_t *ret_bad, struct err *e)
{
    if (p->o.keep_list || p->listed_count + 1 <= longest_list(p))
        return 0;
    struct counting c = {0};
    int rc = counting_begin(p, &c, e);
    if (rc == 0)
        rc = count_live(p, &c, ret_bad, e);
    if (rc == 0)
        rc = leave_off(p, &c, e);
    counting_free(&c);
    return rc;
}
