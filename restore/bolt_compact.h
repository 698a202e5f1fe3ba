/* Writing what a bolt database holds into a new file, without its free pages: buckets with their
 * sequences, keys, values, in order, pages nine tenths full, so that the owner's next commits need
 * not split them at once. bbolt opens it; its freelist is empty.
 *
 * What is read is not trusted: buckets that lead to themselves or share their pages end it with
 * ERR_DAMAGED, once more than the database can hold has been written. Memory: a page or two for
 * each level of each bucket that the one in hand lies in. */
#ifndef SYNCD_RESTORE_BOLT_COMPACT_H
#define SYNCD_RESTORE_BOLT_COMPACT_H

#include "snapshot/bolt_file.h"

struct err;

#define BOLT_COMPACT_NESTED_MAX 256 /* buckets, one in another */

struct bolt_compact {
    struct bolt_reader *from;
    const struct bolt_meta *meta; /* the state that is read */
    int fd;                       /* empty; written with pwrite from its start */
    const char *name;             /* of that file, for messages */
    /* Asked now and then; an answer other than 0 ends it. May be NULL. */
    int (*look)(void *arg, struct err *e);
    void *arg;
};

/* The size of the new file; not yet fsynced. ERR_DAMAGED, ERR_NO_SPACE, ERR_IO, what `look` says.
 * On failure the file is of no use. */
int bolt_compact(const struct bolt_compact *c, uint64_t *ret_bytes, struct err *e);

#endif
