/* Taking SQLite databases while they are being written: in passes, by sqlite3_backup into the sink
 * (sqlite_sink.h), never holding a source for as long as a network takes. DESIGN 4.
 *
 * How depends on what is found (sqlite_taking.h): in WAL mode a read transaction, which stops no
 * writer; a WAL database that nobody has open is read as it lies, with its -wal, if nothing stirs
 * meanwhile; in rollback mode short holds (sqlite_rollback.c). Nothing is left beside a source. */
#ifndef SYNCD_SNAPSHOT_SQLITE_SOURCE_H
#define SYNCD_SNAPSHOT_SQLITE_SOURCE_H

#include "snapshot/source.h"
#include "snapshot/sqlite_files.h"

struct err;

/* Ships what changed of the database at `path` and fills *ret (as_of, owner, image, signature).
 * On failure nothing of it counts, but pages already shipped may be of use to the next run.
 * ERR_SOURCE (not a database, encrypted, damaged, left by a crash), ERR_BUSY (locked, or written
 * too fast for rollback mode), ERR_CHANGED (changed under our hands too often), ERR_NOT_FOUND,
 * ERR_PERMISSION, ERR_CANCELLED, the pipeline's errors. Blocks as long as the workers need. */
int sqlite_take(const struct source_run *run, const char *path, struct entry *ret, struct err *e);

/* Tells of the files that the database, as it is now, names as its own (a diskcache's); there may
 * be none. */
int sqlite_tell_named(const char *path, const struct source_named *to, struct err *e);

/* One database of several. */
struct sqlite_request {
    const char *path;
    bool done;          /* out: taken */
    struct entry entry; /* out, when done; the caller's */
};

#define SQLITE_TOGETHER_MAX 32 /* read transactions at once */

/* Takes those that are open in WAL mode as one cut: their read transactions begin one after the
 * other before the first of them is read, SQLITE_TOGETHER_MAX at most. What needs more time than
 * workers and -wal allow for is let go and begun again, together with the others that are left.
 * All that is not done at the end - of another kind, failed, or too slow - is for sqlite_take.
 * An error is the run's. */
int sqlite_take_together(const struct source_run *run, struct sqlite_request *items, size_t count,
                         struct err *e);

#endif
