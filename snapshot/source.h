/* What a source gets from the run that it is part of, and the consumer that every database image
 * goes through, whatever its kind. */
#ifndef SYNCD_SNAPSHOT_SOURCE_H
#define SYNCD_SNAPSHOT_SOURCE_H

#include <stdatomic.h>

#include "snapshot/entry.h"
#include "snapshot/fingerprints.h"
#include "snapshot/pipeline.h"
#include "snapshot/repository.h"

struct err;

struct source_run {
    struct pipeline *pipeline;
    const struct repository *repository;
    /* The fingerprints of an image, as of what the snapshot will list; *ret_known false: a full
     * pass. The table stays the run's. */
    int (*open_table)(void *arg, uint64_t image, struct fingerprints **ret, bool *ret_known,
                      struct err *e);
    void (*read)(void *arg, uint64_t bytes);  /* progress; may be NULL */
    void (*total)(void *arg, uint64_t bytes); /* what a pass will read; may be NULL */
    void (*notice)(void *arg,
                   const char *text); /* something that the user should know; may be NULL */
    void *arg;
    const atomic_bool *cancel; /* may be NULL */
};

/* One database image in the making. */
struct image {
    const struct source_run *run;
    struct entry_image of; /* id, kind and page_shift given; count and sum of the last whole pass */
    struct fingerprints *table;
    bool known; /* the table was there: an increment */
    uint64_t page_seed;
    uint64_t skip_page; /* SQLite's lock page, never counted; UINT64_MAX: none */
    uint64_t pass_sum, pass_pages, pass_shipped;
};

/* Prepares an image and its table. */
int image_open(const struct source_run *run, const char *path, enum image_kind kind,
               uint8_t page_shift, struct image *ret, struct err *e);

void image_begin_pass(struct image *m);

/* One page of the pass: hashed, and shipped when its fingerprint is not the known one. ERR_BUSY in
 * a hold (pipeline.h): the page was not taken. */
int image_page(struct image *m, uint64_t page, const void *data, struct err *e);

/* The pass saw the whole image: its count and sum become the entry's. */
void image_end_pass(struct image *m, uint64_t page_count);

#endif
