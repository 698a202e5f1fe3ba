/* Keeping the copies of a source whole, as backup, sync and verify share it: what restore/ needs to
 * know of a session, and damage noted in the catalog. */
#ifndef SYNCD_UPKEEP_H
#define SYNCD_UPKEEP_H

#include "restore/sync.h"
#include "restore/verify.h"

struct err;
struct lock;
struct progress;
struct report;
struct session;

struct upkeep {
    struct session *s;
    struct report *report;
    const char *source;
    struct lock *lock; /* held; given to a waiting backup between two parts; NULL: none needed */
    struct progress *progress;
    const struct part_ref *fresh; /* the snapshot that this run has made (kept.h); or NULL */
    size_t session_index[POOL_STORES_MAX]; /* of each of the stores in kept_params.at */
};

/* How the catalog names a part: its name without the mark. */
void upkeep_stem(const struct part_ref *ref, char ret[static PART_NAME_SIZE]);

/* Callbacks for others: `arg` must begin with a struct upkeep. */
bool upkeep_is_damaged(void *arg, const struct store *s, const struct part_ref *ref);
void upkeep_damaged(void *arg, const struct store *s, const struct part_ref *ref,
                    const struct err *e);

/* The connected workers of the session with their listings. */
void upkeep_kept(struct upkeep *u, struct kept_params *ret);

/* Lists anew and syncs the source; results are by the session's workers, and to be given to
 * upkeep_sync_free. What failed on a worker is in its result. */
struct upkeep_sync {
    struct sync_result result;
    struct sync_worker_result *workers[POOL_STORES_MAX]; /* by the session's; NULL: not there */
};
int upkeep_sync(struct upkeep *u, struct upkeep_sync *ret, struct err *e);
void upkeep_sync_free(struct upkeep_sync *r);

#endif
