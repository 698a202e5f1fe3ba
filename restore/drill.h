/* Proving that a snapshot comes back, without putting anything in its place: every block that it
 * needs is read once and checked, every image against its sum, every file against the digests of
 * its chunks and its length; databases also by what is in them, on a scratch copy when there is
 * room. */
#ifndef SYNCD_RESTORE_DRILL_H
#define SYNCD_RESTORE_DRILL_H

#include <stdatomic.h>

#include "snapshot/pool.h"

struct err;

struct drill_params {
    struct pool *pool; /* one worker's, so that it is this worker that is proven */
    const struct snapshot *snapshot;
    const char *scratch_dir; /* NULL: no scratch copies */
    const char
        *drill_database; /* an empty one, where a dump is restored and rolled back; or NULL */
    void (*total)(void *arg, uint64_t bytes);
    void (*progress)(void *arg, uint64_t raw_bytes);
    void (*step)(void *arg, const char *what, const char *path);   /* "checking", ...; or NULL */
    void (*bad)(void *arg, const char *path, const struct err *e); /* an entry that fails */
    void *arg;
    const atomic_bool *cancel; /* may be NULL */
};

struct drill_result {
    uint64_t entries, bad; /* looked at; of these, that would not come back */
    uint64_t bytes;        /* of content, as a user counts it */
    uint64_t images, files;
    uint64_t checked; /* databases that were checked on a scratch copy (check.h) */
    uint64_t
        not_copied; /* ... that had no room in scratch_dir, or there is none, or SQLite cannot */
    uint64_t dumps, listed; /* archives of pg_dump: counted again; and listed by pg_restore */
    bool rehearsed;         /* restored into drill_database: tables and rows as recorded */
    uint64_t tables, rows;
    bool hindered; /* it ended because of drill_database; nothing was found that speaks against the
                      snapshot */
    int64_t read_us;  /* what reading, checking and decompressing took */
    int64_t check_us; /* what these checks took */
};

/* 0 when it went to its end: proven is what has `bad` 0. Else the store's error, ERR_CANCELLED,
 * ERR_NOMEM, or ERR_DAMAGED when the list of entries itself cannot be read; ERR_IO or ERR_NO_SPACE
 * of the scratch folder. What an earlier drill left there when it was killed is removed first. */
int drill_run(const struct drill_params *p, struct drill_result *ret, struct err *e);

#endif
