#include "tests/unit/restore/lab.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "restore/image_reader.h"
#include "restore/image_vfs.h"
#include "restore/restore.h"
#include "snapshot/entry.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

#define MB (1u << 20)

/* A stored image, open for reading, and the restored file to hold it against. */
struct opened {
    struct pool pool;
    struct snapshot snapshot;
    struct entry entry;
    struct block_cache *blocks;
    struct image_reader *reader;
    size_t damage_told;
};

static int keep_image(void *arg, struct entry *n, struct err *e)
{
    struct opened *o = arg;
    return n->type == ENTRY_IMAGE ? entry_copy(n, &o->entry, e) : 0;
}

static void count_damage(void *arg, struct store *s, const struct part_ref *ref,
                         const struct err *e)
{
    struct opened *o = arg;
    (void)s;
    (void)ref;
    assert_int_equal(e->code, ERR_DAMAGED);
    o->damage_told++;
}

static void open_image(struct lab *w, struct opened *o, size_t cache_bytes, size_t map_bytes)
{
    struct err e = ERR_INIT;
    OWN_BLOCK_READER struct block_reader *r = NULL;
    *o = (struct opened){0};
    lab_open_pool(w, &o->pool);
    o->pool.damage = count_damage;
    o->pool.arg = o;
    struct part_ref ref = w->result.snapshot;
    ref.size_bytes = 0;
    assert_int_equal(pool_snapshot(&o->pool, &ref, &o->snapshot, &e), 0);
    assert_int_equal(block_reader_new(&r, &e), 0);
    assert_int_equal(pool_entries(&o->pool, &o->snapshot, r, keep_image, o, &e), 0);
    assert_int_equal(block_cache_new(&o->pool, cache_bytes, 2, &o->blocks, &e), 0);
    struct image_reader_params p = {.pool = &o->pool,
                                    .blocks = o->blocks,
                                    .snapshot = &o->snapshot,
                                    .entry = &o->entry,
                                    .map_limit_bytes = map_bytes};
    if (image_reader_open(&p, &o->reader, &e))
        fail_msg("%s", e.message);
}

static void close_image(struct opened *o)
{
    image_reader_close(o->reader);
    block_cache_free(o->blocks);
    pool_close(&o->pool);
    entry_free(&o->entry);
    snapshot_free(&o->snapshot);
}

static int restored(struct lab *w, struct opened *o, const char *name)
{
    struct err e = ERR_INIT;
    struct restore_summary sum;
    char path[400];
    snprintf(w->target, sizeof w->target, "%s/%s", w->dir, name);
    struct restore_params p = {.pool = &o->pool, .snapshot = &o->snapshot, .target = w->target};
    if (restore_run(&p, &sum, &e))
        fail_msg("%s", e.message);
    snprintf(path, sizeof path, "%s%s", w->target, w->db);
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    return fd;
}

/* The same bytes as in the file, at random places and lengths, some of them over several pages. */
static void assert_same(struct opened *o, int fd, unsigned reads)
{
    struct err e = ERR_INIT;
    uint64_t size = image_reader_size(o->reader), seed = 7;
    uint8_t *a = malloc(3 * 65536), *b = malloc(3 * 65536);
    assert_true(a && b);
    for (unsigned i = 0; i < reads; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint64_t at = (seed >> 16) % size;
        size_t n = 1 + (size_t)(seed >> 40) % (i % 4 ? 5000 : 3 * 65536 - 1);
        n = (size_t)MIN((uint64_t)n, size - at);
        if (image_reader_read(o->reader, at, a, n, &e))
            fail_msg("%s", e.message);
        assert_int_equal(io_pread_full(fd, b, n, at), n);
        assert_memory_equal(a, b, n);
    }
    free(a);
    free(b);
}

static void three_generations(struct lab *w)
{
    lab_fill(w, 20000);
    lab_backup(w);
    lab_sql(w, "UPDATE t SET v = randomblob(300) WHERE id % 31 = 1");
    lab_backup(w);
    lab_sql(w, "DELETE FROM t WHERE id % 53 = 1; UPDATE t SET v = zeroblob(200) WHERE id < 90;"
               "PRAGMA user_version=7"); /* which is on page 1 */
    lab_backup(w);
}

