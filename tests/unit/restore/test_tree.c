/* Trees through whole runs, where the system plays tricks: a disk that fails in the middle of a
 * database, files that change without a sign, an entry that is carried over while the list of parts
 * is shortened. */
#include "tests/unit/restore/lab.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "restore/restore.h"
#include "syncd/base/err.h"

#define HEAD 100 /* bytes of a database that a copy has of its own */

/* ---- files that change without a sign ---- */

static size_t frozen_count;
static struct stat frozen[4];

static int as_frozen(int rc, struct stat *st)
{
    for (size_t i = 0; rc == 0 && i < frozen_count; i++)
        if (frozen[i].st_ino == st->st_ino && frozen[i].st_dev == st->st_dev)
            *st = frozen[i];
    return rc;
}

/* With a 32-bit libc the names of the source stand for others. */
#if __TIMESIZE == 32
#define SYMBOL(name) "__" #name "64_time64"
#else
#define SYMBOL(name) #name
#endif

#define REAL(name)                                                                                 \
    static __typeof__(name) *real;                                                                 \
    if (!real)                                                                                     \
    *(void **)&real = dlsym(RTLD_NEXT, SYMBOL(name))

int stat(const char *path, struct stat *st)
{
    REAL(stat);
    return as_frozen(real(path, st), st);
}

int fstat(int fd, struct stat *st)
{
    REAL(fstat);
    return as_frozen(real(fd, st), st);
}

int lstat(const char *path, struct stat *st)
{
    REAL(lstat);
    return as_frozen(real(path, st), st);
}

int fstatat(int dir, const char *path, struct stat *st, int flags)
{
    REAL(fstatat);
    return as_frozen(real(dir, path, st, flags), st);
}

/* ---- a disk that fails ---- */

static ino_t failing;
static off_t failing_from;

static ssize_t failing_pread(int fd, void *p, size_t n, off_t at)
{
    struct stat st;
    if (failing && fstat(fd, &st) == 0 && st.st_ino == failing && at >= failing_from) {
        errno = EIO;
        return -1;
    }
    return pread(fd, p, n, at);
}

static void let_sqlite_read_by(ssize_t (*read)(int, void *, size_t, off_t))
{
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    vfs->xSetSystemCall(vfs, "pread", (sqlite3_syscall_ptr)read);
    vfs->xSetSystemCall(vfs, "pread64", (sqlite3_syscall_ptr)read);
}

/* ---- */

static char src[96], a_db[128], b_db[128], file[128];

static int setup(void **state)
{
    if (lab_setup(state))
        return -1;
    struct lab *w = *state;
    snprintf(src, sizeof src, "%s/src", w->dir);
    snprintf(a_db, sizeof a_db, "%s/a.db", src);
    snprintf(b_db, sizeof b_db, "%s/b.db", src);
    snprintf(file, sizeof file, "%s/file", src);
    assert_int_equal(mkdir(src, 0700), 0);
    w->paths[0] = src;
    return 0;
}

static int teardown(void **state)
{
    frozen_count = 0;
    failing = 0;
    let_sqlite_read_by(NULL);
    return lab_teardown(state);
}

static void sql_on(const char *db, const char *text)
{
    sqlite3 *s;
    char *msg = NULL;
    assert_int_equal(sqlite3_open(db, &s), SQLITE_OK);
    if (sqlite3_exec(s, text, NULL, NULL, &msg) != SQLITE_OK)
        fail_msg("%s: %s", text, msg);
    sqlite3_close(s);
}

#define ROWS(n)                                                                                    \
    "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<" #n ") "                \
    "INSERT INTO t(v) SELECT randomblob(900) FROM c;"

static void make_databases(void)
{
    static const char *const made = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);" ROWS(2000);
    sql_on(a_db, made);
    sql_on(b_db, made);
}

struct bytes {
    size_t n;
    uint8_t *data;
};

static struct bytes content(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        fail_msg("%s: %s", path, strerror(errno));
    assert_int_equal(fstat(fd, &st), 0);
    struct bytes b = {.n = (size_t)st.st_size, .data = malloc((size_t)st.st_size + 1)};
    assert_int_equal(read(fd, b.data, b.n), b.n);
    close(fd);
    return b;
}

static void restore_to(struct lab *w, const char *name)
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
}

/* The restored file has these bytes; frees them. */
static void assert_restored(const struct lab *w, const char *path, struct bytes wanted, size_t skip)
{
    char copy[400];
    snprintf(copy, sizeof copy, "%s%s", w->target, path);
    struct bytes got = content(copy);
    assert_int_equal(got.n, wanted.n);
    assert_memory_equal(got.data + skip, wanted.data + skip, wanted.n - skip);
    free(got.data);
    free(wanted.data);
}

