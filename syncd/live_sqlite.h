/* A read-only connection to a live SQLite file, which leaves no sidecar beside it.
 *
 * WAL mode without a -wal: nobody has it open; it is read as it lies, and counts when nothing came
 * or changed meanwhile. WAL mode with -wal and -shm, and rollback mode: beside its owner, as any
 * reader. What a crash left (a -wal without its -shm) is refused: reading it would make files. */
#ifndef SYNCD_LIVE_SQLITE_H
#define SYNCD_LIVE_SQLITE_H

#include <sqlite3.h>

struct err;
struct live_sqlite;

/* ERR_SOURCE (damaged, encrypted, left by a crash), ERR_BUSY, ERR_NOT_FOUND, ERR_PERMISSION. `path`
 * must outlive it. No other connection of this process may be open on the file. */
int live_sqlite_open(const char *path, struct live_sqlite **ret, struct err *e);
void live_sqlite_close(struct live_sqlite *l); /* NULL is fine */

sqlite3 *live_sqlite_handle(struct live_sqlite *l);

/* After the reading: ERR_CHANGED when it does not count. */
int live_sqlite_settled(const struct live_sqlite *l, struct err *e);

#endif
