/* Pages as columns: every block comes back bit for bit, databases' pages take less, and what a
 * worker makes up is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sqlite3.h>
#include <unistd.h>
#include <zstd.h>

#include "snapshot/columns.h"
#include "snapshot/part.h"

static struct columns *split_memory, *join_memory;

static int setup(void **state)
{
    (void)state;
    split_memory = columns_new();
    join_memory = columns_new();
    return split_memory && join_memory ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    columns_free(split_memory);
    columns_free(join_memory);
    return 0;
}

static size_t zstd_bytes(const uint8_t *data, size_t n)
{
    static uint8_t out[PART_BLOCK_MAX + PART_BLOCK_MAX / 8];
    return ZSTD_compress(out, sizeof out, data, n, 3);
}

struct totals {
    size_t blocks, split, plain_bytes, columns_bytes;
};

/* One block there and back. */
static void check_block(const uint8_t *raw, uint8_t shift, uint32_t count, struct totals *t)
{
    static uint8_t back[PART_BLOCK_MAX];
    const uint8_t *columns = raw;
    size_t raw_bytes = (size_t)count << shift;
    size_t n = columns_split(split_memory, raw, shift, count, &columns);
    assert_true(n <= PART_BLOCK_MAX);
    t->blocks++;
    if (n == 0) {
        assert_ptr_equal(columns, raw); /* or what is stored is something else */
        return;
    }
    t->split++;
    t->plain_bytes += zstd_bytes(raw, raw_bytes);
    t->columns_bytes += zstd_bytes(columns, n);
    memset(back, 0xee, raw_bytes);
    assert_true(columns_join(join_memory, columns, n, shift, count, back));
    assert_memory_equal(back, raw, raw_bytes);
}

static void run_sql(sqlite3 *db, const char *sql)
{
    char *why = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
        fail_msg("%s: %s", sql, why);
}

static const char tables[] =
    "CREATE TABLE reading(id INTEGER PRIMARY KEY, unit TEXT, at TEXT, value REAL, n INTEGER);"
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000)"
    " INSERT INTO reading SELECT i, 'unit' || (i % 8), strftime('%Y-%m-%dT%H:%M:%fZ',"
    " 1700000000 + i * 0.7, 'unixepoch'), abs(random() / 1e19), i * i FROM n;"
    "CREATE INDEX by_unit ON reading(unit, at);"
    "DELETE FROM reading WHERE id % 7 = 0;"
    "UPDATE reading SET unit = unit || unit WHERE id % 11 = 0;"
    "CREATE TABLE mixed(a, b, c, d);"
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
    " INSERT INTO mixed SELECT CASE i % 5 WHEN 0 THEN NULL WHEN 1 THEN i WHEN 2 THEN -i * 1e9"
    " WHEN 3 THEN randomblob(i % 300) ELSE hex(randomblob(i % 40)) END, random(),"
    " CASE WHEN i % 97 = 0 THEN randomblob(20000) END, substr('abcdefgh', 1, i % 8) FROM n;"
    "INSERT INTO mixed(rowid, a) VALUES(-5, 1), (9223372036854775807, 2), (72057594037927936, 3);"
    "ALTER TABLE mixed ADD COLUMN e DEFAULT 7;"
    "INSERT INTO mixed(a, e) SELECT a, e FROM mixed LIMIT 500;"
    "CREATE TABLE keyed(k TEXT PRIMARY KEY, v) WITHOUT ROWID;"
    "INSERT INTO keyed SELECT hex(randomblob(8)), zeroblob(rowid % 60) FROM reading LIMIT 3000;";

