/* A SQLite database from outside: its files as the file system shows them, and its header. Nothing
 * here uses SQLite. Whatever opens a file must come before any connection of this process is open
 * on it: the close() would drop that one's POSIX locks. */
#ifndef SYNCD_SNAPSHOT_SQLITE_FILES_H
#define SYNCD_SNAPSHOT_SQLITE_FILES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

struct entry_bytes;
struct err;

/* Whether a file begins like a SQLite database ("SQLite format 3\0"). An unreadable or short file
 * is none. */
bool sqlite_is_database(const char *path);

/* What was noted of the files of a database - inode, size, mtime and ctime of database, -wal and
 * -journal - as bytes to compare. Empty (len 0) when one of them changed less than 2 s before now,
 * so that a change within the clock's grain cannot hide. ERR_NOT_FOUND etc. for the database. */
int sqlite_signature(const char *path, struct entry_bytes *ret, struct err *e);

/* The files of a database at one moment. */
struct sqlite_files {
    int64_t at_us; /* when the look began, microseconds since 1970 */
    struct stat db, wal, shm, journal;
    bool has_wal, has_shm, has_journal;
};

int sqlite_files_look(const char *path, struct sqlite_files *ret, struct err *e);

/* Whether the database is still the file that it was, under the same name. */
bool sqlite_files_is_same_database(const struct sqlite_files *a, const struct sqlite_files *b);

/* Whether nothing was written to any of them, and none came or went, as far as sizes and times show
 * it: two writings of one size in one tick of the file system's clock look like one. */
bool sqlite_files_are_same(const struct sqlite_files *a, const struct sqlite_files *b);

/* Whether a -wal or a -journal that may be needed lies beside it. */
bool sqlite_has_log(const char *path);

/* Bytes of the -wal; 0: there is none. */
uint64_t sqlite_wal_bytes(const char *path);

/* Whether the -wal has a header that SQLite takes for one; without it, it ignores the rest. */
int sqlite_wal_counts(const char *path, bool *ret, struct err *e);

/* Whether a -journal lies there that is not empty: of a writer at work, or of one that crashed. */
int sqlite_journal_is_there(const char *path, bool *ret, struct err *e);

/* When one of the files was written last, microseconds since 1970. */
int64_t sqlite_files_written_us(const struct sqlite_files *f);

/* Whether somebody has the database open in WAL mode: he then holds the lock that SQLite calls DMS
 * on the -shm. ERR_PERMISSION: the -shm may not even be looked into. */
int sqlite_is_open_elsewhere(const char *path, bool *ret, struct err *e);

struct sqlite_header {
    uint8_t page_shift;
    bool wal_mode;
};

/* ERR_SOURCE: not a database, encrypted, or its header is damaged. */
int sqlite_header_read(const char *path, struct sqlite_header *ret, struct err *e);

#endif
