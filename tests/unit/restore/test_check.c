/* A database comes back as it was also when this machine cannot check it, or when it had a fault
 * already: the image sum is what proves a restore. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "restore/check.h"
#include "syncd/base/err.h"

static char path[64];

static int compare_text(void *arg, int n, const void *a, int m, const void *b)
{
    (void)arg;
    int order = memcmp(a, b, (size_t)(n < m ? n : m));
    return order ? order : n - m;
}

static void make_database(const char *sql)
{
    sqlite3 *db;
    char *message = NULL;
    snprintf(path, sizeof path, "/tmp/syncd-test-check-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_create_collation(db, "lab_order", SQLITE_UTF8, NULL, compare_text),
                     SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s", message);
    sqlite3_close(db);
}

static int check(bool thorough, struct err *e)
{
    *e = ERR_INIT;
    int rc = check_sqlite(path, "app.db", thorough, NULL, e);
    unlink(path);
    return rc;
}

static void a_good_one_passes(void **state)
{
    (void)state;
    struct err e;
    make_database("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    assert_int_equal(check(false, &e), 0);
    make_database("CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    assert_int_equal(check(true, &e), 0);
}

static void an_unknown_collation_says_nothing_against_it(void **state)
{
    (void)state;
    struct err e;
    make_database(
        "CREATE TABLE t(a TEXT COLLATE lab_order PRIMARY KEY); INSERT INTO t VALUES('x')");
    assert_int_equal(check(false, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.message, "lab_order"));
}

static void a_fault_is_told(void **state)
{
    (void)state;
    struct err e;
    make_database("CREATE TABLE t(a); INSERT INTO t VALUES(1); PRAGMA writable_schema=1;"
                  "UPDATE sqlite_master SET sql = 'CREATE TABLE t(a, b NOT NULL)'");
    assert_int_equal(check(false, &e), ERR_DAMAGED);
    make_database("CREATE TABLE p(a PRIMARY KEY); CREATE TABLE t(a REFERENCES p);"
                  "INSERT INTO t VALUES(1)");
    assert_int_equal(check(true, &e), ERR_DAMAGED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_one_passes),
        cmocka_unit_test(an_unknown_collation_says_nothing_against_it),
        cmocka_unit_test(a_fault_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
