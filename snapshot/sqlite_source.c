#include "snapshot/sqlite_source.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "snapshot/attributes.h"
#include "snapshot/sqlite_taking.h"
#include "snapshot/sqlite_vfs.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define HOLD_GRACE_US (2 * US_PER_S) /* DESIGN 4: passes */
#define ATTEMPTS_MAX 5
#define TICK_US (20 * US_PER_MS) /* two of the slowest clock that file systems take times from */
#define TOGETHER_WAIT_MS 200     /* for a lock, while others are pinned */

/* ---- opening ---- */

/* "file:<path, percent-encoded>?<query>" (SQLite's URI file names). */
static char *uri_of(const char *path, const char *query)
{
    struct buf b = BUF_INIT;
    buf_put_str(&b, "file:");
    for (const char *p = path; *p; p++) {
        if (*p == '%' || *p == '?' || *p == '#')
            buf_printf(&b, "%%%02X", (unsigned char)*p);
        else
            buf_put_u8(&b, (uint8_t)*p);
    }
    buf_printf(&b, "?%s", query);
    if (!buf_cstr(&b)) {
        buf_free(&b);
        return NULL;
    }
    return (char *)b.data;
}

static int open_database(struct taking *t, struct err *e)
{
    bool immutable = t->way == WAY_STILL && !t->has_log;
    const char *vfs = sqlite_vfs_name(t->way == WAY_STILL ? SQLITE_VFS_STILL : SQLITE_VFS_SHARED);
    OWN_MEM char *uri = uri_of(t->path, immutable ? "mode=ro&immutable=1" : "mode=ro");
    if (!uri || !vfs)
        return err_nomem(e);
    int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX;
    if (sqlite3_open_v2(uri, &t->db, flags, vfs) != SQLITE_OK)
        return taking_failed(t, "opening it", e);
    sqlite3_busy_timeout(t->db, SQLITE_LOCK_WAIT_MS);
    /* Several may be open at once, each for a handful of statements. */
    sqlite3_db_config(t->db, SQLITE_DBCONFIG_LOOKASIDE, NULL, 0, 0);
    sqlite3_db_config(t->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (sqlite3_exec(t->db, "PRAGMA mmap_size=0; PRAGMA cache_size=64; PRAGMA query_only=1", NULL,
                     NULL, NULL) != SQLITE_OK)
        return taking_failed(t, "opening it", e);
    return 0;
}

/* Whether something stirred is seen by times, so the last writing must not be in the same tick as
 * the look at it. And without a log SQLite is told that nothing can change, so that it would not
 * look for a journal. */
static int prepare_still(struct taking *t, struct err *e)
{
    bool journal = false;
    int64_t age_us = clock_now_us() - sqlite_files_written_us(&t->before);
    if (age_us >= 0 && age_us < TICK_US) {
        struct timespec rest = {.tv_nsec = (long)(TICK_US - age_us) * 1000};
        nanosleep(&rest, NULL);
        int rc = sqlite_files_look(t->path, &t->before, e);
        if (rc)
            return rc;
    }
    int rc = t->has_log ? 0 : sqlite_journal_is_there(t->path, &journal, e);
    return rc == 0 && journal ? taking_needs_rollback(t, e) : rc;
}

static int choose_way(struct taking *t, struct err *e)
{
    struct sqlite_header header;
    bool elsewhere = false;
    int rc = sqlite_header_read(t->path, &header, e);
    if (rc == 0)
        rc = sqlite_files_look(t->path, &t->before, e);
    if (rc)
        return rc;
    t->page_shift = header.page_shift;
    t->way = WAY_ROLLBACK;
    if (!header.wal_mode && !t->before.has_wal)
        return 0;
    if (t->before.has_shm)
        rc = sqlite_is_open_elsewhere(t->path, &elsewhere, e);
    t->way = elsewhere ? WAY_LIVE : WAY_STILL;
    if (rc == 0)
        rc = sqlite_wal_counts(t->path, &t->has_log, e);
    return rc || elsewhere ? rc : prepare_still(t, e);
}

static int taking_open(struct taking *t, struct err *e)
{
    int rc = choose_way(t, e);
    if (rc == 0)
        rc = image_open(t->run, t->path, IMAGE_SQLITE, t->page_shift, &t->image, e);
    return rc ? rc : open_database(t, e);
}

static void taking_close(struct taking *t)
{
    taking_end(t);
    sqlite3_close(t->db);
    t->db = NULL;
}

static void announce(const struct taking *t)
{
    pipeline_effort(t->run->pipeline, t->image.known);
    if (t->run->total)
        t->run->total(t->run->arg, (uint64_t)t->before.db.st_size);
}

/* ---- a WAL database that is in use ---- */

/* The read transaction stops no writer, but it pins the -wal; so the pass ends early when the
 * workers are slower than the reading, unless `to_the_end`. */
static int held_pass(struct taking *t, bool to_the_end, struct err *e)
{
    int rc = taking_begin(t, SQLITE_LOCK_WAIT_MS, e);
    if (rc)
        return rc;
    /* From here on: waiting for a writer to let go is no work that allows for waiting. */
    if (!to_the_end)
        pipeline_hold(t->run->pipeline, HOLD_GRACE_US);
    rc = taking_pass(t, &t, to_the_end ? 0 : 1, e);
    taking_end(t);
    pipeline_let_go(t->run->pipeline);
    return rc;
}

static int ship_ahead(struct taking *t, struct err *e)
{
    int rc = taking_ship_ahead(t, e);
    return rc ? rc : pipeline_drain(t->run->pipeline, e);
}

static bool is_ahead_worth(const struct taking *t)
{
    return !t->image.known && (uint64_t)t->before.db.st_size >= SQLITE_AHEAD_FROM_BYTES;
}

/* Passes until one sees the whole database within its time. */
static int take_live(struct taking *t, struct err *e)
{
    unsigned no_headway = 0;
    bool ahead = is_ahead_worth(t);
    for (;;) {
        int rc = ahead ? ship_ahead(t, e) : 0;
        if (rc)
            return rc;
        bool to_the_end = no_headway >= SQLITE_NO_HEADWAY_MAX;
        if (to_the_end)
            taking_notice(t, "its writers are faster than the workers; this pass now holds a read "
                             "transaction to its end, during which the -wal cannot be "
                             "checkpointed");
        rc = held_pass(t, to_the_end, e);
        if (rc != SQLITE_LET_GO)
            return rc;
        no_headway = t->image.pass_pages > t->reached ? 0 : no_headway + 1;
        t->reached = MAX(t->reached, t->image.pass_pages);
        ahead = true;
    }
}

/* ---- a WAL database that nobody has open ---- */

/* Read without a lock and without a sidecar: it counts if nothing appeared or changed meanwhile. */
static int take_still(struct taking *t, struct err *e)
{
    struct sqlite_files after;
    bool elsewhere = false;
    int rc = taking_begin(t, 0, e);
    if (rc == 0)
        rc = taking_pass(t, NULL, 0, e);
    taking_end(t);
    /* Whatever the pass says of files that changed under it, it is the change that counts. */
    if (rc == ERR_CANCELLED || rc == ERR_NOMEM || pipeline_state(t->run->pipeline, NULL))
        return rc;
    if (sqlite_files_look(t->path, &after, NULL) || !sqlite_files_are_same(&t->before, &after) ||
        (after.has_shm && (sqlite_is_open_elsewhere(t->path, &elsewhere, NULL) || elsewhere)))
        return err_set(e, ERR_CHANGED, t->path, "%s was opened while it was read", t->path);
    return rc;
}

/* ---- one database ---- */

static int take_once(struct taking *t, struct err *e)
{
    static int (*const take[])(struct taking * t, struct err * e) = {
        [WAY_ROLLBACK] = taking_rollback, [WAY_STILL] = take_still, [WAY_LIVE] = take_live};
    int rc = taking_open(t, e);
    if (rc == 0) {
        announce(t);
        rc = take[t->way](t, e);
    }
    taking_close(t);
    return rc;
}

static int fill_entry(struct taking *t, struct entry *ret, struct err *e)
{
    struct sqlite_files now;
    struct entry n = {.type = ENTRY_IMAGE, .as_of_us = t->as_of_us, .image = t->image.of};
    int rc = sqlite_files_look(t->path, &now, e);
    if (rc)
        return rc;
    /* A new file under the old name: what was read is no longer what the path means. */
    if (!sqlite_files_is_same_database(&t->before, &now))
        return err_set(e, ERR_CHANGED, t->path, "%s was replaced while it was read", t->path);
    n.path = strdup(t->path);
    rc = n.path ? attributes_fill(&t->before.db, &n, e) : err_nomem(e);
    if (rc == 0)
        rc = attributes_read_extended(-1, -1, t->path, t->path, &n.xattrs, e);
    if (rc) {
        entry_free(&n);
        return rc;
    }
    n.signature = t->signature;
    t->signature = (struct entry_bytes){0};
    *ret = n;
    return 0;
}

/* What looks damaged, or left behind by a crash, while its owner is at work is looked at again.
 * Without a lock (a WAL database that nobody has open) half of a change can be seen already when it
 * is opened; and a journal that its owner is just beginning looks to SQLite like one that crashed,
 * when the look at his lock came before he took it. */
static bool was_changing(const struct taking *t, int rc)
{
    struct sqlite_files now;
    return rc == ERR_SOURCE &&
           (sqlite_files_look(t->path, &now, NULL) || !sqlite_files_are_same(&t->before, &now) ||
            sqlite_files_written_us(&now) >= t->before.at_us - TICK_US);
}

int sqlite_take(const struct source_run *run, const char *path, struct entry *ret, struct err *e)
{
    struct taking t = {.run = run, .path = path};
    int rc = ERR_CHANGED;
    for (int attempt = 1; rc == ERR_CHANGED && attempt <= ATTEMPTS_MAX; attempt++) {
        rc = take_once(&t, e);
        if (rc == 0)
            rc = fill_entry(&t, ret, e);
        if (attempt < ATTEMPTS_MAX && was_changing(&t, rc))
            rc = ERR_CHANGED;
    }
    free(t.signature.data);
    return rc;
}

int sqlite_tell_named(const char *path, const struct source_named *to, struct err *e)
{
    struct taking t = {.path = path};
    if (!taking_may_name(path))
        return 0;
    int rc = choose_way(&t, e);
    if (rc == 0)
        rc = open_database(&t, e);
    if (rc == 0)
        rc = taking_named(&t, to, e);
    taking_close(&t);
    return rc;
}

/* ---- several ---- */

/* Those of one cut that are not done yet: takings[i] is of items[i]; db NULL: not in it. */
struct together {
    const struct source_run *run;
    struct sqlite_request *items;
    size_t count;
    struct taking takings[SQLITE_TOGETHER_MAX];
    struct taking *pinned[SQLITE_TOGETHER_MAX];
};

/* Leaves it to sqlite_take. */
static void drop(struct taking *t)
{
    taking_close(t);
    free(TAKE_PTR(t->signature.data));
}

static size_t left_over(const struct together *g)
{
    size_t n = 0;
    for (size_t i = 0; i < g->count; i++)
        n += g->takings[i].db != NULL;
    return n;
}

static void open_all(struct together *g)
{
    for (size_t i = 0; i < g->count; i++) {
        struct taking *t = &g->takings[i];
        *t = (struct taking){.run = g->run, .path = g->items[i].path};
        g->pinned[i] = t;
        if (taking_open(t, NULL) || t->way != WAY_LIVE)
            drop(t);
    }
}

static int ship_all_ahead(struct together *g, bool all, struct err *e)
{
    int rc = 0;
    bool any = false;
    for (size_t i = 0; rc == 0 && i < g->count; i++) {
        struct taking *t = &g->takings[i];
        if (!t->db || (!all && !is_ahead_worth(t)))
            continue;
        any = true;
        if (taking_ship_ahead(t, NULL))
            drop(t);
        rc = pipeline_state(g->run->pipeline, e);
    }
    return rc == 0 && any ? pipeline_drain(g->run->pipeline, e) : rc;
}

static void begin_all(struct together *g)
{
    for (size_t i = 0; i < g->count; i++)
        if (g->takings[i].db && taking_begin(&g->takings[i], TOGETHER_WAIT_MS, NULL))
            drop(&g->takings[i]);
}

/* Reads one that is begun. *ret_headway: it came further than ever. */
static int read_one(struct together *g, size_t i, bool *ret_headway, struct err *e)
{
    struct taking *t = &g->takings[i];
    announce(t);
    int rc = taking_pass(t, g->pinned, g->count, e);
    taking_end(t);
    *ret_headway |= rc == 0 || (rc == SQLITE_LET_GO && t->image.pass_pages > t->reached);
    t->reached = MAX(t->reached, t->image.pass_pages);
    if (rc == SQLITE_LET_GO)
        return rc;
    if (rc == 0)
        g->items[i].done = fill_entry(t, &g->items[i].entry, NULL) == 0;
    drop(t);
    return pipeline_state(g->run->pipeline, e);
}

/* One cut through all that are left. */
static int read_all(struct together *g, bool *ret_headway, struct err *e)
{
    int rc = 0;
    begin_all(g);
    pipeline_hold(g->run->pipeline, HOLD_GRACE_US);
    for (size_t i = 0; rc == 0 && i < g->count; i++)
        if (g->takings[i].db)
            rc = read_one(g, i, ret_headway, e);
    for (size_t i = 0; i < g->count; i++)
        taking_end(&g->takings[i]);
    pipeline_let_go(g->run->pipeline);
    return MIN(rc, 0);
}

static int take_some(struct together *g, struct err *e)
{
    int rc = 0;
    unsigned no_headway = 0;
    bool again = false;
    open_all(g);
    /* One alone is no cut. */
    while (rc == 0 && left_over(g) > (again ? 0 : 1) && no_headway < SQLITE_NO_HEADWAY_MAX) {
        bool headway = false;
        rc = ship_all_ahead(g, again, e);
        if (rc == 0)
            rc = read_all(g, &headway, e);
        no_headway = headway ? 0 : no_headway + 1;
        again = true;
    }
    for (size_t i = 0; i < g->count; i++)
        drop(&g->takings[i]);
    return rc;
}

int sqlite_take_together(const struct source_run *run, struct sqlite_request *items, size_t count,
                         struct err *e)
{
    OWN_MEM struct together *g = mem_alloc(1, sizeof *g);
    int rc = g ? 0 : err_nomem(e);
    for (size_t at = 0; rc == 0 && at < count; at += SQLITE_TOGETHER_MAX) {
        g->run = run;
        g->items = items + at;
        g->count = MIN(count - at, (size_t)SQLITE_TOGETHER_MAX);
        rc = take_some(g, e);
    }
    return rc;
}