/* Half of a database's changed pages are on their way when the disk fails: its state in the parent
 * is kept all the same, by a second attempt without these pages. */
static void a_failure_halfway_keeps_the_old_state(void **state)
{
    struct lab *w = *state;
    make_databases();
    lab_backup(w);
    assert_true(w->result.complete);
    struct bytes before = content(a_db);
    sql_on(a_db, "UPDATE t SET v = randomblob(900) WHERE id % 3 = 0");
    sql_on(b_db, "UPDATE t SET v = randomblob(900) WHERE id % 3 = 0");
    struct stat st;
    assert_int_equal(stat(a_db, &st), 0);
    failing = st.st_ino;
    failing_from = st.st_size / 2;
    let_sqlite_read_by(failing_pread);
    lab_backup(w);
    failing = 0;
    assert_false(w->result.complete);
    assert_int_equal(w->result.failed_count, 1);
    assert_string_equal(w->result.failed[0].path, a_db);
    restore_to(w, "old");
    assert_restored(w, a_db, before, HEAD);
    assert_restored(w, b_db, content(b_db), HEAD);
    lab_backup(w);
    assert_true(w->result.complete);
    restore_to(w, "new");
    assert_restored(w, a_db, content(a_db), HEAD);
}

static void freeze(const char *path)
{
    assert_int_equal(stat(path, &frozen[frozen_count]), 0);
    frozen_count++;
}

static void poke(const char *path, off_t at)
{
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, "changed", 7, at), 7);
    close(fd);
}

static void make_audit_due(const struct lab *w)
{
    char mark[300];
    snprintf(mark, sizeof mark, "%s/scanned", w->fp);
    assert_int_equal(unlink(mark), 0);
}

