/* Content by its chunks, from the parts of one snapshot on all workers, for restoring many files:
 * the chunk list of a part is read once and kept in a temporary file, not in memory; blocks that
 * follow each other are read together, and the last few stay unpacked, since neighbours in a tree
 * are neighbours in a part. The content of a large dump, whose chunks alternate between many parts,
 * is gathered a few MiB at a time, so that a block is read once for all that it gives to them. Each
 * block comes from whoever has it whole. One thread; blocks as the stores do. Memory: 5 MiB, and 3
 * for gathering. */
#ifndef SYNCD_RESTORE_CHUNK_SOURCE_H
#define SYNCD_RESTORE_CHUNK_SOURCE_H

#include <stdatomic.h>

#include "snapshot/pool.h"
#include "snapshot/run_list.h"

struct chunk_source;
struct err;

struct chunk_source_options {
    struct pool *pool;
    const struct snapshot *snapshot; /* must outlive the source, as the pool must */
    const char *dir;                 /* for a temporary file; NULL: in memory */
    /* Give zeros for what no worker has whole: `take` gets NULL for it. What it cannot give is a
     * part whose chunk list is lost, since the lengths are in there. */
    bool salvage;
    bool check_ids; /* each chunk must be what its name says; blocks are checked in any case */
    const atomic_bool *cancel; /* may be NULL */
};

int chunk_source_new(const struct chunk_source_options *o, struct chunk_source **ret,
                     struct err *e);
void chunk_source_free(struct chunk_source *c); /* NULL is fine */

/* Gives the content of the runs in order, in pieces; an answer other than 0 of `take` ends it.
 * Before a chunk is fetched `have` (may be NULL) is asked whether the caller has it: 1 with *ret
 * its bytes, which are given to `take` instead; 0: no; anything else ends it. ERR_DAMAGED: no
 * worker has a chunk whole, or a run leads nowhere; ERR_CANCELLED; the stores'. */
typedef int chunk_source_fn(void *arg, const uint8_t *p, size_t n, struct err *e);
typedef int chunk_have_fn(void *arg, const uint8_t *id, size_t n, const uint8_t **ret,
                          struct err *e);
int chunk_source_read(struct chunk_source *c, const struct run_list *runs, chunk_have_fn *have,
                      chunk_source_fn *take, void *arg, struct err *e);

/* Stored bytes that were read from the workers as blocks so far. */
uint64_t chunk_source_fetched(const struct chunk_source *c);

#endif
