/* Keeping the copies of a source whole, as backup, sync, verify and prune share it: what restore/
 * needs to know of a session, what retention keeps, and damage noted in the catalog. */
#ifndef SYNCD_UPKEEP_H
#define SYNCD_UPKEEP_H

#include "restore/prune.h"
#include "restore/sync.h"
#include "restore/verify.h"

#define UPKEEP_CLOCKS_US (INT64_C(86400) * 1000000) /* further apart: nothing is pruned */

struct err;
struct keeping;
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
    bool lists_damage;                     /* the command says what is damaged: no log lines */
    bool decided;                          /* upkeep_decide has been here */
    struct history history;
    struct keeping *keeping;                /* as the history's snapshots */
    int64_t leads_seen_us[POOL_STORES_MAX]; /* by the session's: when it was last known to be us */
};

/* How the catalog names a part: its name without the mark. */
void upkeep_stem(const struct part_ref *ref, char ret[static PART_NAME_SIZE]);

/* What upkeep_decide and the others have gathered. */
void upkeep_free(struct upkeep *u);

/* Callbacks for others: `arg` must begin with a struct upkeep. */
bool upkeep_is_damaged(void *arg, const struct store *s, const struct part_ref *ref);
void upkeep_damaged(void *arg, const struct store *s, const struct part_ref *ref,
                    const struct err *e);

/* The session's worker is short of space: not even one more part would fit above min_free. */
bool upkeep_is_tight(const struct upkeep *u, size_t worker);

/* Reads the history from the session's listings and decides what retention keeps. To be done again
 * after each session_list. Errors: those of history_read; ERR_CONFIG when the config does not name
 * the source. */
int upkeep_decide(struct upkeep *u, struct err *e);

/* The connected workers of the session with their listings; once decided, only what is wanted. */
void upkeep_kept(struct upkeep *u, struct kept_params *ret);

/* Lists anew and syncs the source; results are by the session's workers, and to be given to
 * upkeep_sync_free. What failed on a worker is in its result. */
struct upkeep_sync {
    struct sync_result result;
    struct sync_worker_result *workers[POOL_STORES_MAX]; /* by the session's; NULL: not there */
};
int upkeep_sync(struct upkeep *u, struct upkeep_sync *ret, struct err *e);
/* The error for snapshots of a newer syncd's format; `what` became of them. */
int upkeep_newer(const char *source, uint64_t count, const char *what, struct err *e);

void upkeep_sync_free(struct upkeep_sync *r);

/* Lets go what upkeep_decide has not kept: prune.h. Results are by the session's workers; what
 * failed, or forbade it, on a worker is in its result's err. The catalog forgets what is gone. */
struct upkeep_prune {
    struct prune_result result;
    struct prune_worker_result *workers[POOL_STORES_MAX]; /* NULL: not there */
};
int upkeep_prune(struct upkeep *u, bool dry_run, struct upkeep_prune *ret, struct err *e);

/* Prunes the source, with fresh listings, because a worker is short of space. True when something
 * was removed on such a worker: then it is worth another try (with fresh listings). */
bool upkeep_make_room(struct upkeep *u);

#endif