/* A database with such tables, as a malloc'ed image. */
static uint8_t *make_database(unsigned page_bytes, size_t *ret_bytes)
{
    sqlite3 *db;
    char sql[64];
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    snprintf(sql, sizeof sql, "PRAGMA page_size=%u", page_bytes);
    run_sql(db, sql);
    run_sql(db, tables);
    char wide[4096] = "CREATE TABLE wide(c0";
    for (int i = 1; i < 90; i++)
        snprintf(wide + strlen(wide), sizeof wide - strlen(wide), ", c%d DEFAULT %d", i, i);
    snprintf(wide + strlen(wide), sizeof wide - strlen(wide), ")");
    run_sql(db, wide);
    run_sql(db, "INSERT INTO wide(c0) SELECT value FROM reading LIMIT 300");
    sqlite3_int64 size;
    unsigned char *image = sqlite3_serialize(db, "main", &size, 0);
    assert_non_null(image);
    uint8_t *copy = malloc((size_t)size);
    assert_non_null(copy);
    memcpy(copy, image, (size_t)size);
    sqlite3_free(image);
    sqlite3_close(db);
    *ret_bytes = (size_t)size;
    return copy;
}

static void databases_of_all_page_sizes_come_back(void **state)
{
    (void)state;
    for (uint8_t shift = 9; shift <= 16; shift++) {
        struct totals t = {0};
        size_t size;
        uint8_t *image = make_database(1u << shift, &size);
        uint32_t per_block = PART_BLOCK_MAX >> shift;
        for (size_t page = 0; page < size >> shift; page += per_block) {
            size_t left = (size >> shift) - page;
            check_block(image + (page << shift), shift,
                        left < per_block ? (uint32_t)left : per_block, &t);
        }
        free(image);
        print_message("pages of %u: %zu of %zu blocks, %zu bytes instead of %zu\n", 1u << shift,
                      t.split, t.blocks, t.columns_bytes, t.plain_bytes);
        assert_true(t.split > 0);
        assert_true(t.columns_bytes * 20 < t.plain_bytes * 19); /* most of it is random */
    }
}

/* Time series are what it is for. */
static void readings_take_little_more_than_half(void **state)
{
    (void)state;
    struct totals t = {0};
    size_t size;
    uint8_t *image = make_database(4096, &size);
    check_block(image + 2 * 4096, 12, 60, &t); /* the first table's leaves */
    free(image);
    assert_int_equal(t.split, 1);
    assert_true(t.columns_bytes * 100 < t.plain_bytes * 65);
}

static uint64_t random_state = 88172645463325252u;

static uint32_t random_below(uint32_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 11) % n;
}

/* Bytes changed anywhere, pointers made to meet, cells made to overlap: all must come back. */
static void damaged_pages_come_back(void **state)
{
    (void)state;
    struct totals t = {0};
    size_t size;
    uint8_t *image = make_database(4096, &size);
    uint8_t *block = malloc(16 * 4096);
    assert_non_null(block);
    for (int round = 0; round < 3000; round++) {
        uint32_t first = random_below((uint32_t)(size >> 12) - 16);
        memcpy(block, image + ((size_t)first << 12), 16 * 4096);
        for (uint32_t n = random_below(60); n > 0; n--) {
            uint8_t *page = block + 4096 * (size_t)random_below(16);
            page[random_below(random_below(2) ? 140 : 4096)] = (uint8_t)random_below(256);
            if (random_below(3) == 0)
                memcpy(page + 8 + 2 * (size_t)random_below(40),
                       page + 8 + 2 * (size_t)random_below(40), 2);
        }
        check_block(block, 12, 16, &t);
    }
    assert_true(t.split > 1000);
    free(block);
    free(image);
}

/* Where a leaf has its number of cells an overflow page has the end of a page number and content.
 */
static void a_page_of_another_kind_costs_its_block_nothing(void **state)
{
    (void)state;
    struct totals t = {0};
    size_t size;
    uint8_t *image = make_database(4096, &size);
    for (uint32_t at = 2; at < 62; at += 20)
        memset(image + 4096 * (size_t)at, 0xff, 4096);
    check_block(image + 2 * 4096, 12, 60, &t);
    free(image);
    assert_int_equal(t.split, 1);
}

