/* Writing content: a stream of bytes becomes content-defined chunks; a chunk that is already listed
 * is only referred to. Serves the entry list, files and dumps alike. */
#ifndef SYNCD_SNAPSHOT_CONTENT_H
#define SYNCD_SNAPSHOT_CONTENT_H

#include "snapshot/chunker.h"
#include "snapshot/pipeline.h"
#include "snapshot/run_list.h"

struct chunk_table;
struct entry;
struct err;

/* When the runs of content take more bytes than this, its rest is shipped anew: the record of an
 * entry has a limit. A source that keeps its content from getting there (`anew`) ships less. */
#define CONTENT_RUN_BYTES_MAX (7u << 20)

struct content_writer {
    struct pipeline *pipeline;
    const uint8_t *seed;
    struct chunk_table *known; /* may be NULL; new chunks are added to it */
    struct chunker_sizes sizes;
    bool anew;              /* ship all again, so that it lies together; the table learns where */
    uint64_t run_bytes_max; /* 0: CONTENT_RUN_BYTES_MAX */
    struct buf pending;
    uint64_t bytes;
    uint64_t shipped; /* bytes in chunks that were not known */
    struct run_writer runs;
};

/* Adds bytes; blocks as the pipeline does. */
int content_write(struct content_writer *w, const void *p, size_t n, struct err *e);
/* Adds an entry's record. */
int content_write_entry(struct content_writer *w, const struct entry *n, struct err *e);
/* The last chunk. *ret is where all of it lies, the caller's; bytes are whole then. */
int content_end(struct content_writer *w, struct run_list *ret, struct err *e);
void content_free(struct content_writer *w);

#endif
