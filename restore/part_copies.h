/* One part, read whole from its copies on one or two workers, every byte checked: the metadata
 * against the id, each block against its digest, header and trailer against what they must be.
 * Each block comes from the first copy that has it whole, so that two copies that are damaged in
 * different places still make a good one. Blocks as the stores do; one thread. Memory: the part's
 * metadata and 1 MiB, and 1 MiB more to look at the content. */
#ifndef SYNCD_RESTORE_PART_COPIES_H
#define SYNCD_RESTORE_PART_COPIES_H

#include <stdatomic.h>

#include "snapshot/part.h"

struct err;
struct repository;
struct store;

#define PART_COPIES_MAX 2

struct part_copies_options {
    const struct repository *repository;
    const char *source;
    struct part_ref ref; /* size_bytes: the right one, which each copy given here has */
    size_t count;
    struct {
        struct store *store;
        enum part_mark mark;   /* tried first; prune may have renamed the file since */
    } copies[PART_COPIES_MAX]; /* the one to be preferred first */
    bool content; /* also unpack each block and compare what is in it with the part's list */
    bool go_on; /* look for further damage after a block that no copy has; ERR_DAMAGED comes last */
    /* Told of each damage that is met: which copy, and the offset of the block (0: the header, -1:
     * the metadata or the whole file). May be NULL. */
    void (*damaged)(void *arg, size_t copy, int64_t block, const struct err *e);
    void *arg;
    const atomic_bool *cancel; /* may be NULL */
};

struct part_copies;

/* Opens the copies and reads the metadata from the first that has it whole. ERR_DAMAGED and the
 * like when none has (damage_is); then `damaged` has been told. Errors of another kind, of a copy
 * that is needed, name its place in *ret_copy (which is `count` otherwise; may be NULL).
 * *ret is the caller's, to be given to part_copies_close. */
int part_copies_open(const struct part_copies_options *o, struct part_copies **ret,
                     size_t *ret_copy, struct err *e);
void part_copies_close(struct part_copies *c); /* NULL is fine */

/* The checked metadata; lives as long as c. */
const struct part_meta *part_copies_meta(const struct part_copies *c);

/* Gives all bytes of the part, in order and checked, in pieces of at most 1 MiB (metadata: as it
 * is). `take` may be NULL: only check. An error of `take` ends it and is returned as it is. 0 says
 * that the bytes given are the part; a copy may still have been told of as damaged, if only in its
 * header, which the metadata repeats. ERR_DAMAGED: a block that no copy has whole. Others as above.
 */
typedef int part_bytes_fn(void *arg, const uint8_t *p, size_t n, struct err *e);
int part_copies_read(struct part_copies *c, part_bytes_fn *take, void *arg, size_t *ret_copy,
                     struct err *e);

#endif