static void noise_and_zeros_are_left_alone(void **state)
{
    (void)state;
    uint8_t *block = calloc(1, PART_BLOCK_MAX);
    const uint8_t *columns;
    assert_non_null(block);
    assert_int_equal(columns_split(split_memory, block, 12, 64, &columns), 0);
    for (size_t i = 0; i < PART_BLOCK_MAX; i++)
        block[i] = (uint8_t)random_below(256);
    assert_int_equal(columns_split(split_memory, block, 12, 64, &columns), 0);
    /* A leaf page full of pointers to the same place. */
    for (size_t i = 0; i < PART_BLOCK_MAX; i += 2) {
        block[i] = 0x0d;
        block[i + 1] = 0xff;
    }
    assert_int_equal(columns_split(split_memory, block, 16, 4, &columns), 0);
    free(block);
}

/* Large rows of noise, one to a page, take as much room apart as together. */
static void rows_that_save_nothing_are_left_alone(void **state)
{
    (void)state;
    struct totals t = {0};
    sqlite3 *db;
    sqlite3_int64 size;
    assert_int_equal(sqlite3_open(":memory:", &db), SQLITE_OK);
    run_sql(db, "CREATE TABLE picture(id INTEGER PRIMARY KEY, data BLOB);"
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
                " INSERT INTO picture SELECT i, randomblob(3000) FROM n");
    unsigned char *image = sqlite3_serialize(db, "main", &size, 0);
    assert_non_null(image);
    for (size_t at = 0; at + PART_BLOCK_MAX <= (size_t)size; at += PART_BLOCK_MAX)
        check_block(image + at, 12, PART_BLOCK_MAX >> 12, &t);
    assert_true(t.blocks >= 7);
    assert_true(t.split < t.blocks);
    sqlite3_free(image);
    sqlite3_close(db);
}

/* A page of rows that share bytes, or lie outside: the bytes of columns are as a worker could make
 * them. Streams as columns_split writes them for one row, and then changed. */
static void made_up_columns_are_refused(void **state)
{
    (void)state;
    size_t size;
    uint8_t *image = make_database(4096, &size), *back = malloc(4 * 4096);
    const uint8_t *columns;
    size_t n = columns_split(split_memory, image + 2 * 4096, 12, 4, &columns);
    assert_true(n > 0 && back);
    uint8_t *changed = malloc(n + 1);
    assert_non_null(changed);
    memcpy(changed, columns, n);
    assert_true(columns_join(join_memory, changed, n, 12, 4, back));
    for (size_t cut = 0; cut < n; cut += 1 + n / 500)
        assert_false(columns_join(join_memory, changed, cut, 12, 4, back));
    changed[n] = 0;
    assert_false(columns_join(join_memory, changed, n + 1, 12, 4, back));
    assert_false(columns_join(join_memory, changed, n, 12, 3, back));
    assert_false(columns_join(join_memory, changed, n, 12, 5, back));
    assert_false(columns_join(join_memory, changed, n, 13, 2, back));
    unsigned refused = 0;
    for (size_t i = 0; i < n; i++) { /* under the sanitizers: within bounds, whatever comes */
        uint8_t before = changed[i];
        changed[i] = (uint8_t)random_below(256);
        refused += !columns_join(join_memory, changed, n, 12, 4, back);
        changed[i] = before;
    }
    assert_true(refused > 0);
    free(changed);
    free(back);
    free(image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(databases_of_all_page_sizes_come_back),
        cmocka_unit_test(readings_take_little_more_than_half),
        cmocka_unit_test(damaged_pages_come_back),
        cmocka_unit_test(a_page_of_another_kind_costs_its_block_nothing),
        cmocka_unit_test(noise_and_zeros_are_left_alone),
        cmocka_unit_test(rows_that_save_nothing_are_left_alone),
        cmocka_unit_test(made_up_columns_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
