/* A database from outside, against what SQLite itself makes. */
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
#include <unistd.h>

#include "snapshot/entry.h"
#include "snapshot/sqlite_files.h"
#include "snapshot/sqlite_vfs.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "tests/support/sshd.h"

static char dir[64], db[80], wal[96], shm[96];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/syncd-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(db, sizeof db, "%s/db", dir);
    snprintf(wal, sizeof wal, "%s-wal", db);
    snprintf(shm, sizeof shm, "%s-shm", db);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_remove_tree(dir);
    return 0;
}

static sqlite3 *make(const char *text)
{
    sqlite3 *s;
    assert_int_equal(sqlite3_open(db, &s), SQLITE_OK);
    assert_int_equal(sqlite3_exec(s, text, NULL, NULL, NULL), SQLITE_OK);
    return s;
}

static void poke(const char *path, off_t at, uint8_t value)
{
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, &value, 1, at), 1);
    close(fd);
}

static void headers(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct sqlite_header h;
    for (int shift = 9; shift <= 16; shift++) {
        char text[100];
        snprintf(text, sizeof text,
                 "PRAGMA page_size=%d; PRAGMA journal_mode=%s; CREATE TABLE t(a)", 1 << shift,
                 shift % 2 ? "WAL" : "DELETE");
        sqlite3_close(make(text));
        assert_true(sqlite_is_database(db));
        assert_int_equal(sqlite_header_read(db, &h, &e), 0);
        assert_int_equal(h.page_shift, shift);
        assert_int_equal(h.wal_mode, shift % 2);
        if (shift < 16)
            unlink(db);
    }
    poke(db, 16, 3);
    assert_int_equal(sqlite_header_read(db, &h, &e), ERR_SOURCE);
    assert_int_equal(truncate(db, 50), 0);
    assert_true(sqlite_is_database(db));
    assert_int_equal(sqlite_header_read(db, &h, &e), ERR_SOURCE);
    poke(db, 3, 'x');
    assert_false(sqlite_is_database(db));
    unlink(db);
    assert_int_equal(sqlite_header_read(db, &h, &e), ERR_NOT_FOUND);
}

static void logs_that_count(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    bool counts = true;
    sqlite3 *s = make("PRAGMA journal_mode=WAL; CREATE TABLE t(a)");
    assert_int_equal(sqlite_wal_counts(db, &counts, &e), 0);
    assert_true(counts);
    assert_true(sqlite_wal_bytes(db) > 4096);
    static const off_t places[] = {0, 5, 9, 13, 17, 23, 25, 31};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        uint8_t byte;
        int fd = open(wal, O_RDONLY);
        assert_int_equal(pread(fd, &byte, 1, places[i]), 1);
        close(fd);
        poke(wal, places[i], (uint8_t)(byte ^ 0x40));
        assert_int_equal(sqlite_wal_counts(db, &counts, &e), 0);
        assert_false(counts);
        poke(wal, places[i], byte);
    }
    assert_int_equal(sqlite_wal_counts(db, &counts, &e), 0);
    assert_true(counts);
    sqlite3_close(s);
    assert_int_equal(sqlite_wal_counts(db, &counts, &e), 0);
    assert_false(counts);
}

static void who_has_it_open(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    bool open_ = true;
    sqlite3 *s = make("PRAGMA journal_mode=WAL; CREATE TABLE t(a)");
    assert_int_equal(sqlite_is_open_elsewhere(db, &open_, &e), 0);
    assert_true(open_);
    sqlite3_close(s);
    assert_int_equal(sqlite_is_open_elsewhere(db, &open_, &e), 0);
    assert_false(open_);
    close(open(shm, O_CREAT | O_WRONLY, 0600)); /* nobody's */
    assert_int_equal(sqlite_is_open_elsewhere(db, &open_, &e), 0);
    assert_false(open_);
}

/* Reads rows through the VFS for databases that nobody has open; -1: SQLite says no. */
static int rows_when_still(void)
{
    sqlite3 *s;
    sqlite3_stmt *stmt = NULL;
    int n = -1;
    assert_int_equal(
        sqlite3_open_v2(db, &s, SQLITE_OPEN_READONLY, sqlite_vfs_name(SQLITE_VFS_STILL)),
        SQLITE_OK);
    if (sqlite3_prepare_v2(s, "SELECT count(*) FROM t", -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW)
        n = sqlite3_column_int(stmt, 0);
    sqlite3_finalize(stmt);
    assert_int_not_equal(sqlite3_exec(s, "INSERT INTO t VALUES(1)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_exec(s, "PRAGMA journal_mode=DELETE", NULL, NULL, NULL); /* would drop the -wal */
    sqlite3_close(s);
    return n;
}

static void put_file(const char *path, const struct buf *b)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b->data, 1, b->len, f), b->len);
    assert_int_equal(fclose(f), 0);
}

static void still_ones_stay_as_they_are(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct sqlite_files before, after;
    sqlite3 *s = make("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a); "
                      "INSERT INTO t VALUES(1); INSERT INTO t VALUES(2)");
    OWN_BUF struct buf kept_db = BUF_INIT;
    OWN_BUF struct buf kept_wal = BUF_INIT;
    assert_int_equal(io_read_file(db, 1 << 20, &kept_db, &e), 0);
    assert_int_equal(io_read_file(wal, 1 << 20, &kept_wal, &e), 0);
    sqlite3_close(s);
    put_file(db, &kept_db);
    put_file(wal, &kept_wal);
    assert_int_equal(sqlite_files_look(db, &before, &e), 0);
    assert_true(before.has_wal);
    assert_false(before.has_shm);
    assert_int_equal(rows_when_still(), 2);
    assert_int_equal(sqlite_files_look(db, &after, &e), 0);
    assert_true(sqlite_files_are_same(&before, &after));
    sqlite3_close(make("INSERT INTO t VALUES(3)"));
    assert_int_equal(sqlite_files_look(db, &after, &e), 0);
    assert_false(sqlite_files_are_same(&before, &after));
}

static void a_journal_that_comes_or_changes_is_a_change(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct sqlite_files before, begun, after;
    sqlite3 *s = make("CREATE TABLE t(a); PRAGMA journal_mode=PERSIST; PRAGMA cache_size=1");
    assert_int_equal(sqlite_files_look(db, &before, &e), 0);
    assert_int_equal(
        sqlite3_exec(s, "BEGIN; INSERT INTO t VALUES(zeroblob(100000))", NULL, NULL, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite_files_look(db, &begun, &e), 0);
    assert_true(begun.has_journal);
    assert_false(sqlite_files_are_same(&before, &begun));
    assert_true(sqlite_files_written_us(&begun) >= before.at_us - 20000);
    assert_int_equal(sqlite3_exec(s, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite_files_look(db, &after, &e), 0);
    after.db = begun.db;
    begun.journal.st_size++; /* whatever the clock's grain shows */
    assert_false(sqlite_files_are_same(&begun, &after));
    sqlite3_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(headers, setup, teardown),
        cmocka_unit_test_setup_teardown(logs_that_count, setup, teardown),
        cmocka_unit_test_setup_teardown(who_has_it_open, setup, teardown),
        cmocka_unit_test_setup_teardown(still_ones_stay_as_they_are, setup, teardown),
        cmocka_unit_test_setup_teardown(a_journal_that_comes_or_changes_is_a_change, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
