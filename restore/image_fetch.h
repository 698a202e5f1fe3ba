/* Rebuilding a database image from the listed parts, newest first: each needed block read once, its
 * digest checked, decompressed once, its pages written where their bit is still clear (DESIGN 7).
 * One thread reads from the workers, others check, decompress and write; one bit a page and a few
 * MiB of blocks are all the memory it takes. */
#ifndef SYNCD_RESTORE_IMAGE_FETCH_H
#define SYNCD_RESTORE_IMAGE_FETCH_H

#include <stdatomic.h>

#include "snapshot/entry.h"
#include "snapshot/pool.h"

struct err;

struct image_fetch {
    struct pool *pool;
    const struct snapshot *snapshot;
    const struct entry *entry; /* of type ENTRY_IMAGE */
    int fd;                    /* pages are written here, at their place; -1: only checked */
    /* A file that may have some of the pages already, at their places: those whose fingerprints say
     * so are copied and their blocks not fetched. Proven by the image sum like all others; when
     * that comes out wrong, everything is fetched. NULL: none. */
    const int *base_fd;
    bool salvage; /* go on without blocks that nobody has whole */
    void (*progress)(void *arg, uint64_t raw_bytes); /* from this thread; may be NULL */
    void *arg;
    const atomic_bool *cancel; /* may be NULL */
};

struct page_range {
    uint64_t first, count;
};

struct image_fetched {
    uint64_t stored_bytes; /* read from the workers as blocks */
    uint64_t copied_pages; /* found in the base file */
    /* Salvage: what is lost. Pages that nobody has whole are zeros; older_pages of them hold an
     * older state, since a part that nobody can read may have had a newer one. */
    uint64_t missing_pages, older_pages;
    size_t missing_count; /* the first ranges of them */
    struct page_range missing[32];
    /* Of restore_run: what a database's check said when it failed or could not be made, or "". */
    bool check_failed;
    char note[512];
};

/* 0: every page is there and the image sum is right (with salvage: missing_pages is 0 only then).
 * ERR_DAMAGED names what no worker has whole, or a sum that is wrong; ERR_NO_SPACE and ERR_IO of
 * the file; ERR_CANCELLED; the stores' errors. Blocks as long as the workers need. */
int image_fetch(const struct image_fetch *f, struct image_fetched *ret, struct err *e);

/* The sum of an image that lies in a file, to see whether it is the same: 0, or ERR_CHANGED when
 * the file's size or sum differ. */
int image_compare(int fd, const struct repository *repo, const struct entry_image *image,
                  struct err *e);

#endif