static void the_same_bytes_as_a_restore(void **state)
{
    struct lab *w = *state;
    struct opened o;
    three_generations(w);
    open_image(w, &o, MB, MB);
    int fd = restored(w, &o, "whole");
    assert_same(&o, fd, 2000);
    assert_int_equal(image_reader_parts_read(o.reader), o.snapshot.part_count);
    assert_true(block_cache_counts(o.blocks).held_bytes <= MB);
    assert_int_equal(o.damage_told, 0);
    close(fd);
    close_image(&o);
}

static void reads_only_what_is_needed(void **state)
{
    struct lab *w = *state;
    struct opened o;
    struct err e = ERR_INIT;
    uint8_t page[4096];
    three_generations(w);
    open_image(w, &o, MB, MB);
    assert_int_equal(image_reader_read(o.reader, 0, page, sizeof page, &e), 0);
    assert_memory_equal(page, "SQLite format 3", 16);
    assert_int_equal(image_reader_parts_read(o.reader), 1);
    assert_int_equal(block_cache_counts(o.blocks).blocks, 1);
    uint64_t read = block_cache_counts(o.blocks).stored_bytes;
    assert_int_equal(image_reader_read(o.reader, 100, page, 50, &e), 0);
    assert_int_equal(block_cache_counts(o.blocks).stored_bytes, read);
    assert_int_equal(image_reader_read(o.reader, image_reader_size(o.reader) - 10, page, 11, &e),
                     ERR_DAMAGED);
    close_image(&o);
}

static void the_cache_is_bounded(void **state)
{
    struct lab *w = *state;
    struct opened small, large;
    three_generations(w);
    open_image(w, &small, 300000, MB);
    open_image(w, &large, 64 * MB, MB);
    int fd = restored(w, &small, "bounded");
    assert_same(&small, fd, 500);
    assert_same(&large, fd, 500);
    assert_true(block_cache_counts(small.blocks).held_bytes <= 300000);
    assert_true(block_cache_counts(small.blocks).blocks > block_cache_counts(large.blocks).blocks);
    close(fd);
    close_image(&small);
    close_image(&large);
}

static void the_map_is_bounded(void **state)
{
    struct lab *w = *state;
    struct opened o;
    struct err e = ERR_INIT;
    three_generations(w);
    open_image(w, &o, MB, MB);
    struct image_reader_params p = {.pool = &o.pool,
                                    .blocks = o.blocks,
                                    .snapshot = &o.snapshot,
                                    .entry = &o.entry,
                                    .map_limit_bytes = (size_t)o.entry.image.page_count * 4 - 1};
    struct image_reader *r;
    assert_int_equal(image_reader_open(&p, &r, &e), ERR_LIMIT);
    /* Room for the pages but not for the blocks: found while it reads, and then for good. */
    p.map_limit_bytes += 200;
    uint8_t byte;
    assert_int_equal(image_reader_open(&p, &r, &e), 0);
    uint64_t last = image_reader_size(r) - 1;
    assert_int_equal(image_reader_read(r, last, &byte, 1, &e), ERR_LIMIT);
    e = ERR_INIT;
    assert_int_equal(image_reader_read(r, last, &byte, 1, &e), ERR_LIMIT);
    assert_true(e.message[0]);
    image_reader_close(r);
    close_image(&o);
}

/* Every block of the newest image's first part is damaged on that worker. */
static void damage_first_part(struct lab *w, struct opened *o, int worker)
{
    struct err e = ERR_INIT;
    const struct part_file *f;
    char path[300], name[PART_NAME_SIZE];
    assert_int_equal(pool_part(&o->pool, &o->snapshot.parts[0], &f, &e), 0);
    part_name_format(&f->ref, PART_SNAP, name);
    snprintf(path, sizeof path, "%s/w%d/lab/%s", w->dir, worker + 1, name);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    for (size_t i = 0; i < f->meta->block_count; i++) {
        const struct part_block *b = &f->meta->blocks[i];
        assert_int_equal(pwrite(fd, "damage", 6, (off_t)(b->offset + b->stored_bytes / 2)), 6);
    }
    close(fd);
}

