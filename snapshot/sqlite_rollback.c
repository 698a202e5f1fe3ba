/* A database in rollback mode: as long as it is read, none of its writers can commit. So what
 * changed is shipped ahead without any lock, and the pass that counts holds the lock for some tens
 * of milliseconds at a time, waits for nothing meanwhile, and reads only what was made warm just
 * before. A commit between two holds makes it start over. DESIGN 4. */
#include <stdio.h>
#include <string.h>

#include "snapshot/held_pages.h"
#include "snapshot/sqlite_sink.h"
#include "snapshot/sqlite_taking.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

/* How long one hold may take, try by try. An application's busy timeout is rarely below 200 ms, and
 * a writer may meet two holds. */
static const int64_t holds_us[] = {30 * US_PER_MS, 30 * US_PER_MS, 60 * US_PER_MS, 60 * US_PER_MS,
                                   80 * US_PER_MS, 80 * US_PER_MS, 80 * US_PER_MS, 80 * US_PER_MS};
#define SPEED_FIRST (UINT64_C(100) << 20)
#define STEP_MIN_BYTES (256u << 10)
#define PIECE_BYTES (64u << 10) /* copied between two looks at the clock */
#define GROW_MAX 4              /* how much longer a step is than the one before it, at most */

/* One try. */
struct stepping {
    struct taking *t;
    struct sqlite_sink *sink;
    sqlite3_backup *backup;
    int64_t version; /* of the data, as this connection counts its changes */
    int64_t hold_us;
    uint64_t step_bytes, done_bytes;
    int step; /* what the last step answered */
};

/* ---- one hold ---- */

