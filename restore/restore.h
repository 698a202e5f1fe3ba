/* Bringing a snapshot back beside what is there: to a folder, or one entry to a file or a stream.
 */
#ifndef SYNCD_RESTORE_RESTORE_H
#define SYNCD_RESTORE_RESTORE_H

#include <stdatomic.h>

#include "restore/image_fetch.h"

struct err;

enum restore_result {
    RESTORE_WOULD,    /* a dry run: would be written */
    RESTORE_RESTORED, /* written, checked and in place */
    RESTORE_EQUAL,    /* was there already, the same */
    RESTORE_SALVAGED, /* in place, with pages or bytes missing or a database's check failed */
    RESTORE_LOST,     /* salvage: nothing of it could be read */
    RESTORE_DIFFERS,  /* something else is there: nothing was written at all */
    RESTORE_FAILED,   /* go_on: a database that fails its own check is not in place */
};

struct restored_file {
    const char *path; /* the entry's; valid during the call */
    const char *target;
    uint64_t bytes;
    enum restore_result result;
    bool owner_differs;  /* the owner or an extended attribute could not be set */
    uint64_t lost_bytes; /* salvage: zeros stand in their place; images tell it in `fetched` */
    uint64_t as_of_us;
    const char *carried;                 /* why the entry is older than the snapshot, or NULL */
    const struct image_fetched *fetched; /* images; else NULL */
};

/* What is to become of an entry. */
enum restore_wish {
    RESTORE_NOT,     /* it is not asked for */
    RESTORE_WRITE,   /* write it */
    RESTORE_IN_BASE, /* it is right below params.base already */
};

struct spool;

struct restore_params {
    struct pool *pool;
    const struct snapshot *snapshot;
    const char *const *globs; /* entries' paths must match one (fnmatch, as a whole or in their last
                                 component); NULL: all */
    const char *target;       /* folder; made when missing; or NULL */
    const char *shown;        /* what messages call that folder; NULL: as it is */
    const char *output;       /* file, or "-" for stdout (fd 1); exactly one of the two is given */
    const char
        *scratch_dir; /* for "-": where the image is put together; NULL: $TMPDIR or /var/tmp */
    /* With target: the folder below which the same entries may lie already; what is right there is
     * copied, not fetched. NULL: none. */
    const char *base;
    struct spool *entries; /* all of the snapshot's, when the caller has them already; or NULL */
    /* By path, instead of the globs; may be NULL. */
    enum restore_wish (*wish)(void *arg, const char *path);
    void *wish_arg;
    bool dry_run, salvage, keep_special, skip_check;
    /* With target: a database that is what was backed up but fails its own check is left out and
     * told of, and the rest comes all the same; and where nothing came, no folder stays that was
     * made for it. */
    bool go_on;
    bool paranoid; /* fetch everything: also what digests say is there */
    void (*file)(void *arg, const struct restored_file *f); /* told of each but folders */
    void (*total)(void *arg, uint64_t bytes);
    void (*progress)(void *arg, uint64_t raw_bytes);
    void (*checking)(void *arg, const char *path); /* a database's own check begins */
    void *arg;
    const atomic_bool *cancel;
};

struct restore_summary {
    size_t count, equal, salvaged, differs, older, failed; /* folders are not counted */
    size_t placed; /* of these, came into the target in this run */
    size_t folders, owner_differs;
    uint64_t bytes;
    uint64_t fetched_bytes; /* stored bytes of content that were read from the workers */
};

/* 0: all asked for is in place (summary.salvaged says whether with holes). ERR_EXISTS: something
 * else is in the way, nothing was written. ERR_NOT_FOUND: no entry matches. ERR_NO_SPACE before
 * anything is written, when it is foreseeable. On any error what is not finished is removed; files
 * that were finished before stay, equal to the snapshot's. */
int restore_run(const struct restore_params *p, struct restore_summary *ret, struct err *e);

#endif