static void a_damaged_block_comes_from_the_other_worker(void **state)
{
    struct lab *w = *state;
    struct opened o;
    struct err e = ERR_INIT;
    three_generations(w);
    open_image(w, &o, MB, MB);
    int fd = restored(w, &o, "good");
    damage_first_part(w, &o, 0);
    assert_same(&o, fd, 300);
    assert_true(o.damage_told > 0);
    close_image(&o);

    open_image(w, &o, MB, MB);
    damage_first_part(w, &o, 1);
    uint8_t *page = malloc(4096);
    int rc = 0;
    for (uint64_t at = 0; rc == 0 && at < image_reader_size(o.reader); at += 4096)
        rc = image_reader_read(o.reader, at, page, 4096, &e);
    assert_int_equal(rc, ERR_DAMAGED);
    assert_non_null(strstr(e.message, "block at byte"));
    char stem[PART_NAME_SIZE];
    part_name_format(&o.snapshot.parts[0], PART_SNAP, stem);
    *strrchr(stem, '.') = '\0';
    assert_non_null(strstr(e.message, stem));
    free(page);
    close(fd);
    close_image(&o);
}

static void a_worker_without_the_part_is_passed_over(void **state)
{
    struct lab *w = *state;
    struct opened o;
    char path[300], name[PART_NAME_SIZE];
    three_generations(w);
    open_image(w, &o, MB, MB);
    int fd = restored(w, &o, "good");
    close_image(&o);
    part_name_format(&w->result.snapshot, PART_SNAP, name);
    snprintf(path, sizeof path, "%s/w1/lab/%s", w->dir, name);
    assert_int_equal(unlink(path), 0);
    open_image(w, &o, MB, MB);
    assert_same(&o, fd, 100);
    close(fd);
    close_image(&o);
}

static void sqlite_reads_it(void **state)
{
    struct lab *w = *state;
    struct opened o;
    struct err e = ERR_INIT;
    struct image_db *db;
    sqlite3_stmt *live, *stored;
    static const char question[] = "SELECT count(*), sum(length(v)), max(id), min(hex(v)), "
                                   "(SELECT hex(v) FROM t ORDER BY v DESC LIMIT 1) FROM t";
    three_generations(w);
    open_image(w, &o, 4 * MB, MB);
    if (image_db_open(o.reader, "lab", &db, &e))
        fail_msg("%s", e.message);
    sqlite3 *handle = image_db_handle(db);
    assert_int_equal(sqlite3_prepare_v2(w->sql, question, -1, &live, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(handle, question, -1, &stored, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(live), SQLITE_ROW);
    assert_int_equal(sqlite3_step(stored), SQLITE_ROW);
    for (int i = 0; i < 5; i++)
        assert_string_equal((const char *)sqlite3_column_text(live, i),
                            (const char *)sqlite3_column_text(stored, i));
    sqlite3_finalize(live);
    sqlite3_finalize(stored);
    assert_int_not_equal(sqlite3_exec(handle, "DELETE FROM t", NULL, NULL, NULL), SQLITE_OK);
    assert_int_not_equal(
        sqlite3_exec(handle, "PRAGMA journal_mode=DELETE; CREATE TABLE x(y)", NULL, NULL, NULL),
        SQLITE_OK);
    image_db_close(db);
    close_image(&o);
}

static void sqlite_learns_of_damage(void **state)
{
    struct lab *w = *state;
    struct opened o;
    struct err e = ERR_INIT;
    struct image_db *db;
    three_generations(w);
    open_image(w, &o, 4 * MB, MB);
    damage_first_part(w, &o, 0);
    damage_first_part(w, &o, 1);
    assert_int_equal(image_db_open(o.reader, "lab", &db, &e), 0);
    assert_int_equal(
        sqlite3_exec(image_db_handle(db), "SELECT sum(length(v)) FROM t", NULL, NULL, NULL) & 0xff,
        SQLITE_IOERR);
    assert_int_equal(image_db_error(db)->code, ERR_DAMAGED);
    image_db_close(db);
    close_image(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_same_bytes_as_a_restore, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(reads_only_what_is_needed, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(the_cache_is_bounded, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(the_map_is_bounded, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(a_damaged_block_comes_from_the_other_worker, lab_setup,
                                        lab_teardown),
        cmocka_unit_test_setup_teardown(a_worker_without_the_part_is_passed_over, lab_setup,
                                        lab_teardown),
        cmocka_unit_test_setup_teardown(sqlite_reads_it, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(sqlite_learns_of_damage, lab_setup, lab_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
