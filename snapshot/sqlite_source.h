/* Taking one SQLite database while it is being written: in passes, by sqlite3_backup into the sink
 * (sqlite_sink.h), never holding the source for as long as a network takes. DESIGN 4. */
#ifndef SYNCD_SNAPSHOT_SQLITE_SOURCE_H
#define SYNCD_SNAPSHOT_SQLITE_SOURCE_H

#include <stdbool.h>

#include "snapshot/source.h"

struct err;

/* Whether a file begins like a SQLite database ("SQLite format 3\0"). Must be called before any
 * connection of this process is open on the file: the close() would drop its POSIX locks. An
 * unreadable or short file is none. */
bool sqlite_is_database(const char *path);

/* What was noted of the files of a database - inode, size, mtime and ctime of database, -wal and
 * -journal - as bytes to compare. Empty (len 0) when one of them changed less than 2 s before now,
 * so that a change within the clock's grain cannot hide. ERR_NOT_FOUND etc. for the database. */
int sqlite_signature(const char *path, struct entry_bytes *ret, struct err *e);

/* Ships what changed of the database at `path` and fills *ret (as_of, owner, image, signature).
 * On failure nothing of it counts, but pages already shipped may be of use to the next run.
 * ERR_SOURCE (not a database, encrypted, damaged, locked), ERR_CHANGED (changed under our hands too
 * often), ERR_NOT_FOUND, ERR_PERMISSION, ERR_CANCELLED, the pipeline's errors. Blocks as long as
 * the workers need. */
int sqlite_take(const struct source_run *run, const char *path, struct entry *ret, struct err *e);

#endif
