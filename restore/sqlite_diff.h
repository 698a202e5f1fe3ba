/* Which rows differ between two states of a SQLite database: inserted, updated, deleted, by table.
 *
 * Both are read once, in the order in which their rows lie, so that two stored images (image_vfs.h)
 * that share most blocks are read side by side; what differs by place is then matched by primary
 * key in a temporary file. (SQLite's session extension finds the same, but looks each row up by
 * its key, which over a network costs a block a row, keeps all changes in memory, and passes over
 * tables without a primary key.) Memory: a row of each, and SQLite's caches. */
#ifndef SYNCD_RESTORE_SQLITE_DIFF_H
#define SYNCD_RESTORE_SQLITE_DIFF_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

struct err;

enum table_change {
    TABLE_COMPARED,
    TABLE_ADDED,         /* only in the new one; its rows count as inserted */
    TABLE_REMOVED,       /* only in the old one; its rows count as deleted */
    TABLE_OTHER_COLUMNS, /* not compared; inserted and deleted are the rows of new and old */
    TABLE_NOT_COMPARED,  /* see `why` */
};

struct table_diff {
    const char *name;
    enum table_change change;
    bool has_key; /* else rows are told apart by rowid, and by content where rowids have changed */
    uint64_t inserted, updated, deleted;
    const char *why; /* what SQLite said, or NULL */
};

struct sqlite_diff {
    sqlite3 *before, *after;
    /* A read that failed below SQLite; code 0: none. May be NULL. */
    const struct err *before_failed, *after_failed;
    const char *name; /* of the database, for messages */
    int (*table)(void *arg, const struct table_diff *t, struct err *e); /* valid during the call */
    void *arg;
};

/* Calls `table` for each table, the added ones last, without SQLite's own and shadow tables.
 * ERR_CANCELLED when a progress handler stopped it; the reads' errors; ERR_DAMAGED; ERR_NOMEM;
 * ERR_IO of the temporary file. */
int sqlite_diff(const struct sqlite_diff *d, struct err *e);

#endif
