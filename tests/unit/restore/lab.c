#include "tests/unit/restore/lab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "syncd/base/err.h"
#include "tests/support/sshd.h"
#include "transport/open.h"
#include "transport/store.h"

void lab_sql(struct lab *w, const char *text)
{
    char *msg = NULL;
    if (sqlite3_exec(w->sql, text, NULL, NULL, &msg) != SQLITE_OK)
        fail_msg("%s: %s", text, msg);
}

int lab_setup(void **state)
{
    struct lab *w = calloc(1, sizeof *w);
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
    lab_sql(w, "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=100;"
               "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);");
    *state = w;
    return 0;
}

int lab_teardown(void **state)
{
    struct lab *w = *state;
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
    struct lab *w = arg;
    (void)snapshot;
    uint64_t known = w->sequence;
    while (ref->sequence > known &&
           !atomic_compare_exchange_weak(&w->sequence, &known, ref->sequence))
        continue;
}

static void note_notice(void *arg, const char *text)
{
    struct lab *w = arg;
    size_t n = strlen(w->notices);
    snprintf(w->notices + n, sizeof w->notices - n, "%s\n", text);
}

static void lab_list(struct lab *w)
{
    struct err e = ERR_INIT;
    for (int i = 0; i < MAX_WORKERS; i++) {
        listing_free(&w->listings[i]);
        if (listing_read(w->stores[i], "lab", &w->listings[i], &e))
            fail_msg("%s", e.message);
    }
}

void lab_backup(struct lab *w)
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
                              .notice = note_notice,
                              .arg = w};
    lab_list(w);
    backup_result_free(&w->result);
    w->notices[0] = '\0';
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

void lab_open_pool(struct lab *w, struct pool *pool)
{
    lab_list(w);
    *pool = (struct pool){.repository = &w->repo, .source = "lab", .store_count = MAX_WORKERS};
    for (int i = 0; i < MAX_WORKERS; i++) {
        pool->at[i].store = w->stores[i];
        pool->at[i].listing = &w->listings[i];
    }
}

void lab_fill(struct lab *w, int rows)
{
    char text[256];
    snprintf(text, sizeof text,
             "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<%d) "
             "INSERT INTO t(v) SELECT randomblob(300) FROM c",
             rows);
    lab_sql(w, text);
}
