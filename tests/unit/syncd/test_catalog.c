#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/catalog.h"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/syncd-catalog-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    DIR *d = opendir(folder);
    for (struct dirent *entry; d && (entry = readdir(d));)
        unlinkat(dirfd(d), entry->d_name, 0);
    closedir(d);
    return rmdir(folder);
}

static const char *path_of(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static struct catalog *open_it(void)
{
    struct err e = ERR_INIT;
    struct catalog *c = NULL;
    char *notice = NULL;
    int rc = catalog_open(folder, &c, &notice, &e);
    if (rc)
        fail_msg("%s", e.message);
    assert_null(notice);
    return c;
}

static void fill_id(uint8_t id[CATALOG_ID], unsigned n)
{
    memset(id, 0, CATALOG_ID);
    memcpy(id, &n, sizeof n);
    id[31] = 0xff;
}

static int64_t begin(struct catalog *c, const char *source, int64_t at)
{
    struct err e = ERR_INIT;
    int64_t number = -1;
    assert_int_equal(catalog_run_begin(c, source, at, &number, &e), 0);
    return number;
}

static struct catalog_run ended(const char *source, int64_t number, enum run_state run_state)
{
    struct catalog_run r = {.number = number,
                            .state = run_state,
                            .ended_at_us = 2000,
                            .has_snapshot = true,
                            .as_of_us = 1500,
                            .size_bytes = UINT64_C(7) << 30,
                            .bytes_read = 1,
                            .bytes_changed = 2,
                            .bytes_sent = 3};
    snprintf(r.source, sizeof r.source, "%s", source);
    fill_id(r.snapshot, (unsigned)number);
    return r;
}

static void a_run_is_kept_with_its_workers(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct catalog *c = open_it();
    assert_int_equal(begin(c, "piri", 1000), 1);
    assert_int_equal(begin(c, "other", 1000), 1);
    struct catalog_run r = ended("piri", 1, RUN_PARTIAL);
    snprintf(r.error, sizeof r.error, "worker2: it's \"full\"; DROP TABLE runs");
    struct catalog_run_worker w[2] = {{.worker = "worker1", .stored = true},
                                      {.worker = "worker2", .error = "no space"}};
    assert_int_equal(catalog_run_end(c, &r, w, 2, &e), 0);
    catalog_close(c);
    c = open_it();
    struct catalog_run *runs = NULL;
    size_t n = 0;
    assert_int_equal(catalog_runs(c, "piri", false, 10, &runs, &n, &e), 0);
    assert_int_equal(n, 1);
    r.started_at_us = 1000;
    assert_memory_equal(&runs[0], &r, sizeof r);
    free(runs);
    assert_int_equal(catalog_runs(c, "other", false, 10, &runs, &n, &e), 0);
    assert_int_equal(n, 0); /* still running */
    free(runs);
    assert_int_equal(catalog_runs(c, "other", true, 10, &runs, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_int_equal(runs[0].state, RUN_RUNNING);
    free(runs);
    struct catalog_run_worker *workers = NULL;
    assert_int_equal(catalog_run_workers(c, "piri", 1, &workers, &n, &e), 0);
    assert_int_equal(n, 2);
    assert_memory_equal(workers, w, sizeof w);
    free(workers);
    catalog_close(c);
}

static void what_is_stored_is_held(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct catalog *c = open_it();
    struct catalog_run r = ended("piri", begin(c, "piri", 1), RUN_OK);
    struct catalog_run_worker w[2] = {{.worker = "worker1", .stored = true}, {.worker = "worker2"}};
    assert_int_equal(catalog_run_end(c, &r, w, 2, &e), 0);
    uint8_t id[CATALOG_ID];
    fill_id(id, 9);
    assert_int_equal(catalog_proven_set(c, "piri", "worker1", r.snapshot, 77, &e), 0);
    assert_int_equal(catalog_proven_set(c, "piri", "worker3", r.snapshot, 78, &e), 0);
    assert_int_equal(catalog_proven_at(c, "piri", r.snapshot), 78);
    assert_int_equal(catalog_proven_at(c, "piri", id), 0);
    assert_int_equal(catalog_proven_at(c, "other", r.snapshot), 0);
    assert_int_equal(catalog_held_set(c, "piri", "worker2", 99, id, &e), 0);
    struct catalog_held *held = NULL;
    size_t n = 0;
    assert_int_equal(catalog_held(c, "piri", &held, &n, &e), 0);
    assert_int_equal(n, 3);
    assert_string_equal(held[0].worker, "worker1");
    assert_int_equal(held[0].as_of_us, 1500);
    assert_memory_equal(held[0].snapshot, r.snapshot, CATALOG_ID);
    assert_int_equal(held[0].proven_at_us, 77); /* kept apart from what is stored */
    assert_int_equal(held[1].as_of_us, 99);
    assert_int_equal(held[1].proven_at_us, 0);
    assert_true(held[1].has_snapshot);
    assert_memory_equal(held[1].snapshot, id, CATALOG_ID);
    assert_int_equal(held[2].as_of_us, 0);
    assert_false(held[2].has_snapshot);
    free(held);
    /* A later run does not touch when it was proven. */
    r.number = begin(c, "piri", 2);
    r.as_of_us = 1600;
    assert_int_equal(catalog_run_end(c, &r, w, 2, &e), 0);
    assert_int_equal(catalog_held(c, "piri", &held, &n, &e), 0);
    assert_int_equal(held[0].as_of_us, 1600);
    assert_int_equal(held[0].proven_at_us, 77);
    assert_int_equal(held[1].as_of_us, 99); /* not stored: as before */
    free(held);
    assert_int_equal(catalog_held(c, "nobody", &held, &n, &e), 0);
    assert_int_equal(n, 0);
    free(held);
    catalog_close(c);
}

static void what_never_ended_has_failed(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct catalog *c = open_it();
    size_t count = 9;
    struct catalog_run r = ended("piri", begin(c, "piri", 1), RUN_OK);
    assert_int_equal(catalog_run_end(c, &r, NULL, 0, &e), 0);
    begin(c, "piri", 2);
    begin(c, "other", 2);
    assert_int_equal(catalog_run_abandon(c, "piri", 5, "stopped by a power cut", &count, &e), 0);
    assert_int_equal(count, 1);
    assert_int_equal(catalog_run_abandon(c, "piri", 6, "x", &count, &e), 0);
    assert_int_equal(count, 0);
    struct catalog_run *runs = NULL;
    size_t n = 0;
    assert_int_equal(catalog_runs(c, "piri", false, 10, &runs, &n, &e), 0);
    assert_int_equal(n, 2);
    assert_int_equal(runs[0].state, RUN_FAILED);
    assert_int_equal(runs[0].ended_at_us, 5);
    assert_string_equal(runs[0].error, "stopped by a power cut");
    assert_false(runs[0].has_snapshot);
    assert_int_equal(runs[1].state, RUN_OK);
    free(runs);
    assert_int_equal(catalog_runs(c, "other", true, 10, &runs, &n, &e), 0);
    assert_int_equal(runs[0].state, RUN_RUNNING);
    free(runs);
    catalog_close(c);
}

/* As a thousand runs have left it, without their thousands of fsyncs. */
static void fill_with_runs(int count)
{
    sqlite3 *db = NULL;
    char sql[512];
    snprintf(sql, sizeof sql,
             "BEGIN; WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
             " INSERT INTO runs(source, number, state, started_at) SELECT 'piri', i, 1, 1 FROM n;"
             "INSERT INTO run_workers SELECT source, number, 'worker1', 1, '' FROM runs; COMMIT",
             count);
    assert_int_equal(sqlite3_open(path_of("catalog.db"), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void old_runs_are_forgotten(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct catalog *c = open_it();
    struct catalog_run_worker w = {.worker = "worker1", .stored = true};
    struct catalog_run *runs = NULL;
    struct catalog_run_worker *workers = NULL;
    size_t n = 0;
    fill_with_runs(1080);
    begin(c, "other", 1);
    for (int i = 1081; i <= 1100; i++) {
        struct catalog_run r = ended("piri", begin(c, "piri", i), RUN_OK);
        assert_int_equal(r.number, i);
        assert_int_equal(catalog_run_end(c, &r, &w, 1, &e), 0);
    }
    assert_int_equal(catalog_runs(c, "piri", true, 5000, &runs, &n, &e), 0);
    assert_true(n >= CATALOG_RUNS_KEPT && n < CATALOG_RUNS_KEPT + 64);
    assert_int_equal(runs[0].number, 1100); /* newest first, without a gap */
    int64_t oldest = runs[n - 1].number;
    assert_int_equal(oldest, 1100 - (int64_t)n + 1);
    free(runs);
    assert_int_equal(catalog_run_workers(c, "piri", oldest - 1, &workers, &n, &e), 0);
    assert_int_equal(n, 0);
    free(workers);
    assert_int_equal(catalog_run_workers(c, "piri", oldest, &workers, &n, &e), 0);
    assert_int_equal(n, 1);
    free(workers);
    assert_int_equal(catalog_runs(c, "other", true, 10, &runs, &n, &e), 0);
    assert_int_equal(n, 1);
    free(runs);
    assert_int_equal(catalog_runs(c, "piri", true, 3, &runs, &n, &e), 0);
    assert_int_equal(n, 3);
    free(runs);
    catalog_close(c);
}

static void parts_are_ours_or_not(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct catalog *c = open_it();
    struct catalog_part p = {
        .epoch = 2, .sequence = 7, .size_bytes = 64 << 20, .is_snapshot = true};
    struct catalog_part q = {.epoch = 1, .sequence = 9, .size_bytes = 5};
    fill_id(p.id, 1);
    fill_id(q.id, 2);
    assert_int_equal(catalog_parts_add(c, "piri", &p, 1, &e), 0);
    assert_int_equal(catalog_parts_add(c, "piri", &q, 1, &e), 0);
    assert_int_equal(catalog_parts_add(c, "piri", &p, 1, &e), 0); /* twice is fine */
    assert_true(catalog_part_is_ours(c, "piri", 2, 7, p.id));
    assert_false(catalog_part_is_ours(c, "other", 2, 7, p.id));
    assert_false(catalog_part_is_ours(c, "piri", 2, 7, q.id)); /* another one of that place */
    assert_false(catalog_part_is_ours(c, "piri", 2, 8, p.id));
    assert_false(catalog_part_is_ours(c, "piri", 2, UINT64_MAX, p.id));
    struct catalog_part *parts = NULL;
    size_t n = 0;
    assert_int_equal(catalog_parts(c, "piri", &parts, &n, &e), 0);
    assert_int_equal(n, 2);
    assert_int_equal(parts[0].epoch, 1); /* in their order */
    assert_int_equal(parts[1].epoch, 2);
    assert_int_equal(parts[1].size_bytes, 64 << 20);
    assert_true(parts[1].is_snapshot);
    assert_false(parts[0].is_snapshot);
    assert_memory_equal(parts[0].id, q.id, CATALOG_ID);
    assert_int_equal(catalog_parts_forget(c, "piri", parts, 1, &e), 0);
    assert_int_equal(catalog_parts_forget(c, "piri", parts, 1, &e), 0);
    assert_int_equal(catalog_parts_forget(c, "piri", NULL, 0, &e), 0);
    free(parts);
    assert_false(catalog_part_is_ours(c, "piri", 1, 9, q.id));
    assert_true(catalog_part_is_ours(c, "piri", 2, 7, p.id));
    catalog_close(c);
}

static void the_sequence_never_goes_back(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct catalog *c = open_it();
    uint64_t last = 99;
    assert_int_equal(catalog_sequence(c, "piri", &last, &e), 0);
    assert_int_equal(last, 0);
    struct catalog_part p = {.epoch = 1, .sequence = 12};
    assert_int_equal(catalog_parts_add(c, "piri", &p, 1, &e), 0);
    p.sequence = 3;
    p.epoch = 2;
    assert_int_equal(catalog_parts_add(c, "piri", &p, 1, &e), 0);
    assert_int_equal(catalog_sequence_raise(c, "piri", 5, &e), 0);
    p.sequence = 12;
    p.epoch = 1;
    assert_int_equal(catalog_parts_forget(c, "piri", &p, 1, &e), 0);
    assert_int_equal(catalog_sequence(c, "piri", &last, &e), 0);
    assert_int_equal(last, 12);
    assert_int_equal(catalog_sequence_raise(c, "piri", 40, &e), 0);
    assert_int_equal(catalog_sequence_raise(c, "piri", UINT64_MAX, &e), ERR_LIMIT);
    catalog_close(c);
    c = open_it();
    assert_int_equal(catalog_sequence(c, "piri", &last, &e), 0);
    assert_int_equal(last, 40);
    assert_int_equal(catalog_sequence(c, "other", &last, &e), 0);
    assert_int_equal(last, 0);
    catalog_close(c);
}

static void what_was_verified_when(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct catalog *c = open_it();
    assert_int_equal(catalog_verified_at(c, "worker1", "piri", "0001-x"), 0);
    assert_int_equal(catalog_verified_set(c, "worker1", "piri", "0001-x", 10, &e), 0);
    assert_int_equal(catalog_verified_set(c, "worker1", "piri", "0001-y", 20, &e), 0);
    assert_int_equal(catalog_verified_set(c, "worker1", "piri", "0001-x", 30, &e), 0);
    assert_int_equal(catalog_verified_at(c, "worker1", "piri", "0001-x"), 30);
    assert_int_equal(catalog_verified_at(c, "worker2", "piri", "0001-x"), 0);
    assert_int_equal(catalog_verified_forget(c, "other", 100, &e), 0);
    assert_int_equal(catalog_verified_forget(c, "piri", 30, &e), 0);
    assert_int_equal(catalog_verified_at(c, "worker1", "piri", "0001-x"), 30);
    assert_int_equal(catalog_verified_at(c, "worker1", "piri", "0001-y"), 0);
    catalog_close(c);
}

static void damage_is_marked_and_cleared(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct catalog *c = open_it();
    assert_int_equal(catalog_damage_add(c, "worker1", "piri", "0001-x", 10, &e), 0);
    assert_int_equal(catalog_damage_add(c, "worker1", "piri", "0001-x", 20, &e), 0);
    assert_int_equal(catalog_damage_add(c, "worker2", "other", "0001-y", 30, &e), 0);
    assert_true(catalog_damage_has(c, "worker1", "piri", "0001-x"));
    assert_false(catalog_damage_has(c, "worker2", "piri", "0001-x"));
    struct catalog_damage *marks = NULL;
    size_t n = 0;
    assert_int_equal(catalog_damages(c, NULL, &marks, &n, &e), 0);
    assert_int_equal(n, 2);
    assert_int_equal(marks[0].since_us, 10);
    free(marks);
    assert_int_equal(catalog_damages(c, "other", &marks, &n, &e), 0);
    assert_int_equal(n, 1);
    assert_string_equal(marks[0].worker, "worker2");
    assert_string_equal(marks[0].part, "0001-y");
    free(marks);
    assert_int_equal(catalog_damage_clear(c, "worker1", "piri", "0001-x", &e), 0);
    assert_false(catalog_damage_has(c, "worker1", "piri", "0001-x"));
    catalog_close(c);
}

static void the_file_is_private(void **state)
{
    (void)state;
    struct stat st;
    mode_t before = umask(0);
    catalog_close(open_it());
    umask(before);
    assert_int_equal(stat(path_of("catalog.db"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
}

static size_t count_files(const char *part, char *ret_one, size_t size)
{
    size_t n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *entry; (entry = readdir(d));)
        if (strstr(entry->d_name, part)) {
            snprintf(ret_one, size, "%.100s", entry->d_name);
            n++;
        }
    closedir(d);
    return n;
}

static void expect_new_one(const char *why)
{
    struct err e = ERR_INIT;
    struct catalog *c = NULL;
    char *notice = NULL, name[128] = "";
    uint64_t last = 0;
    if (catalog_open(folder, &c, &notice, &e))
        fail_msg("%s: %s", why, e.message);
    if (!notice)
        fail_msg("%s: no notice", why);
    assert_non_null(strstr(notice, "catalog.db.damaged-"));
    free(notice);
    if (count_files("Z-journal", name, sizeof name))
        assert_int_equal(unlink(path_of(name)), 0); /* its journal went with it */
    assert_int_equal(count_files("damaged-", name, sizeof name), 1);
    assert_int_equal(catalog_sequence(c, "piri", &last, &e), 0);
    assert_int_equal(last, 0);
    assert_int_equal(catalog_sequence_raise(c, "piri", 1, &e), 0);
    catalog_close(c);
    catalog_close(open_it()); /* whole again, without a notice */
    assert_int_equal(unlink(path_of(name)), 0);
}

static void spoil(size_t offset, size_t len)
{
    uint8_t rubbish[8192];
    memset(rubbish, 0xa5, sizeof rubbish);
    int fd = io_open(path_of("catalog.db"), O_WRONLY, 0);
    assert_true(fd >= 0);
    assert_int_equal(io_pwrite_all(fd, rubbish, len, offset), 0);
    io_close(fd);
}

static void a_damaged_one_is_put_aside(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct catalog *c = open_it();
    for (unsigned i = 0; i < 200; i++) {
        struct catalog_part p = {.epoch = 1, .sequence = i};
        fill_id(p.id, i);
        assert_int_equal(catalog_parts_add(c, "piri", &p, 1, &e), 0);
    }
    catalog_close(c);
    spoil(8192, 1024); /* a page in the middle */
    expect_new_one("a page");
    spoil(0, 1024);
    expect_new_one("the header");
    assert_int_equal(truncate(path_of("catalog.db"), 3000), 0);
    expect_new_one("cut");
}

static void a_newer_one_is_left_alone(void **state)
{
    (void)state;
    catalog_close(open_it());
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(path_of("catalog.db"), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version=2", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    struct err e = ERR_INIT;
    struct catalog *c = NULL;
    assert_int_equal(catalog_open(folder, &c, NULL, &e), ERR_VERSION);
    assert_null(c);
    assert_int_equal(catalog_open_readonly(folder, &c, &e), ERR_VERSION);
    char name[128];
    assert_int_equal(count_files("damaged", name, sizeof name), 0);
}

static void reading_only_makes_nothing(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct catalog *c = NULL;
    char name[128];
    assert_int_equal(catalog_open_readonly(folder, &c, &e), ERR_NOT_FOUND);
    assert_int_equal(count_files("catalog", name, sizeof name), 0);
    struct catalog *writer = open_it();
    assert_int_equal(catalog_sequence_raise(writer, "piri", 4, &e), 0);
    assert_int_equal(catalog_open_readonly(folder, &c, &e), 0);
    uint64_t last = 0;
    assert_int_equal(catalog_sequence(c, "piri", &last, &e), 0);
    assert_int_equal(last, 4);
    assert_int_equal(catalog_sequence_raise(c, "piri", 5, &e), ERR_PERMISSION);
    catalog_close(c);
    catalog_close(writer);
    catalog_close(NULL);
}

static void a_state_dir_behind_a_symlink_works(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct catalog *c = NULL;
    char link[128];
    snprintf(link, sizeof link, "%s-link", folder);
    assert_int_equal(symlink(folder, link), 0);
    int rc = catalog_open(link, &c, NULL, &e);
    unlink(link);
    catalog_close(c);
    assert_int_equal(rc, 0);
}

/* Opens and adds 25 parts of its own, as one of several processes at once. */
static int add_parts(unsigned from)
{
    struct err e = ERR_INIT;
    struct catalog *c = NULL;
    if (catalog_open(folder, &c, NULL, &e))
        return 1;
    for (unsigned i = from; i < from + 25; i++) {
        struct catalog_part p = {.epoch = 1, .sequence = i};
        fill_id(p.id, i);
        if (catalog_parts_add(c, "piri", &p, 1, &e))
            return 2;
    }
    catalog_close(c);
    return 0;
}

static void assert_parts(size_t count)
{
    struct err e = ERR_INIT;
    struct catalog *c = open_it();
    struct catalog_part *parts = NULL;
    size_t n = 0;
    uint64_t last = 0;
    assert_int_equal(catalog_parts(c, "piri", &parts, &n, &e), 0);
    free(parts);
    assert_int_equal(n, count);
    assert_int_equal(catalog_sequence(c, "piri", &last, &e), 0);
    assert_int_equal(last, count - 1);
    catalog_close(c);
}

/* No catalog is there yet, so that they also meet while making it. */
static void several_processes_share_it(void **state)
{
    (void)state;
    pid_t children[4];
    for (unsigned i = 0; i < 4; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0)
            _exit(add_parts(25 * i));
    }
    for (unsigned i = 0; i < 4; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    assert_parts(100);
}

struct thread_work {
    struct catalog *c;
    unsigned from;
    int failures;
};

static void *add_in_thread(void *arg)
{
    struct thread_work *w = arg;
    struct err e = ERR_INIT;
    for (unsigned i = w->from; i < w->from + 25; i++) {
        struct catalog_part p = {.epoch = 1, .sequence = i};
        fill_id(p.id, i);
        if (catalog_parts_add(w->c, "piri", &p, 1, &e) ||
            !catalog_part_is_ours(w->c, "piri", 1, i, p.id))
            w->failures++;
    }
    return NULL;
}

static void several_threads_share_a_handle(void **state)
{
    (void)state;
    struct catalog *c = open_it();
    struct thread_work work[4];
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++) {
        work[i] = (struct thread_work){.c = c, .from = 25 * i};
        assert_int_equal(pthread_create(&threads[i], NULL, add_in_thread, &work[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(work[i].failures, 0);
    }
    catalog_close(c);
    assert_parts(100);
}

static void run_states_have_their_names(void **state)
{
    (void)state;
    assert_string_equal(run_state_name(RUN_OK), "ok");
    assert_string_equal(run_state_name(RUN_UNCHANGED), "unchanged");
    assert_string_equal(run_state_name((enum run_state)99), "none");
}

#define WITH_FOLDER(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(a_run_is_kept_with_its_workers),
        WITH_FOLDER(what_is_stored_is_held),
        WITH_FOLDER(what_never_ended_has_failed),
        WITH_FOLDER(old_runs_are_forgotten),
        WITH_FOLDER(parts_are_ours_or_not),
        WITH_FOLDER(the_sequence_never_goes_back),
        WITH_FOLDER(what_was_verified_when),
        WITH_FOLDER(damage_is_marked_and_cleared),
        WITH_FOLDER(the_file_is_private),
        WITH_FOLDER(a_damaged_one_is_put_aside),
        WITH_FOLDER(a_newer_one_is_left_alone),
        WITH_FOLDER(reading_only_makes_nothing),
        WITH_FOLDER(a_state_dir_behind_a_symlink_works),
        WITH_FOLDER(several_processes_share_it),
        WITH_FOLDER(several_threads_share_a_handle),
        cmocka_unit_test(run_states_have_their_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
