/* Prune: what no kept snapshot lists leaves the workers. DESIGN 6.
 *
 * The source's lock is held, the listings are fresh, and the caller has decided which snapshots
 * stay (history.h). The steps, worker by worker:
 *   1. a listed .del becomes .pack again;
 *   2. a dropped .snap becomes .pack;
 *   3. what nothing lists becomes .del, its mtime set to the worker's now; but packs newer than the
 *      newest whole snapshot (a cut run's) serve the next run and stay for 7 days;
 *   4. a .del goes 24 h after that, or at once on a worker that is short of space;
 *   5. leftovers of this source's uploads in tmp/ go after 24 h.
 * Cut between any two steps, each .snap still has all its parts: what is removed is unlisted, and
 * was so before the first removal. A reader that follows a part finds it under .snap, .pack or .del
 * for a day after it was dropped. */
#ifndef SYNCD_RESTORE_PRUNE_H
#define SYNCD_RESTORE_PRUNE_H

#include "restore/history.h"

#define PRUNE_GRACE_US (INT64_C(86400) * 1000000) /* of a .del and of what lies in tmp/ */
#define PRUNE_PACKS_US (7 * PRUNE_GRACE_US)       /* of packs that a cut run left */

struct prune_params {
    const struct kept_params *kept; /* its stores, listings, cancel and `arg`; keep is not asked */
    const struct history *history;  /* with the decisions */
    bool dry_run;                   /* only count */
    struct {
        bool skip;      /* nothing is done there */
        int64_t now_us; /* by its own clock */
        bool tight;     /* short of space: a .del goes at once */
    } at[POOL_STORES_MAX];
    /* Before each change: may it be made (fencing)? An error ends the work on this worker. May be
     * NULL. */
    int (*may_change)(void *arg, struct store *s, struct err *e);
    /* The worker holds nothing of this part any more. May be NULL. */
    void (*removed)(void *arg, const struct store *s, const struct part_ref *ref);
};

/* Of a dry run: what would be. */
struct prune_worker_result {
    uint64_t rescued;                /* .del that are listed: back to .pack */
    uint64_t dropped;                /* .snap that are none any more */
    uint64_t marked, marked_bytes;   /* became .del */
    uint64_t removed, removed_bytes; /* gone */
    uint64_t leftovers;              /* gone from tmp/ */
    uint64_t unread;                 /* stay because a kept snapshot cannot be read */
    struct err err;                  /* what ended the work on it; code 0: nothing did */
};

struct prune_result {
    struct prune_worker_result workers[POOL_STORES_MAX]; /* in the order of kept->at */
};

/* 0 when it went to its end; what failed on a worker is in its result. Else ERR_CANCELLED,
 * ERR_NOMEM, or the error of the worker whose connection broke while the kept snapshots were read:
 * then nothing was changed. Blocks as the stores do. */
int prune_source(const struct prune_params *p, struct prune_result *ret, struct err *e);

#endif
