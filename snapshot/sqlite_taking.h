/* Shared by sqlite_source.c (one database from its opening to its entry), sqlite_pass.c (what
 * passes are made of) and sqlite_rollback.c. */
#ifndef SYNCD_SNAPSHOT_SQLITE_TAKING_H
#define SYNCD_SNAPSHOT_SQLITE_TAKING_H

#include <sqlite3.h>

#include "snapshot/source.h"
#include "snapshot/sqlite_files.h"

struct err;
struct sqlite_sink;

#define SQLITE_LET_GO 1 /* of a pass: its time was over, come again; *e says why */
#define SQLITE_AHEAD_FROM_BYTES (8u << 20) /* from here on what changed is shipped ahead */
#define SQLITE_NO_HEADWAY_MAX 5            /* DESIGN 4: passes */
#define SQLITE_LOCK_WAIT_MS 10000

enum sqlite_way {
    WAY_ROLLBACK, /* its readers stop its writers: held for an instant at a time */
    WAY_STILL,    /* WAL mode, and nobody has it open */
    WAY_LIVE,     /* WAL mode: readers and writers go on together */
};

/* One database being taken. */
struct taking {
    const struct source_run *run;
    const char *path;
    enum sqlite_way way;
    bool has_log; /* WAY_STILL: there is a -wal that counts */
    uint8_t page_shift;
    struct sqlite_files before;
    sqlite3 *db;
    struct image image;
    struct held_pages *held; /* WAY_ROLLBACK: what changed, while writers are held */
    int64_t as_of_us;
    struct entry_bytes signature;
    uint64_t reached;          /* how far the furthest pass that let go came */
    bool begun;                /* in a read transaction */
    bool locked_out;           /* a lock of another program was in the way */
    uint64_t wal_begun_bytes;  /* of the -wal when that began */
    uint64_t bytes_per_second; /* how fast it is read, as measured; 0: not yet */
};

/* ---- sqlite_pass.c ---- */

/* The error of the connection's last call. */
int taking_failed(struct taking *t, const char *doing, struct err *e);

/* The error of a database whose -journal would have to be rolled back. */
int taking_needs_rollback(struct taking *t, struct err *e);

int taking_number(struct taking *t, const char *sql, int64_t *ret, struct err *e);

bool taking_is_cancelled(const struct taking *t);
void taking_notice(const struct taking *t, const char *text);

/* Notes as_of and signature, and begins a read transaction, waiting for locks up to wait_ms. */
int taking_begin(struct taking *t, int wait_ms, struct err *e);
void taking_end(struct taking *t);

/* The destination of a pass, in the state of the transaction that is open now. ERR_CHANGED: it has
 * another page size than it was opened with. */
int taking_sink(struct taking *t, struct sqlite_sink **ret, struct err *e);

/* Why a step of sqlite3_backup did not end with SQLITE_OK or SQLITE_DONE. */
int taking_step_failed(struct taking *t, struct sqlite_sink *sink, int step, struct err *e);

/* Whether the pass saw it all; then the image is as it says. */
int taking_check(struct taking *t, struct sqlite_sink *sink, uint64_t pages, struct err *e);

/* One pass over all pages in the transaction that is open now. SQLITE_LET_GO when the pipeline's
 * hold is over, or when the -wal of one of these (that is in a transaction) grew by 64 MiB. */
int taking_pass(struct taking *t, struct taking *const *pinned, size_t pinned_count, struct err *e);

/* Ships what lies in the database file, as it lies there, holding nothing: pages may be torn or
 * old. The next pass that counts finds those and ships them again; the others it finds shipped. */
int taking_ship_ahead(struct taking *t, struct err *e);

/* Reads a part of the file, so that it will be in memory; holds nothing. */
void taking_warm(struct taking *t, uint64_t offset, uint64_t bytes);

/* ---- sqlite_named.c ---- */

/* Whether a database with this name may be one that names files. */
bool taking_may_name(const char *path);

/* Tells of the files that the database names as its own (a diskcache's); `to` may be NULL. */
int taking_named(struct taking *t, const struct source_named *to, struct err *e);

/* ---- sqlite_rollback.c ---- */

int taking_rollback(struct taking *t, struct err *e);

#endif