/* What changes without a sign is found by the daily scan, and said. */
static void the_audit_raises_an_alarm(void **state)
{
    struct lab *w = *state;
    make_databases();
    int fd = open(file, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(write(fd, "some bytes of a file", 20), 20);
    close(fd);
    lab_backup(w);
    make_audit_due(w);
    lab_backup(w);
    assert_null(strstr(w->notices, "ALARM"));
    assert_true(w->result.unchanged);
    freeze(file);
    freeze(a_db);
    poke(file, 3);
    poke(a_db, frozen[1].st_size - 500); /* within a row */
    lab_backup(w);
    assert_true(w->result.unchanged); /* it cannot know */
    make_audit_due(w);
    lab_backup(w);
    assert_false(w->result.unchanged);
    for (int i = 0; i < 2; i++) {
        char line[300];
        snprintf(line, sizeof line, "%s: ALARM", i ? a_db : file);
        if (!strstr(w->notices, line))
            fail_msg("no alarm for %s: %s", line, w->notices);
    }
    restore_to(w, "found");
    assert_restored(w, file, content(file), 0);
    assert_restored(w, a_db, content(a_db), HEAD);
}

/* The parts that a carried-over entry needs stay in a list that is shortened around them. */
static void what_is_carried_outlives_a_short_list(void **state)
{
    struct lab *w = *state;
    unsigned consolidated = 0;
    w->present[1] = false;
    make_databases();
    lab_backup(w);
    for (int i = 0; i < 5; i++) { /* its state lies in several parts */
        sql_on(a_db, "UPDATE t SET v = randomblob(900) WHERE id % 97 = 5");
        lab_backup(w);
    }
    struct bytes before = content(a_db);
    poke(a_db, 16);
    for (int i = 0; i < 140; i++) {
        sql_on(b_db, "UPDATE t SET v = randomblob(900) WHERE id = abs(random()) % 2000");
        lab_backup(w);
        assert_int_equal(w->result.failed_count, 1);
        consolidated += w->result.consolidated;
    }
    assert_true(consolidated > 0);
    restore_to(w, "short");
    assert_restored(w, a_db, before, HEAD);
    assert_restored(w, b_db, content(b_db), HEAD);
}

/* A page that changes back to what an old part holds is not shipped, so a part with what it was in
 * between must not come back into the list because of another database that fails. */
static void what_changed_back_outlives_a_failure_beside_it(void **state)
{
    struct lab *w = *state;
    w->present[1] = false;
    make_databases();
    sql_on(a_db, "PRAGMA journal_mode = wal"); /* in which page 1 does not change every time */
    sql_on(b_db, "PRAGMA journal_mode = wal");
    sql_on(a_db, "UPDATE t SET v = zeroblob(900) WHERE id = 7");
    struct bytes a = content(a_db);
    lab_backup(w);
    sql_on(a_db, "UPDATE t SET v = randomblob(900) WHERE id = 7");
    lab_backup(w);
    for (unsigned parts = 2; parts < 128; parts++) {
        char text[100];
        snprintf(text, sizeof text, "UPDATE t SET v = randomblob(900) WHERE id = %u", 10 * parts);
        sql_on(b_db, text);
        lab_backup(w);
        assert_false(w->result.consolidated);
    }
    struct bytes b = content(b_db);
    sql_on(a_db, "UPDATE t SET v = zeroblob(900) WHERE id = 7");
    poke(b_db, 16);
    lab_backup(w);
    assert_int_equal(w->result.failed_count, 1);
    assert_int_equal(w->result.carried_count, 1);
    restore_to(w, "back");
    assert_restored(w, a_db, a, HEAD);
    assert_restored(w, b_db, b, HEAD);
    sql_on(a_db, "UPDATE t SET v = randomblob(900) WHERE id = 7");
    lab_backup(w);
    assert_true(w->result.consolidated); /* it was the moment */
    restore_to(w, "later");
    assert_restored(w, a_db, content(a_db), HEAD);
}

/* SQLite keeps the -wal beside the name that was opened: under another one the commits in it would
 * be missing. */
static void a_second_name_does_not_hide_the_wal(void **state)
{
    struct lab *w = *state;
    char other[128];
    sqlite3 *open_one;
    w->present[1] = false;
    make_databases();
    snprintf(other, sizeof other, "%s/a-copy.db", src); /* sorts before */
    assert_int_equal(link(a_db, other), 0);
    lab_backup(w);
    assert_true(w->result.complete); /* nothing lies beside it */
    assert_int_equal(sqlite3_open(a_db, &open_one), SQLITE_OK);
    assert_int_equal(sqlite3_exec(open_one,
                                  "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0;"
                                  "UPDATE t SET v = zeroblob(900) WHERE id = 7",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    for (int i = 0; i < 2; i++) {
        lab_backup(w);
        assert_int_equal(w->result.failed_count, 1);
        assert_string_equal(w->result.failed[0].path, other);
    }
    restore_to(w, "named");
    sqlite3_close(open_one); /* empties the -wal */
    assert_restored(w, a_db, content(a_db), HEAD);
    assert_int_equal(unlink(other), 0);
    lab_backup(w);
    assert_true(w->result.complete);
}

/* As a power cut leaves it: what it was is kept, and time does not confirm that it is empty. */
static void an_emptied_database_keeps_its_last_state(void **state)
{
    struct lab *w = *state;
    make_databases();
    lab_backup(w);
    struct bytes a = content(a_db);
    assert_int_equal(truncate(a_db, 0), 0);
    for (int i = 0; i < 2; i++) {
        sql_on(b_db, "UPDATE t SET v = randomblob(900) WHERE id = 7");
        lab_backup(w);
        assert_int_equal(w->result.failed_count, 1);
        assert_int_equal(w->result.carried_count, 1);
    }
    restore_to(w, "emptied");
    assert_restored(w, a_db, a, HEAD);
    sql_on(a_db, "CREATE TABLE t(v)"); /* begun anew */
    lab_backup(w);
    assert_true(w->result.complete);
}

/* What has never been stored is in no state at all, so the source does not get fresher by a run
 * that leaves it out. */
static void what_was_never_stored_holds_the_source_back(void **state)
{
    struct lab *w = *state;
    char c_db[128];
    make_databases();
    lab_backup(w);
    int64_t first_us = w->result.as_of_us;
    snprintf(c_db, sizeof c_db, "%s/c.db", src);
    sql_on(c_db, "CREATE TABLE t(v)");
    poke(c_db, 16);
    sql_on(a_db, "UPDATE t SET v = zeroblob(900) WHERE id = 7");
    for (int i = 0; i < 2; i++) {
        lab_backup(w);
        assert_int_equal(w->result.failed_count, 1);
        assert_int_equal(w->result.as_of_us, first_us);
    }
    assert_int_equal(unlink(c_db), 0);
    lab_backup(w);
    assert_true(w->result.complete);
    assert_true(w->result.as_of_us > first_us);
}

int main(void)
{
    /* What the tests write counts as old: no waiting for two seconds. Read once, so before all. */
    setenv("SYNCD_TEST_CLOCK_OFFSET_S", "10", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_failure_halfway_keeps_the_old_state, setup, teardown),
        cmocka_unit_test_setup_teardown(the_audit_raises_an_alarm, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_carried_outlives_a_short_list, setup, teardown),
        cmocka_unit_test_setup_teardown(what_changed_back_outlives_a_failure_beside_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_second_name_does_not_hide_the_wal, setup, teardown),
        cmocka_unit_test_setup_teardown(an_emptied_database_keeps_its_last_state, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_never_stored_holds_the_source_back, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
