/* A real database through plan, pipeline and local stores and back, compared byte by byte with what
 * SQLite itself says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "conf/conf.h"
#include "restore/image_fetch.h"
#include "restore/restore.h"
#include "snapshot/backup.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "tests/support/sshd.h"
#include "transport/open.h"
#include "transport/store.h"

#define MAX_WORKERS 2

struct world {
    char dir[64];
    char db[128], fp[128], target[160];
    struct repository repo;
    struct store *stores[MAX_WORKERS];
    struct listing listings[MAX_WORKERS];
    bool present[MAX_WORKERS]; /* takes part in the next run */
    char *paths[2];
    struct conf_source source;
    sqlite3 *sql;
    struct backup_result result;
    _Atomic uint64_t sequence;
};

static void sql(struct world *w, const char *text)
{
    char *msg = NULL;
    if (sqlite3_exec(w->sql, text, NULL, NULL, &msg) != SQLITE_OK)
        fail_msg("%s: %s", text, msg);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    struct err e = ERR_INIT;
    snprintf(w->dir, sizeof w->dir, "/tmp/syncd-test-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->db, sizeof w->db, "%s/lab.sqlite", w->dir);
    snprintf(w->fp, sizeof w->fp, "%s/fp", w->dir);
    assert_int_equal(mkdir(w->fp, 0700), 0);
    assert_int_equal(digest_init(&e), 0);
    repository_new("test", &w->repo);
    for (int i = 0; i < MAX_WORKERS; i++) {
        char url[160];
        struct store_options o = {.name = i ? "worker2" : "worker1"};
        snprintf(url, sizeof url, "file://%s/w%d", w->dir, i + 1);
        assert_int_equal(url_parse(url, &o.url, &e), 0);
        if (store_open_url(&o, &w->stores[i], &e))
            fail_msg("%s", e.message);
        if (repository_create(w->stores[i], &w->repo, &e))
            fail_msg("%s", e.message);
        w->present[i] = true;
    }
    w->paths[0] = w->db;
    w->source = (struct conf_source){.name = strdup("lab"), .path = w->paths};
    assert_int_equal(sqlite3_open(w->db, &w->sql), SQLITE_OK);
    sql(w, "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=100;"
           "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);");
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    sqlite3_close(w->sql);
    for (int i = 0; i < MAX_WORKERS; i++) {
        store_close(w->stores[i]);
        listing_free(&w->listings[i]);
    }
    free(w->source.name);
    backup_result_free(&w->result);
    test_remove_tree(w->dir);
    free(w);
    return 0;
}

static bool all_ours(void *arg, const struct part_ref *ref)
{
    (void)arg;
    (void)ref;
    return true;
}

static void note_sequence(void *arg, const struct part_ref *ref, bool snapshot)
{
    struct world *w = arg;
    (void)snapshot;
    uint64_t known = w->sequence;
    while (ref->sequence > known &&
           !atomic_compare_exchange_weak(&w->sequence, &known, ref->sequence))
        continue;
}

static void list_all(struct world *w)
{
    struct err e = ERR_INIT;
    for (int i = 0; i < MAX_WORKERS; i++) {
        listing_free(&w->listings[i]);
        if (listing_read(w->stores[i], "lab", &w->listings[i], &e))
            fail_msg("%s", e.message);
    }
}

static void backup(struct world *w)
{
    struct err e = ERR_INIT;
    struct backup_params p = {.repository = &w->repo,
                              .source = &w->source,
                              .config_text = "name = \"test\"\n",
                              .config_len = 14,
                              .epoch = 1,
                              .min_sequence = w->sequence + 1,
                              .fingerprint_dir = w->fp,
                              .is_ours = all_ours,
                              .publishing = note_sequence,
                              .arg = w};
    list_all(w);
    backup_result_free(&w->result);
    for (int i = 0; i < MAX_WORKERS; i++) {
        if (!w->present[i])
            continue;
        p.workers[p.worker_count].store = w->stores[i];
        p.workers[p.worker_count++].listing = &w->listings[i];
    }
    if (backup_run(&p, &w->result, &e))
        fail_msg("%s", e.message);
    for (size_t i = 0; i < p.worker_count; i++)
        if (w->result.workers[i].err.code)
            fail_msg("%s", w->result.workers[i].err.message);
}

static void open_pool(struct world *w, struct pool *pool)
{
    list_all(w);
    *pool = (struct pool){.repository = &w->repo, .source = "lab", .store_count = MAX_WORKERS};
    for (int i = 0; i < MAX_WORKERS; i++) {
        pool->at[i].store = w->stores[i];
        pool->at[i].listing = &w->listings[i];
    }
}

/* Restores the last run's snapshot and compares it, page for page, with VACUUM-free copy by SQLite:
 * the row contents by a query, the file by quick_check (restore_run does it). */
static void restore_and_compare(struct world *w, const char *name)
{
    struct pool pool;
    struct err e = ERR_INIT;
    struct restore_summary sum;
    OWN_SNAPSHOT struct snapshot s = {0};
    open_pool(w, &pool);
    struct part_ref ref = w->result.snapshot;
    ref.size_bytes = 0;
    if (pool_snapshot(&pool, &ref, &s, &e))
        fail_msg("%s", e.message);
    snprintf(w->target, sizeof w->target, "%s/%s", w->dir, name);
    struct restore_params p = {.pool = &pool, .snapshot = &s, .target = w->target};
    if (restore_run(&p, &sum, &e))
        fail_msg("%s", e.message);
    pool_close(&pool);
    char attach[512];
    sqlite3_stmt *stmt;
    snprintf(attach, sizeof attach, "ATTACH 'file:%s%s?immutable=1' AS r", w->target, w->db);
    sql(w, attach);
    assert_int_equal(
        sqlite3_prepare_v2(w->sql,
                           "SELECT (SELECT count(*) FROM (SELECT * FROM main.t EXCEPT SELECT * "
                           "FROM r.t)) + (SELECT count(*) FROM (SELECT * FROM r.t EXCEPT SELECT * "
                           "FROM main.t)), (SELECT count(*) FROM main.t) - (SELECT count(*) FROM "
                           "r.t), (SELECT count(*) FROM r.t)",
                           -1, &stmt, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    assert_int_equal(sqlite3_column_int(stmt, 0), 0);
    assert_int_equal(sqlite3_column_int(stmt, 1), 0);
    assert_true(sqlite3_column_int(stmt, 2) > 0);
    sqlite3_finalize(stmt);
    sql(w, "DETACH r");
}

static void fill(struct world *w, int rows)
{
    char text[256];
    snprintf(text, sizeof text,
             "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<%d) "
             "INSERT INTO t(v) SELECT randomblob(300) FROM c",
             rows);
    sql(w, text);
}

static void full_and_increments_come_back(void **state)
{
    struct world *w = *state;
    fill(w, 20000);
    backup(w);
    assert_false(w->result.unchanged);
    assert_true(w->result.complete);
    assert_true(w->result.workers[0].stored && w->result.workers[1].stored);
    restore_and_compare(w, "first");
    uint64_t full = w->result.sent_bytes;
    for (int i = 0; i < 5; i++) {
        char name[16];
        sql(w, "UPDATE t SET v = randomblob(300) WHERE id % 997 = 1");
        if (i == 3)
            sql(w, "DELETE FROM t WHERE id > 15000; VACUUM");
        backup(w);
        snprintf(name, sizeof name, "inc%d", i);
        restore_and_compare(w, name);
        if (i < 3)
            assert_true(w->result.sent_bytes < full / 10);
    }
}

static void unchanged_ships_nothing(void **state)
{
    struct world *w = *state;
    fill(w, 1000);
    sqlite3_close(w->sql); /* checkpoints and removes the -wal */
    struct timespec old[2] = {{.tv_sec = time(NULL) - 100}, {.tv_sec = time(NULL) - 100}};
    utimensat(AT_FDCWD, w->db, old, 0);
    usleep(2200000); /* ctime cannot be set back: the rule wants it 2 s old */
    backup(w);
    assert_false(w->result.unchanged);
    struct part_ref first = w->result.snapshot;
    backup(w);
    assert_true(w->result.unchanged);
    assert_true(part_same(&first, &w->result.snapshot));
    char wal[160];
    snprintf(wal, sizeof wal, "%s-wal", w->db);
    assert_int_equal(access(wal, F_OK), -1);
    snprintf(wal, sizeof wal, "%s-shm", w->db);
    assert_int_equal(access(wal, F_OK), -1);
    assert_int_equal(sqlite3_open(w->db, &w->sql), SQLITE_OK);
    restore_and_compare(w, "same");
}

static void worker_that_was_away_gets_packs(void **state)
{
    struct world *w = *state;
    fill(w, 5000);
    backup(w);
    w->present[1] = false;
    sql(w, "UPDATE t SET v = randomblob(300) WHERE id % 97 = 1");
    backup(w);
    w->present[1] = true;
    sql(w, "UPDATE t SET v = randomblob(300) WHERE id % 89 = 1");
    backup(w);
    assert_true(w->result.workers[0].stored);
    assert_false(w->result.workers[1].stored);
    assert_true(w->result.workers[1].as_pack);
    restore_and_compare(w, "away");
}

static void the_list_of_parts_stays_short(void **state)
{
    struct world *w = *state;
    size_t longest = 0, consolidated = 0;
    fill(w, 2000);
    w->present[1] = false;
    for (int i = 0; i < 200; i++) {
        char text[100];
        struct pool pool;
        struct err e = ERR_INIT;
        OWN_SNAPSHOT struct snapshot s = {0};
        snprintf(text, sizeof text, "UPDATE t SET v = randomblob(300) WHERE id = %d",
                 1 + (i * 37) % 2000);
        sql(w, text);
        backup(w);
        open_pool(w, &pool);
        struct part_ref ref = w->result.snapshot;
        if (pool_snapshot(&pool, &ref, &s, &e))
            fail_msg("%s", e.message);
        pool_close(&pool);
        longest = s.part_count > longest ? s.part_count : longest;
        consolidated += w->result.consolidated;
    }
    assert_true(longest <= 128);
    assert_true(consolidated >= 1);
    restore_and_compare(w, "many");
}

static void lost_and_rotten_parts_heal_by_themselves(void **state)
{
    struct world *w = *state;
    char name[PART_NAME_SIZE], path[300];
    w->present[1] = false;
    fill(w, 5000);
    backup(w);
    struct part_ref first = w->result.snapshot;
    sql(w, "UPDATE t SET v = randomblob(300) WHERE id % 97 = 1");
    backup(w);
    part_name_format(&first, PART_SNAP, name);
    snprintf(path, sizeof path, "%s/w1/lab/%s", w->dir, name);
    assert_int_equal(truncate(path, 5000), 0);
    sql(w, "UPDATE t SET v = randomblob(300) WHERE id % 89 = 1");
    backup(w);
    restore_and_compare(w, "healed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(full_and_increments_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(unchanged_ships_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(worker_that_was_away_gets_packs, setup, teardown),
        cmocka_unit_test_setup_teardown(the_list_of_parts_stays_short, setup, teardown),
        cmocka_unit_test_setup_teardown(lost_and_rotten_parts_heal_by_themselves, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
