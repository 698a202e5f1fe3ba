/* How sources are read: ahead, but never beyond the transaction. */
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

#include "snapshot/sqlite_vfs.h"
#include "tests/support/sshd.h"

#define PAGE 4096
#define PAGES 64

static char dir[64], db[80];
static sqlite3 *connection;
static sqlite3_file *file;

static void put_byte(int page, char byte)
{
    int fd = open(db, O_WRONLY);
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)page * PAGE + 50), 1);
    close(fd);
}

static char byte_of(int page)
{
    static char data[PAGE];
    assert_int_equal(file->pMethods->xRead(file, data, PAGE, (sqlite3_int64)page * PAGE),
                     SQLITE_OK);
    return data[50];
}

/* Pages that hold nothing that SQLite looks at here: the file is only read by its methods. */
static int setup(void **state)
{
    char sql[200];
    sqlite3 *s;
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/syncd-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(db, sizeof db, "%s/db", dir);
    if (sqlite3_open(db, &s) != SQLITE_OK)
        return -1;
    snprintf(sql, sizeof sql,
             "PRAGMA page_size=%d; CREATE TABLE t(a); INSERT INTO t VALUES(zeroblob(%d))", PAGE,
             PAGE * PAGES);
    int rc = sqlite3_exec(s, sql, NULL, NULL, NULL);
    sqlite3_close(s);
    return rc;
}

static int teardown(void **state)
{
    (void)state;
    sqlite3_close(connection);
    connection = NULL;
    test_remove_tree(dir);
    return 0;
}

static void open_by(enum sqlite_vfs_way way)
{
    assert_int_equal(sqlite3_open_v2(db, &connection, SQLITE_OPEN_READONLY, sqlite_vfs_name(way)),
                     SQLITE_OK);
    assert_int_equal(sqlite3_file_control(connection, "main", SQLITE_FCNTL_FILE_POINTER, &file),
                     SQLITE_OK);
    assert_int_equal(byte_of(1), 0);
    assert_int_equal(byte_of(2), 0); /* goes on: what follows is read, too */
}

static void what_is_read_in_order_is_read_ahead(void **state)
{
    (void)state;
    open_by(SQLITE_VFS_SHARED);
    put_byte(3, 'x');
    assert_int_equal(byte_of(3), 0);
    assert_int_equal(byte_of(4), 0);
}

static void a_lock_drops_what_was_read_ahead(void **state)
{
    (void)state;
    for (int way = SQLITE_VFS_SHARED; way <= SQLITE_VFS_STILL; way++) {
        open_by((enum sqlite_vfs_way)way);
        put_byte(3, 'x');
        assert_int_equal(file->pMethods->xLock(file, SQLITE_LOCK_SHARED), SQLITE_OK);
        assert_int_equal(byte_of(3), 'x');
        put_byte(4, 'y');
        assert_int_equal(file->pMethods->xUnlock(file, SQLITE_LOCK_NONE), SQLITE_OK);
        assert_int_equal(byte_of(4), 'y');
        sqlite3_close(connection);
        put_byte(3, 0);
        put_byte(4, 0);
    }
}

static void a_lock_in_the_shm_drops_it(void **state)
{
    sqlite3 *s;
    (void)state;
    assert_int_equal(sqlite3_open(db, &s), SQLITE_OK);
    assert_int_equal(
        sqlite3_exec(s, "PRAGMA journal_mode=WAL; INSERT INTO t VALUES(1)", NULL, NULL, NULL),
        SQLITE_OK);
    open_by(SQLITE_VFS_SHARED);
    /* A read mark is taken and given back. */
    assert_int_equal(sqlite3_exec(connection, "SELECT count(*) FROM t", NULL, NULL, NULL),
                     SQLITE_OK);
    assert_int_equal(byte_of(1), 0);
    assert_int_equal(byte_of(2), 0);
    put_byte(3, 'x');
    assert_int_equal(file->pMethods->xShmLock(file, 3 + 4, 1, SQLITE_SHM_LOCK | SQLITE_SHM_SHARED),
                     SQLITE_OK);
    assert_int_equal(byte_of(3), 'x');
    put_byte(4, 'y');
    assert_int_equal(
        file->pMethods->xShmLock(file, 3 + 4, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED), SQLITE_OK);
    assert_int_equal(byte_of(4), 'y');
    sqlite3_close(s);
}

static void reading_elsewhere_drops_it(void **state)
{
    (void)state;
    open_by(SQLITE_VFS_SHARED);
    put_byte(3, 'x');
    assert_int_equal(byte_of(10), 0);
    assert_int_equal(byte_of(3), 'x');
}

static void the_end_of_the_file_is_read_as_it_is(void **state)
{
    char data[PAGE];
    sqlite3_int64 size;
    (void)state;
    open_by(SQLITE_VFS_SHARED);
    assert_int_equal(file->pMethods->xFileSize(file, &size), SQLITE_OK);
    int last = (int)(size / PAGE) - 1;
    put_byte(last, 'z');
    for (int page = 3; page < last; page++)
        (void)byte_of(page);
    assert_int_equal(byte_of(last), 'z');
    assert_int_equal(file->pMethods->xRead(file, data, PAGE, size), SQLITE_IOERR_SHORT_READ);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_read_in_order_is_read_ahead, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lock_drops_what_was_read_ahead, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lock_in_the_shm_drops_it, setup, teardown),
        cmocka_unit_test_setup_teardown(reading_elsewhere_drops_it, setup, teardown),
        cmocka_unit_test_setup_teardown(the_end_of_the_file_is_read_as_it_is, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
