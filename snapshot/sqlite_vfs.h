/* The VFS that sources are opened through: SQLite's own one, but nothing of a source is opened for
 * writing, created or deleted, whatever SQLite would do by itself (it empties or deletes logs and
 * journals of a database that it finds empty). */
#ifndef SYNCD_SNAPSHOT_SQLITE_VFS_H
#define SYNCD_SNAPSHOT_SQLITE_VFS_H

enum sqlite_vfs_way {
    SQLITE_VFS_SHARED, /* beside others: locks and the -shm as ever */
    SQLITE_VFS_STILL,  /* nobody has it open: no locks, and the index of the -wal in our memory, so
                        * that no -shm appears. Who uses it proves afterwards that nothing stirred.
                        */
};

/* Its name, for sqlite3_open_v2; NULL when out of memory. Registered once for the process. */
const char *sqlite_vfs_name(enum sqlite_vfs_way way);

#endif
