/* Writing content: a stream of bytes becomes content-defined chunks; a chunk that is already listed
 * is only referred to. Serves the entry list, files and dumps alike. */
#ifndef SYNCD_SNAPSHOT_CONTENT_H
#define SYNCD_SNAPSHOT_CONTENT_H

#include "snapshot/chunker.h"
#include "snapshot/pipeline.h"

struct chunk_table;
struct err;

/* Content in more pieces than this is written anew from there on: a record of an entry has a limit,
 * and so has the memory for its runs. */
#define CONTENT_RUNS_MAX 400000u

struct content_writer {
    struct pipeline *pipeline;
    const uint8_t *seed;
    struct chunk_table *known; /* may be NULL; new chunks are added to it */
    struct chunker_sizes sizes;
    struct buf pending;
    uint64_t bytes;
    uint64_t shipped; /* bytes in chunks that were not known */
    size_t run_count, run_cap;
    struct part_run *runs;
};

/* Adds bytes; blocks as the pipeline does. */
int content_write(struct content_writer *w, const void *p, size_t n, struct err *e);
/* The last chunk; then runs and bytes are whole. */
int content_end(struct content_writer *w, struct err *e);
void content_free(struct content_writer *w);

#endif
