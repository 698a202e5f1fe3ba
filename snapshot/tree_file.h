/* One regular file: its bytes as content-defined chunks, its holes, its attributes. */
#ifndef SYNCD_SNAPSHOT_TREE_FILE_H
#define SYNCD_SNAPSHOT_TREE_FILE_H

#include "snapshot/source.h"
#include "snapshot/tree_walk.h"

struct chunk_table;
struct err;

struct tree_file {
    const struct source_run *run;
    struct chunk_table *known;
    const struct tree_item *item; /* NODE of a regular file */
    /* It is only ever appended to: what was there when the reading began is what counts, and that
     * it grows meanwhile is no change. */
    bool grows;
    bool was_database;      /* in the parent: a file that is none is refused, unless it is empty */
    uint64_t shipped_bytes; /* out: in chunks that were not known */
};

/* Reads the file and fills *ret. A file that changes meanwhile is read again, three times in all.
 * 1: it is a database by its header, nothing was read of it. ERR_NOT_FOUND: it is gone;
 * ERR_CHANGED: it never stops changing; ERR_PERMISSION, ERR_IO and ERR_LIMIT of the file;
 * ERR_CANCELLED; the pipeline's errors (pipeline_state tells them apart). */
int tree_file_take(struct tree_file *f, struct entry *ret, struct err *e);

/* Whether the file begins like a database that has a source of its own kind; *ret_kind says which.
 * What cannot be read is none. */
bool tree_file_is_database(const struct tree_item *item, enum image_kind *ret_kind);

#endif
