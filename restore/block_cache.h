/* Blocks of the parts of one source, read as they are asked for, each from whoever has it whole:
 * the last used ones stay unpacked, and where blocks of a part are asked for in their order several
 * are read at once. One thread; blocks as the stores do.
 *
 * Memory: limit_bytes of unpacked blocks, 1 MiB for each stream (made when needed), a reader. */
#ifndef SYNCD_RESTORE_BLOCK_CACHE_H
#define SYNCD_RESTORE_BLOCK_CACHE_H

#include "snapshot/pool.h"

struct block_cache;
struct err;

#define BLOCK_CACHE_STREAMS_MAX 4

/* The pool is borrowed, with its listings. At least the block given last is kept, whatever the
 * limit. `streams`: at how many places blocks are read in order at the same time. *ret is the
 * caller's, to be freed before the pool is closed. */
int block_cache_new(struct pool *pool, size_t limit_bytes, size_t streams, struct block_cache **ret,
                    struct err *e);
void block_cache_free(struct block_cache *c); /* NULL is fine */

/* The unpacked bytes of a block (block->raw_bytes) of the part, its digest checked; *ret_raw stays
 * good until the next call. What was found damaged on a worker is told to the pool, and the other
 * worker is asked. The error is that of the worker asked last: ERR_DAMAGED, ERR_NOT_FOUND, the
 * stores'; a block that nobody has whole is not sought again while it is remembered. */
int block_cache_get(struct block_cache *c, const struct part_ref *part,
                    const struct part_block *block, const uint8_t **ret_raw, struct err *e);

struct block_cache_counts {
    uint64_t blocks, stored_bytes; /* unpacked, and read from the workers for it */
    size_t held_bytes;             /* now */
};
struct block_cache_counts block_cache_counts(const struct block_cache *c);

#endif
