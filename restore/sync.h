/* Both workers get the same kept files of one source: what a worker missed while it was away, what
 * it lost, and a whole copy in place of a damaged one. DESIGN 6.
 *
 * The source's lock is held and the listings are fresh. Cut at any instant, even by a crash of
 * either side, it leaves nothing worse than before, and the next run goes on. */
#ifndef SYNCD_RESTORE_SYNC_H
#define SYNCD_RESTORE_SYNC_H

#include "restore/damage.h"
#include "restore/kept.h"
#include "syncd/base/err.h"

struct sync_params {
    struct kept_params kept; /* its `arg` is that of the functions below, too */
    /* Before anything is changed on a worker: may it be? `add_bytes` are about to be stored there
     * (0: a file gets its name, or goes). For fencing and min_free. An error ends the work on this
     * worker and becomes its result. May be NULL. */
    int (*may_change)(void *arg, struct store *s, uint64_t add_bytes, struct err *e);
    /* Between two parts, with nothing half done: the caller may give the source's lock to a backup
     * that waits, and take it again. An error ends the sync. May be NULL. */
    int (*turn)(void *arg, struct err *e);
    /* What there is to copy to a worker (once, before it begins), and what has been; may be NULL.
     */
    void (*total)(void *arg, const struct store *to, uint64_t files, uint64_t bytes);
    void (*copied)(void *arg, const struct store *to, uint64_t bytes);
};

struct sync_worker_result {
    uint64_t files, bytes;      /* copied to this worker */
    uint64_t mended;            /* of those, in place of a damaged or wrong-sized one */
    uint64_t renamed;           /* files that only got the mark that they should have */
    uint64_t removed;           /* leftovers of an earlier, cut healing */
    uint64_t lacking;           /* wanted files that it still does not hold: "behind" */
    bool has_fresh;             /* kept.fresh is a .snap there: it holds all that this one needs */
    struct damage_list damaged; /* found on this worker, mended or not */
    struct err err;             /* the first thing that failed on it; code 0: nothing did */
};

struct sync_result {
    uint64_t snapshots;  /* kept */
    uint64_t unreadable; /* of those, the ones whose metadata no worker has whole */
    uint64_t newer;      /* ... those of a newer syncd's format, which were left as they are */
    struct sync_worker_result workers[POOL_STORES_MAX]; /* in the order of kept.at */
};

/* 0 when it went to its end: what could not be done then is in the workers' results (lacking, err).
 * Else ERR_CANCELLED, ERR_NOMEM, ERR_LIMIT, the error of `turn`, or the store's when no worker
 * answers. *ret is filled in any case, and to be given to sync_result_free. Blocks as the stores
 * do, for as long as the copying takes. With one worker it only puts its marks in order and checks
 * again what is marked as damaged. */
int sync_source(const struct sync_params *p, struct sync_result *ret, struct err *e);
void sync_result_free(struct sync_result *r);

/* Every worker holds everything that is wanted, and nothing went wrong. */
bool sync_is_complete(const struct sync_result *r);

#endif
