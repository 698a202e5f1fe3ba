/* What must not cost a snapshot: a worker that lies or rots, databases that SQLite cannot check
 * here, an application that must not be locked out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "conf/conf.h"
#include "restore/restore.h"
#include "snapshot/backup.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "tests/support/sshd.h"
#include "transport/open.h"
#include "transport/store.h"

#define WORKERS 2

struct house {
    char dir[64], db[128], fp[128];
    struct repository repo;
    struct store *stores[WORKERS];
    struct listing listings[WORKERS];
    size_t present;             /* the first so many take part */
    const struct store *rotten; /* its copy of `damaged` is known to be damaged */
    struct part_ref damaged;
    char *paths[2];
    struct conf_source source;
    sqlite3 *sql;
    struct backup_result result;
    struct err err;
    _Atomic uint64_t sequence;
};

/* Reading the file of this name fails, as on a disk with a bad sector. */
static char unreadable[PART_NAME_SIZE];

ssize_t pread(int fd, void *p, size_t n, off_t offset)
{
    char link[40], path[400];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = unreadable[0] ? readlink(link, path, sizeof path - 1) : 0;
    path[len > 0 ? len : 0] = '\0';
    if (unreadable[0] && strstr(path, unreadable)) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pread64, fd, p, n, offset);
}

