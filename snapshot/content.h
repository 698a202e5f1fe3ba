/* Writing content: a stream of bytes becomes content-defined chunks; a chunk that is already listed
 * is only referred to. Serves the entry list, files and dumps alike. */
#ifndef SYNCD_SNAPSHOT_CONTENT_H
#define SYNCD_SNAPSHOT_CONTENT_H

#include "snapshot/chunker.h"
#include "snapshot/pipeline.h"

struct err;

/* Where chunks that may be referred to lie, by id; in memory, for the entry list of the parent. */
struct chunk_index {
    size_t count, cap;
    struct chunk_place {
        uint8_t id[CHUNK_ID_SIZE];
        struct part_run at;
    } * places;
};
int chunk_index_add(struct chunk_index *x, const uint8_t id[static CHUNK_ID_SIZE],
                    const struct part_run *at); /* 0 or ERR_NOMEM */
void chunk_index_sort(struct chunk_index *x);   /* after the last add */
void chunk_index_free(struct chunk_index *x);

struct content_writer {
    struct pipeline *pipeline;
    const uint8_t *seed;
    const struct chunk_index *known; /* may be NULL */
    struct chunker_sizes sizes;
    struct buf pending;
    uint64_t bytes;
    size_t run_count, run_cap;
    struct part_run *runs;
};

/* Adds bytes; blocks as the pipeline does. */
int content_write(struct content_writer *w, const void *p, size_t n, struct err *e);
/* The last chunk; then runs and bytes are whole. */
int content_end(struct content_writer *w, struct err *e);
void content_free(struct content_writer *w);

#endif
