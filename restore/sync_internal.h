/* Shared by sync.c (what is to be done) and sync_copy.c (one part). */
#ifndef SYNCD_RESTORE_SYNC_INTERNAL_H
#define SYNCD_RESTORE_SYNC_INTERNAL_H

#include "restore/sync.h"

struct sync {
    const struct sync_params *p;
    struct sync_result *result;
    struct kept kept;
    bool stopped[POOL_STORES_MAX]; /* as a target */
    bool found_damage;             /* in this round, on a copy that was read */
};

/* Store `at` of this sync, and the part's path in it under a mark. */
struct store *sync_store(const struct sync *s, size_t at);
struct sync_path {
    char s[SOURCE_NAME_SIZE + 1 + PART_NAME_SIZE];
};
struct sync_path sync_path(const struct sync *s, const struct part_ref *ref, enum part_mark mark);

/* A worker's error. `stop`: nothing more is done to it. When the connection is lost it is not read
 * from either, whatever `stop` says. */
void sync_book_error(struct sync *s, size_t at, const struct err *why, bool stop);

bool sync_is_cancelled(const struct sync *s);
int sync_cancelled(const struct sync *s, struct err *e); /* the error that says so */

int sync_may_change(const struct sync *s, size_t at, uint64_t add_bytes, struct err *e);

/* sync_copy.c: brings a whole copy of the part to store `to`, which does not hold it, from the
 * other's and, where that is damaged, its own; or finds that its own is whole after all. Errors of
 * a worker are booked on it; the answer is only an error that ends the sync. */
int sync_copy(struct sync *s, struct kept_part *part, size_t to, struct err *e);

/* sync_copy.c: removes what lies on store `at` under other marks than the copy that counts, after
 * that one was read and found whole. */
int sync_remove_others(struct sync *s, struct kept_part *part, size_t at, struct err *e);

#endif
