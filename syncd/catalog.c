#include "syncd/catalog.h"

#include <stdlib.h>
#include <string.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/catalog_sql.h"

#define PROOF_KEPT_US (400 * 86400 * US_PER_S)
#define COMPACT_EVERY 64 /* runs: forgetting at each would touch further pages each time */
#define HELD_AHEAD_US (600 * US_PER_S) /* clocks that are kept are not further apart */

const char *run_state_name(enum run_state state)
{
    switch (state) {
#define STATE_CASE(symbol, name)                                                                   \
    case symbol:                                                                                   \
        return name;
        RUN_STATES(STATE_CASE)
#undef STATE_CASE
    default:
        return "none";
    }
}

/* Rows gathered into an array. */
struct rows {
    void *items;
    size_t count, cap, size;
};

/* Room for one more, zeroed; NULL when out of memory. */
static void *rows_add(struct rows *r, struct err *e)
{
    if (mem_grow(&r->items, &r->cap, r->count + 1, r->size)) {
        err_nomem(e);
        return NULL;
    }
    return (char *)r->items + r->size * r->count++;
}

/* One statement, alone. */
static int run_one(struct catalog *c, const char *sql, const struct sql_value *values, size_t count,
                   sql_row_fn *row, void *arg, struct err *e)
{
    pthread_mutex_lock(&c->mutex);
    int rc = sql_run(c, sql, values, count, row, arg, e);
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

/* A query whose rows become an array of items of `size` bytes; *ret is set on success only. */
static int gather(struct catalog *c, const char *sql, const struct sql_value *values, size_t count,
                  sql_row_fn *row, size_t size, void *ret_items, size_t *ret_count, struct err *e)
{
    struct rows rows = {.size = size};
    int rc = run_one(c, sql, values, count, row, &rows, e);
    if (!rc && !rows.items && !(rows.items = mem_alloc(1, size)))
        rc = err_nomem(e);
    if (rc) {
        free(rows.items);
        return rc;
    }
    memcpy(ret_items, &rows.items, sizeof rows.items);
    *ret_count = rows.count;
    return 0;
}

static int first_number(void *arg, sqlite3_stmt *row, struct err *e)
{
    (void)e;
    *(int64_t *)arg = sqlite3_column_int64(row, 0);
    return 0;
}

int catalog_run_begin(struct catalog *c, const char *source, int64_t now_us, int64_t *ret_number,
                      struct err *e)
{
    int64_t number = 0;
    int rc = run_one(c,
                     "INSERT INTO runs(source, number, state, started_at) VALUES(?1,"
                     " COALESCE((SELECT MAX(number) FROM runs WHERE source = ?1), 0) + 1, ?2, ?3)"
                     " RETURNING number",
                     SQL_VALUES(SQL_T(source), SQL_I(RUN_RUNNING), SQL_I(now_us)), first_number,
                     &number, e);
    if (!rc)
        *ret_number = number;
    return rc;
}

static int note_held(struct catalog *c, const char *source, const char *worker, int64_t as_of_us,
                     const uint8_t *snapshot, struct err *e)
{
    return sql_run(c,
                   "INSERT INTO held(source, worker, as_of, snapshot) VALUES(?1, ?2, ?3, ?4)"
                   " ON CONFLICT DO UPDATE SET as_of = ?3, snapshot = ?4",
                   SQL_VALUES(SQL_T(source), SQL_T(worker), SQL_I(as_of_us), SQL_ID(snapshot)),
                   NULL, NULL, e);
}

static int forget_unproven(struct catalog *c, const char *source, const char *worker,
                           const uint8_t *snapshot, struct err *e)
{
    return sql_run(c,
                   "DELETE FROM unproven WHERE source = ?1 AND worker = ?2"
                   " AND (?3 IS NULL OR snapshot = ?3)",
                   SQL_VALUES(SQL_T(source), SQL_T(worker), SQL_ID(snapshot)), NULL, NULL, e);
}

static int end_worker(struct catalog *c, const struct catalog_run *run,
                      const struct catalog_run_worker *w, struct err *e)
{
    int rc = sql_run(c,
                     "INSERT OR REPLACE INTO run_workers(source, number, worker, stored, error)"
                     " VALUES(?1, ?2, ?3, ?4, ?5)",
                     SQL_VALUES(SQL_T(run->source), SQL_I(run->number), SQL_T(w->worker),
                                SQL_I(w->stored), SQL_T(w->error)),
                     NULL, NULL, e);
    if (rc || !w->stored || !run->has_snapshot)
        return rc;
    rc = forget_unproven(c, run->source, w->worker, run->snapshot, e);
    return rc ? rc : note_held(c, run->source, w->worker, run->as_of_us, run->snapshot, e);
}

/* What is dated after the end of a run, and was stored before it, got its date from a clock that
 * was ahead. It is no newer than this run, and must not become fresh when its date has come. */
static int bound_held(struct catalog *c, const struct catalog_run *run, struct err *e)
{
    return sql_run(c, "UPDATE held SET as_of = ?2 WHERE source = ?1 AND as_of > ?2 + ?3",
                   SQL_VALUES(SQL_T(run->source), SQL_I(run->ended_at_us), SQL_I(HELD_AHEAD_US)),
                   NULL, NULL, e);
}

static int forget_old_runs(struct catalog *c, const struct catalog_run *run, struct err *e)
{
    if (run->number % COMPACT_EVERY)
        return 0;
    int64_t last = run->number - CATALOG_RUNS_KEPT;
    int rc = sql_run(c, "DELETE FROM runs WHERE source = ?1 AND number <= ?2",
                     SQL_VALUES(SQL_T(run->source), SQL_I(last)), NULL, NULL, e);
    if (!rc)
        rc = sql_run(c, "DELETE FROM run_workers WHERE source = ?1 AND number <= ?2",
                     SQL_VALUES(SQL_T(run->source), SQL_I(last)), NULL, NULL, e);
    return rc;
}

static int end_run(struct catalog *c, const struct catalog_run *run, struct err *e)
{
    return sql_run(
        c,
        "UPDATE runs SET state = ?3, ended_at = ?4, snapshot = ?5, as_of = ?6, size_bytes = ?7,"
        " bytes_read = ?8, bytes_changed = ?9, bytes_sent = ?10, error = ?11"
        " WHERE source = ?1 AND number = ?2",
        SQL_VALUES(SQL_T(run->source), SQL_I(run->number), SQL_I(run->state),
                   SQL_I(run->ended_at_us), SQL_ID(run->has_snapshot ? run->snapshot : NULL),
                   SQL_I(run->as_of_us), SQL_I(run->size_bytes), SQL_I(run->bytes_read),
                   SQL_I(run->bytes_changed), SQL_I(run->bytes_sent), SQL_T(run->error)),
        NULL, NULL, e);
}

int catalog_run_end(struct catalog *c, const struct catalog_run *run,
                    const struct catalog_run_worker *workers, size_t worker_count, struct err *e)
{
    pthread_mutex_lock(&c->mutex);
    int rc = sql_begin(c, e);
    if (!rc) {
        rc = end_run(c, run, e);
        for (size_t i = 0; i < worker_count && !rc; i++)
            rc = end_worker(c, run, &workers[i], e);
        if (!rc)
            rc = bound_held(c, run, e);
        if (!rc)
            rc = forget_old_runs(c, run, e);
        rc = sql_end(c, rc, e);
    }
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

int catalog_run_abandon(struct catalog *c, const char *source, int64_t now_us, const char *reason,
                        size_t *ret_count, struct err *e)
{
    int64_t open_runs = 0;
    int rc = run_one(c, "SELECT COUNT(*) FROM runs WHERE source = ?1 AND state = ?2",
                     SQL_VALUES(SQL_T(source), SQL_I(RUN_RUNNING)), first_number, &open_runs, e);
    if (!rc && open_runs > 0)
        rc = run_one(c,
                     "UPDATE runs SET state = ?3, ended_at = ?4, error = ?5"
                     " WHERE source = ?1 AND state = ?2",
                     SQL_VALUES(SQL_T(source), SQL_I(RUN_RUNNING), SQL_I(RUN_FAILED), SQL_I(now_us),
                                SQL_T(reason)),
                     NULL, NULL, e);
    if (!rc && ret_count)
        *ret_count = (size_t)open_runs;
    return rc;
}

static int run_row(void *arg, sqlite3_stmt *row, struct err *e)
{
    struct catalog_run *r = rows_add(arg, e);
    if (!r)
        return ERR_NOMEM;
    sql_column_text(row, 0, r->source, sizeof r->source);
    r->number = sqlite3_column_int64(row, 1);
    r->state = (enum run_state)sqlite3_column_int(row, 2);
    r->started_at_us = sqlite3_column_int64(row, 3);
    r->ended_at_us = sqlite3_column_int64(row, 4);
    r->has_snapshot = sql_column_id(row, 5, r->snapshot);
    r->as_of_us = sqlite3_column_int64(row, 6);
    r->size_bytes = (uint64_t)sqlite3_column_int64(row, 7);
    r->bytes_read = (uint64_t)sqlite3_column_int64(row, 8);
    r->bytes_changed = (uint64_t)sqlite3_column_int64(row, 9);
    r->bytes_sent = (uint64_t)sqlite3_column_int64(row, 10);
    sql_column_text(row, 11, r->error, sizeof r->error);
    return 0;
}

int catalog_runs(struct catalog *c, const char *source, bool with_running, size_t limit,
                 struct catalog_run **ret, size_t *ret_count, struct err *e)
{
    return gather(c,
                  "SELECT source, number, state, started_at, ended_at, snapshot, as_of, size_bytes,"
                  " bytes_read, bytes_changed, bytes_sent, error FROM runs"
                  " WHERE source = ?1 AND (?2 OR state <> ?3) ORDER BY number DESC LIMIT ?4",
                  SQL_VALUES(SQL_T(source), SQL_I(with_running), SQL_I(RUN_RUNNING),
                             SQL_I(MIN(limit, (size_t)INT32_MAX))),
                  run_row, sizeof **ret, ret, ret_count, e);
}

static int run_worker_row(void *arg, sqlite3_stmt *row, struct err *e)
{
    struct catalog_run_worker *w = rows_add(arg, e);
    if (!w)
        return ERR_NOMEM;
    sql_column_text(row, 0, w->worker, sizeof w->worker);
    w->stored = sqlite3_column_int(row, 1) != 0;
    sql_column_text(row, 2, w->error, sizeof w->error);
    return 0;
}

int catalog_run_workers(struct catalog *c, const char *source, int64_t number,
                        struct catalog_run_worker **ret, size_t *ret_count, struct err *e)
{
    return gather(c,
                  "SELECT worker, stored, error FROM run_workers"
                  " WHERE source = ?1 AND number = ?2 ORDER BY worker",
                  SQL_VALUES(SQL_T(source), SQL_I(number)), run_worker_row, sizeof **ret, ret,
                  ret_count, e);
}

/* sequence is unsigned and kept in a signed column; beyond its range nothing real can be. */
static int check_sequence(uint64_t sequence, struct err *e)
{
    if (sequence <= INT64_MAX)
        return 0;
    return err_set(e, ERR_LIMIT, NULL, "the sequence %llu is beyond what can be",
                   (unsigned long long)sequence);
}

static int raise_sequence(struct catalog *c, const char *source, uint64_t at_least, struct err *e)
{
    return sql_run(c,
                   "INSERT INTO sources(source, sequence) VALUES(?1, ?2)"
                   " ON CONFLICT DO UPDATE SET sequence = ?2 WHERE sequence < ?2",
                   SQL_VALUES(SQL_T(source), SQL_I(at_least)), NULL, NULL, e);
}

#define PART_QUERY                                                                                 \
    "SELECT COUNT(*) FROM parts WHERE source = ?1 AND epoch = ?2 AND sequence = ?3 AND id = ?4"
#define PART_VALUES(source, p)                                                                     \
    SQL_VALUES(SQL_T(source), SQL_I((p)->epoch), SQL_I((p)->sequence), SQL_ID((p)->id))

static int add_part(struct catalog *c, const char *source, const struct catalog_part *part,
                    struct err *e)
{
    int rc =
        sql_run(c,
                "INSERT OR IGNORE INTO parts(source, epoch, sequence, id, size,"
                " is_snapshot) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
                SQL_VALUES(SQL_T(source), SQL_I(part->epoch), SQL_I(part->sequence),
                           SQL_ID(part->id), SQL_I(part->size_bytes), SQL_I(part->is_snapshot)),
                NULL, NULL, e);
    return rc ? rc : raise_sequence(c, source, part->sequence, e);
}

int catalog_parts_add(struct catalog *c, const char *source, const struct catalog_part *parts,
                      size_t count, struct err *e)
{
    size_t known = 0;
    int rc = 0;
    for (size_t i = 0; !rc && i < count; i++)
        rc = check_sequence(parts[i].sequence, e);
    if (rc)
        return rc;
    pthread_mutex_lock(&c->mutex);
    for (size_t i = 0; !rc && i < count; i++) {
        int64_t found = 0;
        rc = sql_run(c, PART_QUERY, PART_VALUES(source, &parts[i]), first_number, &found, e);
        known += found > 0;
    }
    if (!rc && known < count) {
        rc = sql_begin(c, e);
        if (!rc) {
            for (size_t i = 0; !rc && i < count; i++)
                rc = add_part(c, source, &parts[i], e);
            rc = sql_end(c, rc, e);
        }
    }
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

bool catalog_part_is_ours(struct catalog *c, const char *source, uint32_t epoch, uint64_t sequence,
                          const uint8_t id[CATALOG_ID])
{
    int64_t known = 0;
    if (sequence > INT64_MAX)
        return false;
    int rc =
        run_one(c, PART_QUERY, SQL_VALUES(SQL_T(source), SQL_I(epoch), SQL_I(sequence), SQL_ID(id)),
                first_number, &known, NULL);
    return !rc && known > 0;
}

static int part_row(void *arg, sqlite3_stmt *row, struct err *e)
{
    struct catalog_part *p = rows_add(arg, e);
    if (!p)
        return ERR_NOMEM;
    p->epoch = (uint32_t)sqlite3_column_int64(row, 0);
    p->sequence = (uint64_t)sqlite3_column_int64(row, 1);
    sql_column_id(row, 2, p->id);
    p->size_bytes = (uint64_t)sqlite3_column_int64(row, 3);
    p->is_snapshot = sqlite3_column_int(row, 4) != 0;
    return 0;
}

int catalog_parts(struct catalog *c, const char *source, struct catalog_part **ret,
                  size_t *ret_count, struct err *e)
{
    return gather(c,
                  "SELECT epoch, sequence, id, size, is_snapshot FROM parts WHERE source = ?1"
                  " ORDER BY epoch, sequence, id",
                  SQL_VALUES(SQL_T(source)), part_row, sizeof **ret, ret, ret_count, e);
}

int catalog_parts_forget(struct catalog *c, const char *source, const struct catalog_part *parts,
                         size_t count, struct err *e)
{
    if (!count)
        return 0;
    pthread_mutex_lock(&c->mutex);
    int rc = sql_begin(c, e);
    if (!rc) {
        for (size_t i = 0; i < count && !rc; i++)
            rc = sql_run(c,
                         "DELETE FROM parts"
                         " WHERE source = ?1 AND epoch = ?2 AND sequence = ?3 AND id = ?4",
                         PART_VALUES(source, &parts[i]), NULL, NULL, e);
        rc = sql_end(c, rc, e);
    }
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

int catalog_sequence(struct catalog *c, const char *source, uint64_t *ret, struct err *e)
{
    int64_t found = 0;
    int rc = run_one(c, "SELECT sequence FROM sources WHERE source = ?1", SQL_VALUES(SQL_T(source)),
                     first_number, &found, e);
    if (!rc)
        *ret = (uint64_t)found;
    return rc;
}

int catalog_sequence_raise(struct catalog *c, const char *source, uint64_t at_least, struct err *e)
{
    uint64_t now = 0;
    int rc = check_sequence(at_least, e);
    if (!rc)
        rc = catalog_sequence(c, source, &now, e);
    if (rc || now >= at_least)
        return rc;
    pthread_mutex_lock(&c->mutex);
    rc = raise_sequence(c, source, at_least, e);
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

static int held_row(void *arg, sqlite3_stmt *row, struct err *e)
{
    struct catalog_held *h = rows_add(arg, e);
    if (!h)
        return ERR_NOMEM;
    sql_column_text(row, 0, h->worker, sizeof h->worker);
    h->as_of_us = sqlite3_column_int64(row, 1);
    h->has_snapshot = sql_column_id(row, 2, h->snapshot);
    h->proven_at_us = sqlite3_column_int64(row, 3);
    return 0;
}

int catalog_held(struct catalog *c, const char *source, struct catalog_held **ret,
                 size_t *ret_count, struct err *e)
{
    return gather(c,
                  "SELECT worker, as_of, snapshot, proven_at FROM held WHERE source = ?1"
                  " ORDER BY worker",
                  SQL_VALUES(SQL_T(source)), held_row, sizeof **ret, ret, ret_count, e);
}

int catalog_held_set(struct catalog *c, const char *source, const char *worker, int64_t as_of_us,
                     const uint8_t snapshot[CATALOG_ID], struct err *e)
{
    pthread_mutex_lock(&c->mutex);
    int rc = note_held(c, source, worker, as_of_us, snapshot, e);
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

int catalog_held_lost(struct catalog *c, const char *source, const char *worker, struct err *e)
{
    return run_one(c,
                   "UPDATE held SET as_of = 0, snapshot = NULL, proven_at = 0"
                   " WHERE source = ?1 AND worker = ?2",
                   SQL_VALUES(SQL_T(source), SQL_T(worker)), NULL, NULL, e);
}

int catalog_held_learn(struct catalog *c, const char *source, const char *worker,
                       const struct catalog_held *was, const struct catalog_held *is, struct err *e)
{
    return run_one(c,
                   "INSERT INTO held(source, worker, as_of, snapshot) VALUES(?1, ?2, ?3, ?4)"
                   " ON CONFLICT DO UPDATE SET as_of = ?3, snapshot = ?4,"
                   " proven_at = CASE WHEN ?4 IS NULL THEN 0 ELSE proven_at END"
                   " WHERE as_of = ?5 AND snapshot IS ?6",
                   SQL_VALUES(SQL_T(source), SQL_T(worker), SQL_I(is->as_of_us),
                              SQL_ID(is->has_snapshot ? is->snapshot : NULL), SQL_I(was->as_of_us),
                              SQL_ID(was->has_snapshot ? was->snapshot : NULL)),
                   NULL, NULL, e);
}

int catalog_unproven_add(struct catalog *c, const char *source, const char *worker,
                         const uint8_t snapshot[CATALOG_ID], int64_t now_us, struct err *e)
{
    int rc = run_one(c, "DELETE FROM unproven WHERE source = ?1 AND at < ?2",
                     SQL_VALUES(SQL_T(source), SQL_I(now_us - PROOF_KEPT_US)), NULL, NULL, e);
    if (!rc)
        rc = run_one(
            c,
            "INSERT OR REPLACE INTO unproven(source, worker, snapshot, at) VALUES(?1, ?2, ?3, ?4)",
            SQL_VALUES(SQL_T(source), SQL_T(worker), SQL_ID(snapshot), SQL_I(now_us)), NULL, NULL,
            e);
    return rc;
}

bool catalog_unproven_has(struct catalog *c, const char *source, const char *worker,
                          const uint8_t snapshot[CATALOG_ID])
{
    int64_t known = 0;
    int rc = run_one(
        c, "SELECT COUNT(*) FROM unproven WHERE source = ?1 AND worker = ?2 AND snapshot = ?3",
        SQL_VALUES(SQL_T(source), SQL_T(worker), SQL_ID(snapshot)), first_number, &known, NULL);
    return !rc && known > 0;
}

int catalog_unproven_clear(struct catalog *c, const char *source, const char *worker, struct err *e)
{
    pthread_mutex_lock(&c->mutex);
    int rc = forget_unproven(c, source, worker, NULL, e);
    pthread_mutex_unlock(&c->mutex);
    return rc;
}

int catalog_proven_set(struct catalog *c, const char *source, const char *worker,
                       const uint8_t snapshot[CATALOG_ID], int64_t proven_at_us, struct err *e)
{
    int rc = run_one(c,
                     "INSERT INTO held(source, worker, proven_at) VALUES(?1, ?2, ?3)"
                     " ON CONFLICT DO UPDATE SET proven_at = ?3",
                     SQL_VALUES(SQL_T(source), SQL_T(worker), SQL_I(proven_at_us)), NULL, NULL, e);
    if (!rc)
        rc =
            run_one(c,
                    "INSERT INTO proofs(source, worker, snapshot, at) VALUES(?1, ?2, ?3, ?4)"
                    " ON CONFLICT DO UPDATE SET at = ?4",
                    SQL_VALUES(SQL_T(source), SQL_T(worker), SQL_ID(snapshot), SQL_I(proven_at_us)),
                    NULL, NULL, e);
    if (!rc)
        rc = run_one(c, "DELETE FROM unproven WHERE source = ?1 AND worker = ?2 AND snapshot = ?3",
                     SQL_VALUES(SQL_T(source), SQL_T(worker), SQL_ID(snapshot)), NULL, NULL, e);
    if (!rc)
        rc = run_one(c, "DELETE FROM proofs WHERE source = ?1 AND at < ?2",
                     SQL_VALUES(SQL_T(source), SQL_I(proven_at_us - PROOF_KEPT_US)), NULL, NULL, e);
    return rc;
}

int64_t catalog_proven_at(struct catalog *c, const char *source, const uint8_t snapshot[CATALOG_ID])
{
    int64_t at = 0;
    int rc = run_one(c, "SELECT MAX(at) FROM proofs WHERE source = ?1 AND snapshot = ?2",
                     SQL_VALUES(SQL_T(source), SQL_ID(snapshot)), first_number, &at, NULL);
    return rc ? 0 : at;
}

int catalog_damage_add(struct catalog *c, const char *worker, const char *source, const char *part,
                       int64_t now_us, struct err *e)
{
    return run_one(c,
                   "INSERT OR IGNORE INTO damage(worker, source, part, since)"
                   " VALUES(?1, ?2, ?3, ?4)",
                   SQL_VALUES(SQL_T(worker), SQL_T(source), SQL_T(part), SQL_I(now_us)), NULL, NULL,
                   e);
}

int catalog_damage_clear(struct catalog *c, const char *worker, const char *source,
                         const char *part, struct err *e)
{
    return run_one(c, "DELETE FROM damage WHERE worker = ?1 AND source = ?2 AND part = ?3",
                   SQL_VALUES(SQL_T(worker), SQL_T(source), SQL_T(part)), NULL, NULL, e);
}

int64_t catalog_verified_at(struct catalog *c, const char *worker, const char *source,
                            const char *part)
{
    int64_t at = 0;
    int rc =
        run_one(c, "SELECT at FROM verified WHERE worker = ?1 AND source = ?2 AND part = ?3",
                SQL_VALUES(SQL_T(worker), SQL_T(source), SQL_T(part)), first_number, &at, NULL);
    return rc ? 0 : at;
}

int catalog_verified_set(struct catalog *c, const char *worker, const char *source,
                         const char *part, int64_t now_us, struct err *e)
{
    return run_one(c,
                   "INSERT INTO verified(worker, source, part, at) VALUES(?1, ?2, ?3, ?4)"
                   " ON CONFLICT DO UPDATE SET at = ?4",
                   SQL_VALUES(SQL_T(worker), SQL_T(source), SQL_T(part), SQL_I(now_us)), NULL, NULL,
                   e);
}

int catalog_verified_forget(struct catalog *c, const char *source, int64_t before_us, struct err *e)
{
    return run_one(c, "DELETE FROM verified WHERE source = ?1 AND at < ?2",
                   SQL_VALUES(SQL_T(source), SQL_I(before_us)), NULL, NULL, e);
}

bool catalog_damage_has(struct catalog *c, const char *worker, const char *source, const char *part)
{
    int64_t known = 0;
    int rc =
        run_one(c, "SELECT COUNT(*) FROM damage WHERE worker = ?1 AND source = ?2 AND part = ?3",
                SQL_VALUES(SQL_T(worker), SQL_T(source), SQL_T(part)), first_number, &known, NULL);
    return !rc && known > 0;
}

static int damage_row(void *arg, sqlite3_stmt *row, struct err *e)
{
    struct catalog_damage *d = rows_add(arg, e);
    if (!d)
        return ERR_NOMEM;
    sql_column_text(row, 0, d->worker, sizeof d->worker);
    sql_column_text(row, 1, d->source, sizeof d->source);
    sql_column_text(row, 2, d->part, sizeof d->part);
    d->since_us = sqlite3_column_int64(row, 3);
    return 0;
}

int catalog_damages(struct catalog *c, const char *source, struct catalog_damage **ret,
                    size_t *ret_count, struct err *e)
{
    return gather(c,
                  "SELECT worker, source, part, since FROM damage"
                  " WHERE ?1 IS NULL OR source = ?1 ORDER BY worker, source, part",
                  SQL_VALUES(source ? SQL_T(source) : (struct sql_value){.kind = SQL_NULL}),
                  damage_row, sizeof **ret, ret, ret_count, e);
}
