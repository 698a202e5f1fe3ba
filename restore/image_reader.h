/* Reading a stored database image at any place, without restoring it: of each page that is asked
 * for the newest listed part that holds it is found by the parts' lists, and only its block is
 * fetched and checked (block_cache.h).
 *
 * The lists are read newest part first, and no further than the pages asked for need. Memory: four
 * bytes a page and about 80 for each block that holds pages which count, together at most
 * map_limit_bytes, besides one part's list while it is read. One thread. */
#ifndef SYNCD_RESTORE_IMAGE_READER_H
#define SYNCD_RESTORE_IMAGE_READER_H

#include "restore/block_cache.h"
#include "snapshot/entry.h"

struct err;
struct image_reader;

struct image_reader_params {
    struct pool *pool;
    struct block_cache *blocks; /* of the same pool; readers may share it */
    const struct snapshot *snapshot;
    const struct entry *entry; /* of type ENTRY_IMAGE; only its image and path are used */
    size_t map_limit_bytes;
};

/* Borrows everything in p. Reads nothing yet. ERR_LIMIT: the image has more pages than the limit
 * has room for. */
int image_reader_open(const struct image_reader_params *p, struct image_reader **ret,
                      struct err *e);
void image_reader_close(struct image_reader *r); /* NULL is fine */
void image_reader_closep(struct image_reader **r);
#define OWN_IMAGE_READER __attribute__((cleanup(image_reader_closep)))

uint64_t image_reader_size(const struct image_reader *r); /* in bytes */

/* Reads n bytes at `offset`, all within the image. SQLite's lock page is zeros. ERR_DAMAGED: no
 * worker has a part's list, or a block, whole, or no part holds a page; ERR_LIMIT; ERR_CANCELLED;
 * the stores'. Blocks as they do. */
int image_reader_read(struct image_reader *r, uint64_t offset, void *p, size_t n, struct err *e);

/* How many of the snapshot's parts had their lists read so far. */
size_t image_reader_parts_read(const struct image_reader *r);

#endif
