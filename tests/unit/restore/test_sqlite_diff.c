/* What differs between two states of a database, held against SQLite's own session extension. */
#define SQLITE_ENABLE_SESSION
#define SQLITE_ENABLE_PREUPDATE_HOOK
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "restore/sqlite_diff.h"
#include "syncd/base/err.h"

struct states {
    sqlite3 *before, *after;
    struct table_diff found[32];
    char names[32][64];
    size_t count;
};

static void sql(sqlite3 *db, const char *text)
{
    char *msg = NULL;
    if (sqlite3_exec(db, text, NULL, NULL, &msg) != SQLITE_OK)
        fail_msg("%s: %s", text, msg);
}

static const char tables[] =
    "CREATE TABLE plain(id INTEGER PRIMARY KEY, v);"
    "CREATE TABLE text_key(a TEXT, b, v, PRIMARY KEY(a, b));"
    "CREATE TABLE without(k PRIMARY KEY, v) WITHOUT ROWID;"
    "CREATE TABLE \"odd \"\"name\"(k TEXT COLLATE NOCASE, n INTEGER, v, PRIMARY KEY(n DESC, k)) "
    "WITHOUT ROWID;"
    "CREATE TABLE taken(rowid TEXT PRIMARY KEY, v);";

static const char fill[] =
    "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<400) "
    "INSERT INTO plain SELECT i, i * 3 FROM c;"
    "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<400) "
    "INSERT INTO text_key SELECT 'key' || (i % 50), i / 50, randomblob(i) FROM c;"
    "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<400) "
    "INSERT INTO without SELECT CASE i % 4 WHEN 0 THEN i WHEN 1 THEN i + 0.5 WHEN 2 THEN 'k' || i "
    "ELSE CAST('b' || i AS BLOB) END, i FROM c;"
    "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<400) "
    "INSERT INTO \"odd \"\"name\" SELECT 'Key' || i, i % 7, NULL FROM c;"
    "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<400) "
    "INSERT INTO taken SELECT 'r' || i, 1.5 * i FROM c;";

static void copy(sqlite3 *from, sqlite3 *to)
{
    sqlite3_backup *b = sqlite3_backup_init(to, "main", from, "main");
    assert_non_null(b);
    assert_int_equal(sqlite3_backup_step(b, -1), SQLITE_DONE);
    sqlite3_backup_finish(b);
}

static int setup(void **state)
{
    struct states *s = calloc(1, sizeof *s);
    assert_int_equal(sqlite3_open(":memory:", &s->before), SQLITE_OK);
    assert_int_equal(sqlite3_open(":memory:", &s->after), SQLITE_OK);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct states *s = *state;
    sqlite3_close(s->before);
    sqlite3_close(s->after);
    free(s);
    return 0;
}

static int keep(void *arg, const struct table_diff *t, struct err *e)
{
    struct states *s = arg;
    (void)e;
    assert_true(s->count < 32);
    snprintf(s->names[s->count], sizeof s->names[0], "%s", t->name);
    s->found[s->count++] = *t;
    return 0;
}

static void run(struct states *s)
{
    struct err e = ERR_INIT;
    struct sqlite_diff d = {
        .before = s->before, .after = s->after, .name = "test", .table = keep, .arg = s};
    s->count = 0;
    if (sqlite_diff(&d, &e))
        fail_msg("%s", e.message);
}

static const struct table_diff *found(struct states *s, const char *name)
{
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->names[i], name) == 0)
            return &s->found[i];
    fail_msg("no table %s", name);
    abort();
}

static void assert_counts(struct states *s, const char *name, uint64_t inserted, uint64_t updated,
                          uint64_t deleted)
{
    const struct table_diff *t = found(s, name);
    assert_int_equal(t->change, TABLE_COMPARED);
    if (t->inserted != inserted || t->updated != updated || t->deleted != deleted)
        fail_msg("%s: %d inserted, %d updated, %d deleted; not %d, %d, %d", name, (int)t->inserted,
                 (int)t->updated, (int)t->deleted, (int)inserted, (int)updated, (int)deleted);
}

