/* Are the copies of one source whole, on each worker by itself? DESIGN 8, CONTRACT `verify`.
 *
 * Always: every wanted part (kept.h) is there with its size, its metadata matches its id, and the
 * entry list of every snapshot can be read. With read_percent also the blocks: of each worker that
 * share of the bytes, longest unread first, every block against its digest. Nothing is changed. */
#ifndef SYNCD_RESTORE_VERIFY_H
#define SYNCD_RESTORE_VERIFY_H

#include "restore/damage.h"
#include "restore/kept.h"
#include "syncd/base/err.h"

struct verify_params {
    /* Its `arg` is that of the functions below, too. A copy that is_damaged names is read whole
     * whatever the share; `mended` is called when nothing is wrong with it after all. */
    struct kept_params kept;
    unsigned read_percent; /* 0: metadata only; to 100 */
    /* When the worker's copy was last read whole, microseconds, 0: never; and that it was now. Any
     * may be NULL. */
    int64_t (*verified_at)(void *arg, const struct store *s, const struct part_ref *ref);
    void (*verified)(void *arg, const struct store *s, const struct part_ref *ref, int64_t now_us);
    /* What will be read of a worker's parts (once, before it begins), and what has been. */
    void (*total)(void *arg, const struct store *s, uint64_t bytes);
    void (*read)(void *arg, const struct store *s, uint64_t bytes);
};

struct verify_worker_result {
    uint64_t files;             /* that are right, as far as they were read */
    uint64_t snapshots;         /* that are whole here, as far as was looked */
    uint64_t bytes;             /* of parts that were read whole */
    uint64_t missing;           /* wanted parts that are not there */
    struct damage_list damaged; /* those that are there and bad */
    struct err err;             /* why the look at this worker ended early; code 0: it did not */
};

struct verify_result {
    uint64_t snapshots; /* wanted, on any worker */
    /* Wanted parts that some worker lacks or has damaged: sync can mend them, for the workers that
     * were looked at have every byte between them; or not. */
    uint64_t mendable, unmendable;
    uint64_t newer; /* snapshots of a newer syncd's format, which were not looked at */
    struct verify_worker_result workers[POOL_STORES_MAX]; /* in the order of kept.at */
};

/* 0 when it went to its end, whatever was found. Else ERR_CANCELLED, ERR_NOMEM, ERR_LIMIT, or the
 * store's error when no worker answers. *ret is filled in any case, and to be given to
 * verify_result_free. Blocks as the stores do, for as long as the reading takes. */
int verify_source(const struct verify_params *p, struct verify_result *ret, struct err *e);
void verify_result_free(struct verify_result *r);

#endif
