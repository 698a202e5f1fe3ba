/* What the files of the fetch share: image_claim.c finds out what is wanted of a part,
 * image_fetch.c gets it. */
#ifndef SYNCD_RESTORE_IMAGE_FETCH_INTERNAL_H
#define SYNCD_RESTORE_IMAGE_FETCH_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "restore/image_fetch.h"
#include "restore/page_writer.h"
#include "snapshot/digest.h"
#include "snapshot/part.h"
#include "syncd/base/err.h"

#define FETCH_JOB_BYTES (1u << 20)
#define FETCH_JOBS 4
#define FETCH_THREADS_MAX 4
/* Parts whose blocks may be under way: while those of one are unpacked, the next one is opened. */
#define FETCH_PARTS 2

/* One page that the plan wants out of a block. */
struct claim {
    uint64_t page, fingerprint;
    uint32_t raw_offset;
};

/* A block that has pages which are wanted; what the part's metadata, closed by then, said of it. */
struct wanted {
    struct part_block block; /* its pointers lead nowhere; the digest is beside it */
    uint8_t digest[DIGEST_SIZE];
    size_t index; /* in the part */
    size_t first_claim, claim_count;
};

/* A part. Changed only while no job of it is under way. */
struct fetch_part {
    const struct part_ref *ref; /* NULL: none yet */
    char path[SOURCE_NAME_SIZE + 1 + PART_NAME_SIZE];
    size_t wanted_count, wanted_cap, claim_count, claim_cap;
    struct wanted *wanted;
    struct claim *claims;
    /* With the lock: */
    size_t jobs; /* under way */
    /* Blocks that failed on the worker that they were read from; read again elsewhere. */
    size_t failed_count, failed_cap;
    const struct wanted **failed;
};

/* Neighbouring wanted blocks, read together. */
struct job {
    enum { JOB_FREE, JOB_READY, JOB_WORKING } state;
    struct fetch_part *part;
    const struct wanted *wanted;
    size_t count;
    uint32_t bytes;
    uint8_t *data;
};

struct fetch {
    const struct image_fetch *o;
    struct image_fetched *result;
    struct page_writer writer;
    uint64_t page_seed, skip_page;
    uint8_t *bits; /* pages that a newer part has */
    uint8_t *lost; /* salvage: pages of blocks that nobody has whole, and doubtful ones */
    bool doubtful; /* salvage: a part newer than the one in hand could not be read */
    struct fetch_part parts[FETCH_PARTS]; /* in turn */

    pthread_mutex_t lock;
    pthread_cond_t work, done;
    bool stopping;
    struct err fatal;
    struct job jobs[FETCH_JOBS];
    unsigned thread_count;
    pthread_t threads[FETCH_THREADS_MAX];
    uint64_t sum, pages, done_bytes, told_bytes;

    uint8_t
        *copied; /* FETCH_JOB_BYTES of pages from the base file that wait to be written; or NULL */
    uint64_t copied_first;
    size_t copied_count;
};

/* Books pages that are in place. Any thread. */
void fetch_count(struct fetch *f, uint64_t sum, size_t pages);

/* Claims what is wanted of a part: into *p, in the order of the file. What the base file has is
 * copied from there instead. */
int fetch_claim(struct fetch *f, struct fetch_part *p, const struct part_meta *m, struct err *e);

static inline void fetch_set_bit(uint8_t *bits, uint64_t page)
{
    bits[page / 8] |= (uint8_t)(1u << (page % 8));
}

static inline bool fetch_has_bit(const uint8_t *bits, uint64_t page)
{
    return bits[page / 8] & (1u << (page % 8));
}

#endif
