/* Which keys differ between two states of a bolt database: added, removed, changed, by bucket.
 * Both are read once, side by side. Buckets that lead to themselves or share their pages end it
 * with ERR_DAMAGED, once more items were seen than the databases can hold. */
#ifndef SYNCD_RESTORE_BOLT_DIFF_H
#define SYNCD_RESTORE_BOLT_DIFF_H

#include "snapshot/bolt_file.h"

struct buf;
struct err;

#define BOLT_DIFF_NESTED_MAX 256 /* buckets, one in another */

enum bucket_change { BUCKET_BOTH, BUCKET_ADDED, BUCKET_REMOVED };

struct bucket_diff {
    size_t depth; /* how many names lead to it */
    const struct buf *path;
    enum bucket_change change;
    /* Keys of its own, not those of buckets in it. A key that was a bucket before, or is one now,
     * counts as removed or added. */
    uint64_t added, removed, changed;
};

struct bolt_diff {
    struct bolt_reader *before, *after;
    const struct bolt_meta *before_meta, *after_meta;
    const char *name; /* of the database, for messages */
    /* Each bucket with a difference, and each that came or went, after those in it; valid during
     * the call. */
    int (*bucket)(void *arg, const struct bucket_diff *b, struct err *e);
    int (*look)(void *arg, struct err *e); /* asked now and then; another answer than 0 ends it */
    void *arg;
};

int bolt_diff(const struct bolt_diff *d, struct err *e);

#endif