static void sql(struct house *h, const char *text)
{
    char *message = NULL;
    if (sqlite3_exec(h->sql, text, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", text, message);
}

static int compare_text(void *arg, int n, const void *a, int m, const void *b)
{
    (void)arg;
    int order = memcmp(a, b, (size_t)(n < m ? n : m));
    return order ? order : n - m;
}

static int setup(void **state)
{
    struct house *h = calloc(1, sizeof *h);
    struct err e = ERR_INIT;
    snprintf(h->dir, sizeof h->dir, "/tmp/syncd-test-XXXXXX");
    assert_non_null(mkdtemp(h->dir));
    snprintf(h->db, sizeof h->db, "%s/lab.sqlite", h->dir);
    snprintf(h->fp, sizeof h->fp, "%s/fp", h->dir);
    assert_int_equal(mkdir(h->fp, 0700), 0);
    assert_int_equal(digest_init(&e), 0);
    repository_new("test", &h->repo);
    for (int i = 0; i < WORKERS; i++) {
        char url[160];
        struct store_options o = {.name = i ? "w2" : "w1"};
        snprintf(url, sizeof url, "file://%s/w%d", h->dir, i + 1);
        assert_int_equal(url_parse(url, &o.url, &e), 0);
        assert_int_equal(store_open_url(&o, &h->stores[i], &e), 0);
        assert_int_equal(repository_create(h->stores[i], &h->repo, &e), 0);
    }
    h->present = 1;
    h->paths[0] = h->db;
    h->source = (struct conf_source){.name = strdup("lab"), .path = h->paths};
    assert_int_equal(sqlite3_open(h->db, &h->sql), SQLITE_OK);
    sqlite3_create_collation(h->sql, "lab_order", SQLITE_UTF8, NULL, compare_text);
    sql(h, "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)");
    *state = h;
    return 0;
}

static int teardown(void **state)
{
    struct house *h = *state;
    sqlite3_close(h->sql);
    backup_result_free(&h->result);
    for (int i = 0; i < WORKERS; i++) {
        store_close(h->stores[i]);
        listing_free(&h->listings[i]);
    }
    free(h->source.name);
    test_remove_tree(h->dir);
    free(h);
    return 0;
}

static bool is_ours(void *arg, const struct part_ref *ref)
{
    struct house *h = arg;
    return ref->sequence <= h->sequence;
}

static bool is_damaged(void *arg, const struct store *s, const struct part_ref *ref)
{
    struct house *h = arg;
    return s == h->rotten && part_same(ref, &h->damaged);
}

static void publishing(void *arg, const struct part_ref *ref, bool snapshot)
{
    struct house *h = arg;
    (void)snapshot;
    uint64_t known = h->sequence;
    while (ref->sequence > known &&
           !atomic_compare_exchange_weak(&h->sequence, &known, ref->sequence))
        continue;
}

static void list_all(struct house *h)
{
    struct err e = ERR_INIT;
    for (int i = 0; i < WORKERS; i++) {
        listing_free(&h->listings[i]);
        assert_int_equal(listing_read(h->stores[i], "lab", &h->listings[i], &e), 0);
    }
}

static int try_backup(struct house *h)
{
    struct backup_params p = {.repository = &h->repo,
                              .source = &h->source,
                              .config_text = "name = \"test\"\n",
                              .config_len = 14,
                              .epoch = 1,
                              .min_sequence = h->sequence + 1,
                              .fingerprint_dir = h->fp,
                              .is_ours = is_ours,
                              .is_damaged = is_damaged,
                              .publishing = publishing,
                              .arg = h};
    list_all(h);
    for (; p.worker_count < h->present; p.worker_count++) {
        p.workers[p.worker_count].store = h->stores[p.worker_count];
        p.workers[p.worker_count].listing = &h->listings[p.worker_count];
    }
    h->err = ERR_INIT;
    backup_result_free(&h->result);
    return backup_run(&p, &h->result, &h->err);
}

static void backup(struct house *h)
{
    if (try_backup(h))
        fail_msg("%s", h->err.message);
}

/* By the listings alone, as a restore would. */
static int try_restore(struct house *h, const char *name, bool salvage, struct restore_summary *sum)
{
    struct pool pool = {.repository = &h->repo, .source = "lab", .store_count = h->present};
    OWN_SNAPSHOT struct snapshot s = {0};
    char target[160];
    list_all(h);
    for (size_t i = 0; i < h->present; i++) {
        pool.at[i].store = h->stores[i];
        pool.at[i].listing = &h->listings[i];
    }
    snprintf(target, sizeof target, "%s/%s", h->dir, name);
    h->err = ERR_INIT;
    struct part_ref ref = h->result.snapshot;
    ref.size_bytes = 0;
    int rc = pool_snapshot(&pool, &ref, &s, &h->err);
    struct restore_params p = {.pool = &pool, .snapshot = &s, .target = target, .salvage = salvage};
    if (rc == 0)
        rc = restore_run(&p, sum, &h->err);
    pool_close(&pool);
    return rc;
}

static void restore(struct house *h, const char *name)
{
    struct restore_summary sum;
    if (try_restore(h, name, false, &sum))
        fail_msg("%s", h->err.message);
    assert_int_equal(sum.salvaged, 0);
}

static void fill(struct house *h)
{
    sql(h, "INSERT INTO t(v) SELECT randomblob(300) FROM (WITH RECURSIVE c(i) AS (SELECT 1 UNION "
           "ALL SELECT i+1 FROM c WHERE i<500) SELECT i FROM c)");
}

/* ---- restoring what SQLite has something against ---- */

static void a_collation_of_the_application_does_not_stop_a_restore(void **state)
{
    struct house *h = *state;
    sql(h, "CREATE TABLE names(a TEXT COLLATE lab_order PRIMARY KEY) WITHOUT ROWID;"
           "INSERT INTO names VALUES('x'), ('y')");
    backup(h);
    restore(h, "back");
}

static void a_fault_of_the_source_comes_back_only_when_asked_for(void **state)
{
    struct house *h = *state;
    struct restore_summary sum;
    sql(h, "CREATE TABLE torn(a); INSERT INTO torn VALUES(1); PRAGMA writable_schema=1;"
           "UPDATE sqlite_master SET sql = 'CREATE TABLE torn(a, b NOT NULL)' WHERE name = 'torn'");
    backup(h);
    assert_int_equal(try_restore(h, "back", false, &sum), ERR_DAMAGED);
    assert_non_null(strstr(h->err.hint, "--salvage"));
    assert_int_equal(try_restore(h, "back", true, &sum), 0);
    assert_int_equal(sum.salvaged, 1);
}

/* ---- a worker that lies ---- */

static void put_file(struct house *h, const char *name, const char *text)
{
    char path[400];
    snprintf(path, sizeof path, "%s/w1/lab/%s", h->dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* A name with the last sequence that there is must not push ours past it, where no listing would
 * ever show them. */
static void a_worker_cannot_use_up_the_sequences(void **state)
{
    struct house *h = *state;
    char name[PART_NAME_SIZE];
    fill(h);
    backup(h);
    struct part_ref fake = h->result.snapshot;
    for (fake.sequence = UINT64_C(1) << 62; fake.sequence; fake.sequence >>= 1) {
        part_name_format(&fake, PART_PACK, name);
        put_file(h, name, "no part");
    }
    fake.sequence = UINT64_MAX / 2;
    part_name_format(&fake, PART_SNAP, name);
    put_file(h, name, "no part");
    h->present = 2;
    for (int i = 0; i < 3; i++) {
        fill(h);
        backup(h);
        assert_true(h->result.workers[0].stored);
        list_all(h);
        assert_non_null(listing_find(&h->listings[0], &h->result.snapshot));
        assert_non_null(listing_find(&h->listings[1], &h->result.snapshot));
        restore(h, i == 0 ? "first" : i == 1 ? "second" : "third");
    }
}

/* A part that cannot even be read (a bad sector) is as good as lost. */
static void an_unreadable_part_is_shipped_again(void **state)
{
    struct house *h = *state;
    fill(h);
    backup(h);
    fill(h);
    backup(h);
    part_name_format(&h->result.snapshot, PART_SNAP, unreadable);
    fill(h);
    backup(h);
    restore(h, "back");
    unreadable[0] = '\0';
}

/* ---- known damage ---- */

static void a_worker_with_known_damage_does_not_count_as_having_it(void **state)
{
    struct house *h = *state;
    h->present = 2;
    fill(h);
    backup(h);
    h->damaged = h->result.snapshot;
    h->rotten = h->stores[1];
    fill(h);
    backup(h);
    assert_true(h->result.workers[0].stored);
    assert_false(h->result.workers[1].stored);
    assert_true(h->result.workers[1].as_pack);
    restore(h, "changed");
    sqlite3_close(h->sql);
    usleep(2200000);
    backup(h); /* with a signature */
    backup(h);
    assert_true(h->result.unchanged);
    assert_true(h->result.workers[0].stored);
    assert_false(h->result.workers[1].stored);
    assert_int_equal(sqlite3_open(h->db, &h->sql), SQLITE_OK);
}

/* ---- an application that must not be locked out ---- */

static atomic_bool writing;

static void *write_on(void *arg)
{
    struct house *h = arg;
    sqlite3 *db;
    assert_int_equal(sqlite3_open(h->db, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 60000);
    for (int i = 0; atomic_load(&writing); i++)
        sqlite3_exec(db, "UPDATE t SET v = randomblob(30000)", NULL, NULL, NULL);
    sqlite3_close(db);
    return NULL;
}

/* A rollback-mode database that is rewritten faster than the worker takes it: the run gives up
 * instead of holding the database at the worker's pace. */
static void a_slow_worker_never_locks_writers_out(void **state)
{
    struct house *h = *state;
    char url[160];
    struct err e = ERR_INIT;
    struct store_options o = {.name = "w1", .max_rate = 4 << 20};
    pthread_t writer;
    snprintf(url, sizeof url, "file://%s/w1", h->dir);
    store_close(h->stores[0]);
    assert_int_equal(url_parse(url, &o.url, &e), 0);
    assert_int_equal(store_open_url(&o, &h->stores[0], &e), 0);
    sql(h, "INSERT INTO t(v) SELECT randomblob(30000) FROM (WITH RECURSIVE c(i) AS (SELECT 1 UNION "
           "ALL SELECT i+1 FROM c WHERE i<500) SELECT i FROM c)");
    atomic_store(&writing, true);
    assert_int_equal(pthread_create(&writer, NULL, write_on, h), 0);
    int rc = try_backup(h);
    atomic_store(&writing, false);
    pthread_join(writer, NULL);
    assert_int_equal(rc, ERR_BUSY);
    assert_non_null(strstr(h->err.hint, "WAL"));
    backup(h); /* now that it is quiet */
    restore(h, "back");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_collation_of_the_application_does_not_stop_a_restore,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_fault_of_the_source_comes_back_only_when_asked_for, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_worker_cannot_use_up_the_sequences, setup, teardown),
        cmocka_unit_test_setup_teardown(an_unreadable_part_is_shipped_again, setup, teardown),
        cmocka_unit_test_setup_teardown(a_worker_with_known_damage_does_not_count_as_having_it,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_slow_worker_never_locks_writers_out, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