/* What the session extension finds of one table. */
static void ask_session(struct states *s, const char *table, uint64_t ret[3])
{
    sqlite3_session *session;
    sqlite3_changeset_iter *i;
    sqlite3 *db;
    char *msg = NULL;
    void *set;
    int n, columns, op, indirect;
    const char *name;
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    copy(s->after, db);
    sql(db, "ATTACH ':memory:' AS old");
    sqlite3_backup *b = sqlite3_backup_init(db, "old", s->before, "main");
    assert_int_equal(sqlite3_backup_step(b, -1), SQLITE_DONE);
    sqlite3_backup_finish(b);
    assert_int_equal(sqlite3session_create(db, "main", &session), SQLITE_OK);
    assert_int_equal(sqlite3session_attach(session, table), SQLITE_OK);
    if (sqlite3session_diff(session, "old", table, &msg) != SQLITE_OK)
        fail_msg("%s: %s", table, msg);
    assert_int_equal(sqlite3session_changeset(session, &n, &set), SQLITE_OK);
    assert_int_equal(sqlite3changeset_start(&i, n, set), SQLITE_OK);
    memset(ret, 0, 3 * sizeof *ret);
    while (sqlite3changeset_next(i) == SQLITE_ROW) {
        sqlite3changeset_op(i, &name, &columns, &op, &indirect);
        ret[op == SQLITE_INSERT ? 0 : op == SQLITE_UPDATE ? 1 : 2]++;
    }
    sqlite3changeset_finalize(i);
    sqlite3_free(set);
    sqlite3session_delete(session);
    sqlite3_close(db);
}

static void as_the_session_extension(void **state)
{
    static const char *const names[] = {"plain", "text_key", "without", "odd \"name", "taken"};
    static const char *const changes[] = {
        "UPDATE plain SET v = v + 1 WHERE id %% 17 = %d",
        "DELETE FROM plain WHERE id %% 19 = %d",
        "INSERT INTO plain(v) SELECT %d FROM plain WHERE id < 9",
        "UPDATE OR IGNORE plain SET id = id + 100000 WHERE id %% 23 = %d",
        "REPLACE INTO text_key SELECT a, b, zeroblob(5) FROM text_key WHERE rowid %% 13 = %d",
        "REPLACE INTO text_key SELECT a, b, v FROM text_key WHERE rowid %% 11 = %d",
        "DELETE FROM text_key WHERE b = %d",
        "INSERT OR IGNORE INTO text_key VALUES ('new', %d, 1)",
        "UPDATE without SET v = v || 'x' WHERE v %% 29 = %d",
        "DELETE FROM without WHERE v %% 31 = %d",
        "INSERT OR IGNORE INTO without VALUES ('n' || %d, 0)",
        "UPDATE \"odd \"\"name\" SET v = %d WHERE n = 3",
        "DELETE FROM \"odd \"\"name\" WHERE n = %d",
        "UPDATE taken SET v = 7 WHERE v > 500 + %d",
        "INSERT OR REPLACE INTO taken VALUES ('r%d', 2)",
        "VACUUM -- %d",
    };
    struct states *s = *state;
    unsigned seed = (unsigned)time(NULL);
    printf("seed %u\n", seed);
    srand(seed);
    sql(s->before, tables);
    sql(s->before, fill);
    for (int round = 0; round < 25; round++) {
        char text[300];
        copy(s->before, s->after);
        for (int i = rand() % 7; i >= 0; i--) {
            /* A format out of the list above. */
            const char *f = changes[(size_t)rand() % (sizeof changes / sizeof *changes)];
            const char *at = strstr(f, "%d");
            snprintf(text, sizeof text, "%.*s%d%s", (int)(at - f), f, rand() % 11, at + 2);
            for (char *p; (p = strstr(text, "%%"));)
                memmove(p, p + 1, strlen(p));
            sql(s->after, text);
        }
        run(s);
        assert_int_equal(s->count, 5);
        for (size_t i = 0; i < 5; i++) {
            uint64_t expected[3];
            ask_session(s, names[i], expected);
            assert_true(found(s, names[i])->has_key);
            assert_counts(s, names[i], expected[0], expected[1], expected[2]);
        }
        copy(s->after, s->before); /* and on from there */
    }
}

static void without_a_key(void **state)
{
    struct states *s = *state;
    sql(s->before, "CREATE TABLE log(at, v); "
                   "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<300) "
                   "INSERT INTO log SELECT i, 'line ' || (i / 2) FROM c;");
    copy(s->before, s->after);
    run(s);
    assert_false(found(s, "log")->has_key);
    assert_counts(s, "log", 0, 0, 0);
    sql(s->after, "INSERT INTO log VALUES (1, 2), (1, 2); UPDATE log SET v = 'x' WHERE at = 7; "
                  "DELETE FROM log WHERE at BETWEEN 20 AND 24");
    run(s);
    assert_counts(s, "log", 2, 1, 5);
    sql(s->after, "VACUUM"); /* gives new rowids */
    run(s);
    const struct table_diff *t = found(s, "log");
    assert_int_equal(t->inserted + t->updated, 3);
    assert_int_equal(t->deleted + t->updated, 6);
}

