/* Bringing entries back to where they were, over what is there now (DESIGN 7, CONTRACT
 * `--in-place`).
 *
 * Everything is first put together and checked under <folder>/.syncd-restore/<UTC>/new, where
 * <folder> is the one that holds all of the entries; then a journal is written there, and each file
 * is swapped by rename, a database together with its sidecars; what it replaces goes to
 * .syncd-restore/<UTC>/old. A run that was cut before the journal is undone by the next one, one
 * that was cut later is finished by it. What the snapshot does not name is not touched (but for
 * tables and logs of another state in a LevelDB folder, which are set aside with the rest of it),
 * and no link is followed on the way to a target. What is right already, content and attributes,
 * stays as it is; of the rest only what the old file lacks is fetched. Folders get owner, mode,
 * attributes and time back last. */
#ifndef SYNCD_RESTORE_IN_PLACE_H
#define SYNCD_RESTORE_IN_PLACE_H

#include "restore/restore.h"

struct err;

struct in_place_plan {
    size_t count, equal, replaced; /* entries but folders; of these, right already, and there but
                                      different */
    size_t folders;                /* that are there with another owner, mode, time or attribute */
    uint64_t bytes;                /* to be written */
    const char *folder;            /* that holds all of them */
};

struct in_place_params {
    struct pool *pool;
    const struct snapshot *snapshot;
    const char *const *globs; /* as in restore_params */
    bool dry_run, keep_special;
    bool paranoid;  /* fetch also what is there already, by its digests */
    int64_t now_us; /* names the folder of this run */
    /* Before anything is written: an error ends it. May be NULL. */
    int (*confirm)(void *arg, const struct in_place_plan *plan, struct err *e);
    /* Told of a cut run's work that was finished or undone. May be NULL. */
    void (*mended)(void *arg, const char *folder, bool finished);
    void (*file)(void *arg, const struct restored_file *f);
    void (*total)(void *arg, uint64_t bytes);
    void (*progress)(void *arg, uint64_t raw_bytes);
    void (*checking)(void *arg, const char *path);
    void *arg;
    const atomic_bool *cancel;
};

struct in_place_summary {
    struct restore_summary restored;
    char *old; /* where the old files are now; NULL: none was replaced. The caller's */
};

/* 0: all asked for is in place. ERR_BUSY: a process has a target open (named in the hint); before
 * the first swap nothing was changed. ERR_UNSUPPORTED: the entries lie on several file systems, or
 * are no files of this machine (dumps). ERR_REFUSED: a link on the way. ERR_NO_SPACE. After an
 * error in the middle of the swaps the same call goes on where it ended. SIGIO must be ignored by
 * the process: a lease that is held on a database may be broken. */
int in_place_run(const struct in_place_params *p, struct in_place_summary *ret, struct err *e);

#endif
