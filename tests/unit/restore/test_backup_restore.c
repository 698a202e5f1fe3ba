/* A real database through plan, pipeline and local stores and back, compared byte by byte with what
 * SQLite itself says. */
#include "tests/unit/restore/lab.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "restore/restore.h"
#include "syncd/base/err.h"

/* Restores the last run's snapshot and compares it, page for page, with VACUUM-free copy by SQLite:
 * the row contents by a query, the file by quick_check (restore_run does it). */
static void restore_and_compare(struct lab *w, const char *name)
{
    struct pool pool;
    struct err e = ERR_INIT;
    struct restore_summary sum;
    OWN_SNAPSHOT struct snapshot s = {0};
    lab_open_pool(w, &pool);
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
    lab_sql(w, attach);
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
    lab_sql(w, "DETACH r");
}

static void full_and_increments_come_back(void **state)
{
    struct lab *w = *state;
    lab_fill(w, 20000);
    lab_backup(w);
    assert_false(w->result.unchanged);
    assert_true(w->result.complete);
    assert_true(w->result.workers[0].stored && w->result.workers[1].stored);
    restore_and_compare(w, "first");
    uint64_t full = w->result.sent_bytes;
    for (int i = 0; i < 5; i++) {
        char name[16];
        lab_sql(w, "UPDATE t SET v = randomblob(300) WHERE id % 997 = 1");
        if (i == 3)
            lab_sql(w, "DELETE FROM t WHERE id > 15000; VACUUM");
        lab_backup(w);
        snprintf(name, sizeof name, "inc%d", i);
        restore_and_compare(w, name);
        if (i < 3)
            assert_true(w->result.sent_bytes < full / 10);
    }
}

static void unchanged_ships_nothing(void **state)
{
    struct lab *w = *state;
    lab_fill(w, 1000);
    sqlite3_close(w->sql); /* checkpoints and removes the -wal */
    struct timespec old[2] = {{.tv_sec = time(NULL) - 100}, {.tv_sec = time(NULL) - 100}};
    utimensat(AT_FDCWD, w->db, old, 0);
    usleep(2200000); /* ctime cannot be set back: the rule wants it 2 s old */
    lab_backup(w);
    assert_false(w->result.unchanged);
    struct part_ref first = w->result.snapshot;
    lab_backup(w);
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
    struct lab *w = *state;
    lab_fill(w, 5000);
    lab_backup(w);
    w->present[1] = false;
    lab_sql(w, "UPDATE t SET v = randomblob(300) WHERE id % 97 = 1");
    lab_backup(w);
    w->present[1] = true;
    lab_sql(w, "UPDATE t SET v = randomblob(300) WHERE id % 89 = 1");
    lab_backup(w);
    assert_true(w->result.workers[0].stored);
    assert_false(w->result.workers[1].stored);
    assert_true(w->result.workers[1].as_pack);
    restore_and_compare(w, "away");
}

/* The snapshot that the last backup made. */
static void read_newest(struct lab *w, struct snapshot *ret)
{
    struct pool pool;
    struct err e = ERR_INIT;
    lab_open_pool(w, &pool);
    struct part_ref ref = w->result.snapshot;
    if (pool_snapshot(&pool, &ref, ret, &e))
        fail_msg("%s", e.message);
    pool_close(&pool);
}

static void change_one_row(struct lab *w, int id)
{
    char text[100];
    snprintf(text, sizeof text, "UPDATE t SET v = randomblob(300) WHERE id = %d", id);
    lab_sql(w, text);
    lab_backup(w);
}

static void the_list_of_parts_stays_short(void **state)
{
    struct lab *w = *state;
    size_t longest = 0, consolidated = 0;
    lab_fill(w, 2000);
    w->present[1] = false;
    for (int i = 0; i < 200; i++) {
        OWN_SNAPSHOT struct snapshot s = {0};
        change_one_row(w, 1 + (i * 37) % 2000);
        read_newest(w, &s);
        longest = s.part_count > longest ? s.part_count : longest;
        consolidated += w->result.consolidated;
    }
    assert_true(longest <= 128);
    assert_true(consolidated >= 1);
    restore_and_compare(w, "many");
}

/* The first part has more pages in use than any of the small ones, but few for what a restore would
 * have to read of it. */
static void dead_weight_is_left_off(void **state)
{
    struct lab *w = *state;
    bool listed = false;
    lab_fill(w, 2000);
    w->present[1] = false;
    lab_backup(w);
    struct part_ref first = w->result.snapshot;
    lab_sql(w, "UPDATE t SET v = randomblob(300) WHERE id <= 1700");
    lab_backup(w);
    for (int i = 0; i < 140 && !w->result.consolidated; i++)
        change_one_row(w, 1 + (i * 37) % 1700);
    assert_true(w->result.consolidated);
    OWN_SNAPSHOT struct snapshot s = {0};
    read_newest(w, &s);
    for (size_t i = 0; i < s.part_count; i++)
        listed |= part_same(&s.parts[i], &first);
    assert_false(listed);
    restore_and_compare(w, "lighter");
}

static void lost_and_rotten_parts_heal_by_themselves(void **state)
{
    struct lab *w = *state;
    char name[PART_NAME_SIZE], path[300];
    w->present[1] = false;
    lab_fill(w, 5000);
    lab_backup(w);
    struct part_ref first = w->result.snapshot;
    lab_sql(w, "UPDATE t SET v = randomblob(300) WHERE id % 97 = 1");
    lab_backup(w);
    part_name_format(&first, PART_SNAP, name);
    snprintf(path, sizeof path, "%s/w1/lab/%s", w->dir, name);
    assert_int_equal(truncate(path, 5000), 0);
    lab_sql(w, "UPDATE t SET v = randomblob(300) WHERE id % 89 = 1");
    lab_backup(w);
    restore_and_compare(w, "healed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(full_and_increments_come_back, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(unchanged_ships_nothing, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(worker_that_was_away_gets_packs, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(the_list_of_parts_stays_short, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(dead_weight_is_left_off, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(lost_and_rotten_parts_heal_by_themselves, lab_setup,
                                        lab_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