static void tables_that_come_go_and_change(void **state)
{
    struct states *s = *state;
    sql(s->before,
        "CREATE TABLE gone(a); INSERT INTO gone VALUES (1), (2); "
        "CREATE TABLE wider(id INTEGER PRIMARY KEY); INSERT INTO wider VALUES (1); "
        "CREATE TABLE same(a PRIMARY KEY) WITHOUT ROWID; "
        "CREATE VIRTUAL TABLE words USING fts4(x); CREATE VIEW v AS SELECT 1;"
        "CREATE TABLE computed(a, b AS (a + 1), c AS (a || 'x') STORED);"
        "INSERT INTO computed(a) VALUES (1);"
        "CREATE TABLE all_taken(rowid, oid, _rowid_); INSERT INTO all_taken VALUES (1,2,3);");
    copy(s->before, s->after);
    sql(s->after,
        "DROP TABLE gone; ALTER TABLE wider ADD COLUMN x; INSERT INTO wider VALUES (2, 3);"
        "CREATE TABLE come(a); INSERT INTO come VALUES (1), (2), (3);"
        "UPDATE computed SET a = 2");
    run(s);
    assert_int_equal(s->count, 7);
    assert_int_equal(found(s, "gone")->change, TABLE_REMOVED);
    assert_int_equal(found(s, "gone")->deleted, 2);
    assert_int_equal(found(s, "come")->change, TABLE_ADDED);
    assert_int_equal(found(s, "come")->inserted, 3);
    assert_int_equal(found(s, "wider")->change, TABLE_OTHER_COLUMNS);
    assert_int_equal(found(s, "wider")->inserted, 2);
    assert_int_equal(found(s, "wider")->deleted, 1);
    assert_counts(s, "same", 0, 0, 0);
    assert_counts(s, "computed", 0, 1, 0);
    assert_int_equal(found(s, "words")->change, TABLE_NOT_COMPARED);
    assert_non_null(found(s, "words")->why);
    assert_int_equal(found(s, "all_taken")->change, TABLE_NOT_COMPARED);
}

static void order_of_all_kinds_of_values(void **state)
{
    struct states *s = *state;
    sql(s->before, "CREATE TABLE k(k PRIMARY KEY, v) WITHOUT ROWID;"
                   "INSERT INTO k VALUES (-9223372036854775808, 1), (9223372036854775807, 1), "
                   "(9223372036854775807.0, 1), (9007199254740993, 1), (9007199254740992.0, 1), "
                   "(-1e300, 1), (1e300, 1), (9e999, 1), (0.5, 1), (0, 1), ('', 1), (x'', 1), "
                   "('a', 1), ('a' || char(0) || 'b', 1), (x'61', 1), ('ä', 1), ('B', 1);");
    copy(s->before, s->after);
    run(s);
    assert_counts(s, "k", 0, 0, 0);
    sql(s->after, "DELETE FROM k WHERE k IN (9007199254740993, 'ä', x''); UPDATE k SET v = 1.0 "
                  "WHERE k = 0; INSERT INTO k VALUES (9007199254740991, 1), ('ab', 1)");
    run(s);
    assert_counts(s, "k", 2, 1, 3);
}

static int stop(void *arg)
{
    (void)arg;
    return 1;
}

static void a_stop_is_heard(void **state)
{
    struct states *s = *state;
    struct err e = ERR_INIT;
    struct sqlite_diff d = {
        .before = s->before, .after = s->after, .name = "test", .table = keep, .arg = s};
    sql(s->before, tables);
    sql(s->before, fill);
    copy(s->before, s->after);
    sqlite3_progress_handler(s->after, 100, stop, NULL);
    assert_int_equal(sqlite_diff(&d, &e), ERR_CANCELLED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(as_the_session_extension, setup, teardown),
        cmocka_unit_test_setup_teardown(without_a_key, setup, teardown),
        cmocka_unit_test_setup_teardown(tables_that_come_go_and_change, setup, teardown),
        cmocka_unit_test_setup_teardown(order_of_all_kinds_of_values, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stop_is_heard, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