static int check_mode(struct taking *t, struct err *e)
{
    sqlite3_stmt *stmt = NULL;
    bool wal = false;
    if (sqlite3_prepare_v2(t->db, "PRAGMA journal_mode", -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW) {
        const char *mode = (const char *)sqlite3_column_text(stmt, 0);
        wal = mode && strcmp(mode, "wal") == 0;
    }
    sqlite3_finalize(stmt);
    return wal ? err_set(e, ERR_CHANGED, t->path, "%s was switched to WAL mode", t->path) : 0;
}

static int begin_copy(struct stepping *s, int64_t version, struct err *e)
{
    int rc = check_mode(s->t, e);
    if (rc == 0)
        rc = taking_sink(s->t, &s->sink, e);
    if (rc)
        return rc;
    s->version = version;
    image_begin_pass(&s->t->image);
    s->backup = sqlite3_backup_init(sqlite_sink_db(s->sink), "main", s->t->db, "main");
    return s->backup ? 0 : err_nomem(e);
}

/* Ends early, without a loss, when the time is over (a busy machine may have put us to sleep in
 * between) or when as much changed as can be kept aside. */
static void copy_pieces(struct stepping *s, int64_t begun_us)
{
    struct taking *t = s->t;
    uint64_t reached = sqlite_sink_reached(s->sink), copied = 0;
    uint64_t piece = MAX((uint64_t)PIECE_BYTES, UINT64_C(1) << t->page_shift);
    int64_t took_us = 0;
    do {
        s->step = sqlite3_backup_step(s->backup, (int)(piece >> t->page_shift));
        copied += piece;
        took_us = MAX(clock_mono_us() - begun_us, INT64_C(1));
    } while (s->step == SQLITE_OK && copied < s->step_bytes && took_us < s->hold_us &&
             held_pages_bytes(t->held) < HELD_PAGES_MAX / 2);
    s->done_bytes += copied;
    /* Of what was copied some pages are not written yet: those are in the next hold's. */
    uint64_t bytes = (sqlite_sink_reached(s->sink) - reached) << t->page_shift;
    if (bytes > STEP_MIN_BYTES / 2)
        t->bytes_per_second = bytes * (uint64_t)US_PER_S / (uint64_t)took_us;
}

static int copy_some(struct stepping *s, struct err *e)
{
    struct taking *t = s->t;
    int64_t version, begun_us = clock_mono_us();
    int rc = taking_number(t, "PRAGMA data_version", &version, e);
    if (rc == 0 && !s->backup)
        rc = begin_copy(s, version, e);
    else if (rc == 0 && version != s->version) {
        err_set(e, ERR_BUSY, t->path, "a commit came in between");
        rc = SQLITE_LET_GO;
    }
    if (rc)
        return rc;
    copy_pieces(s, begun_us);
    return 0;
}

static int hold_once(struct stepping *s, struct err *e)
{
    struct taking *t = s->t;
    taking_warm(t, s->done_bytes, s->step_bytes);
    int rc = taking_begin(t, SQLITE_LOCK_WAIT_MS, e);
    if (rc)
        return rc;
    t->image.aside = t->held;
    rc = copy_some(s, e);
    t->image.aside = NULL;
    taking_end(t);
    /* The fingerprints say that these are shipped, so they are, whatever became of the hold. */
    struct err shipping = ERR_INIT;
    int shipped = held_pages_ship(t->held, t->run->pipeline, &shipping);
    if (shipped)
        *e = shipping;
    return shipped ? shipped : rc;
}

/* ---- one try ---- */

static void plan_step(struct stepping *s)
{
    uint64_t speed = s->t->bytes_per_second ? s->t->bytes_per_second : SPEED_FIRST;
    uint64_t bytes = speed / (uint64_t)US_PER_S * (uint64_t)s->hold_us;
    if (s->step_bytes)
        bytes = MIN(bytes, GROW_MAX * s->step_bytes);
    s->step_bytes = MIN(MAX(bytes, (uint64_t)STEP_MIN_BYTES), UINT64_C(1) << 30);
}

static int finish_try(struct stepping *s, struct err *e)
{
    if (s->step != SQLITE_DONE)
        return taking_step_failed(s->t, s->sink, s->step, e);
    return taking_check(s->t, s->sink, (uint64_t)sqlite3_backup_pagecount(s->backup), e);
}

static int try_once(struct taking *t, int64_t hold_us, struct err *e)
{
    struct stepping s = {.t = t, .hold_us = hold_us, .step = SQLITE_OK};
    int rc = 0;
    while (rc == 0 && s.step == SQLITE_OK) {
        if (taking_is_cancelled(t)) {
            rc = err_set(e, ERR_CANCELLED, t->path, "stopped");
            break;
        }
        plan_step(&s);
        rc = hold_once(&s, e);
    }
    if (rc == 0)
        rc = finish_try(&s, e);
    sqlite3_backup_finish(s.backup);
    sqlite_sink_close(s.sink);
    /* Not in a hold: it may take a while. */
    return rc ? rc : taking_named(t, t->run->named, e);
}

/* ---- all of it ---- */

static int writers_are_faster(const struct taking *t, const struct err *why, struct err *e)
{
    char reason[sizeof why->message];
    snprintf(reason, sizeof reason, "%s", why->message);
    err_set(e, ERR_BUSY, t->path,
            "%s: its writers are too fast (%s), and in rollback mode a longer read would lock them "
            "out; no snapshot is made of it",
            t->path, reason);
    return err_hint(e, "WAL mode (`PRAGMA journal_mode=WAL`, once) lets both go on together; else "
                       "pause its writers by the source's before and after hooks.");
}

/* Ships ahead until a pass finds less changed than a hold can keep aside. */
static int ship_ahead(struct taking *t, struct err *e)
{
    uint64_t before = UINT64_MAX;
    for (unsigned no_headway = 0; no_headway < SQLITE_NO_HEADWAY_MAX;) {
        int rc = taking_ship_ahead(t, e);
        uint64_t shipped = t->image.pass_shipped;
        if (rc || shipped << t->page_shift <= HELD_PAGES_MAX / 2)
            return rc;
        no_headway = shipped < before ? 0 : no_headway + 1;
        before = shipped;
    }
    err_set(e, ERR_BUSY, t->path, "more changes than the workers take");
    return SQLITE_LET_GO;
}

static int try_all(struct taking *t, struct err *e)
{
    bool large = (uint64_t)t->before.db.st_size >= SQLITE_AHEAD_FROM_BYTES, ahead = large;
    int rc = SQLITE_LET_GO;
    for (size_t i = 0; rc == SQLITE_LET_GO && i < ARRAY_LEN(holds_us); i++) {
        rc = ahead ? ship_ahead(t, e) : 0;
        if (rc)
            break;
        rc = try_once(t, holds_us[i], e);
        ahead = large && t->image.pass_shipped << t->page_shift > HELD_PAGES_MAX / 2;
    }
    return rc;
}

int taking_rollback(struct taking *t, struct err *e)
{
    struct err why = ERR_INIT;
    int rc = held_pages_new(t->image.of.id, t->page_shift, &t->held, e);
    if (rc == 0)
        rc = try_all(t, &why);
    held_pages_free(TAKE_PTR(t->held));
    if (rc == SQLITE_LET_GO)
        return writers_are_faster(t, &why, e);
    if (why.code)
        *e = why;
    return rc;
}
