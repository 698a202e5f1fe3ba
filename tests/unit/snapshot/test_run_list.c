/* Lists of runs, short and long, and entries that have them: in memory, in spools, in records. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/entry.h"
#include "snapshot/run_list.h"
#include "snapshot/spool.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define MANY 100000u /* more than half a megabyte */

/* Number i of a list that never joins: two parts in turn. */
static struct part_run nth(uint32_t i)
{
    return (struct part_run){.epoch = 1 + i % 2,
                             .sequence = i % 2 ? UINT64_C(1) << 40 : 7,
                             .first_chunk = (i * 7) % 4000000,
                             .count = 1 + i % 3};
}

static struct run_list make(uint32_t count)
{
    struct err e = ERR_INIT;
    struct run_writer w = {0};
    struct run_list l;
    for (uint32_t i = 0; i < count; i++) {
        struct part_run one = nth(i);
        assert_int_equal(run_add(&w, &one, &e), 0);
    }
    assert_int_equal(run_end(&w, &l, &e), 0);
    run_writer_free(&w);
    assert_int_equal(l.count, count);
    assert_true((l.file != NULL) == (l.len > RUN_LIST_IN_MEMORY));
    return l;
}

static void check(const struct run_list *l, uint32_t count)
{
    struct err e = ERR_INIT;
    struct run_reader r;
    struct part_run run;
    run_read(&r, l);
    for (uint32_t i = 0; i < count; i++) {
        struct part_run expected = nth(i);
        assert_int_equal(run_next(&r, &run, &e), 1);
        assert_int_equal(run.epoch, expected.epoch);
        assert_int_equal(run.sequence, expected.sequence);
        assert_int_equal(run.first_chunk, expected.first_chunk);
        assert_int_equal(run.count, expected.count);
    }
    assert_int_equal(run_next(&r, &run, &e), 0);
}

static void writes_and_reads(void **state)
{
    static const uint32_t counts[] = {0, 1, 2, 8000, MANY};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        struct err e = ERR_INIT;
        struct run_list l = make(counts[i]), copy;
        check(&l, counts[i]);
        assert_int_equal(run_list_copy(&l, &copy, &e), 0);
        assert_true(run_list_same(&l, &copy));
        run_list_free(&l);
        check(&copy, counts[i]);
        run_list_free(&copy);
    }
}

static void joins_what_follows_on(void **state)
{
    struct err e = ERR_INIT;
    struct run_writer w = {0};
    struct run_list l;
    struct part_run *runs = NULL;
    size_t count;
    (void)state;
    for (uint32_t i = 0; i < 50000; i++)
        assert_int_equal(run_add(&w, &(struct part_run){1, 2, i, 1}, &e), 0);
    assert_int_equal(run_add(&w, &(struct part_run){1, 2, 60000, 1}, &e), 0);
    assert_int_equal(run_end(&w, &l, &e), 0);
    assert_int_equal(run_list_array(&l, 1, &runs, &count, &e), ERR_DAMAGED);
    assert_int_equal(run_list_array(&l, 2, &runs, &count, &e), 0);
    assert_int_equal(count, 2);
    assert_int_equal(runs[0].count, 50000);
    assert_int_equal(runs[1].first_chunk, 60000);
    free(runs);
    run_list_free(&l);
}

/* In memory and in a file: neither gives anything that is not there. */
static void refuses_what_is_malformed(void **state)
{
    static const struct {
        uint8_t bytes[12];
        size_t n;
    } bad[] = {{{0}, 0},
               {{1}, 1},
               {{1, 1, 1, 1}, 4},
               {{2, 1, 1, 1, 1}, 5},
               {{1, 1, 1, 1, 0}, 5},
               {{0, 1, 1, 1, 1}, 5},
               {{1, 1, 1, 1, 0x81, 0}, 6},
               {{1, 1, 1, 0xff, 0xff, 0xff, 0x7f, 1}, 8},
               {{1, 1, 1, 1, 1, 1}, 6}};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err e = ERR_INIT;
        struct run_list l = {0};
        struct cursor c = cursor_of(bad[i].bytes, bad[i].n);
        int fd = -1;
        assert_false(run_list_decode(&c, &l));
        assert_int_equal(spool_file(NULL, &fd, &e), 0);
        assert_int_equal(io_pwrite_all(fd, bad[i].bytes, bad[i].n, 0), 0);
        struct shared_file *f = shared_file_new(fd);
        assert_non_null(f);
        assert_int_equal(run_list_at(f, 0, bad[i].n, &l, &e), ERR_DAMAGED);
        shared_file_unref(f);
    }
}

static struct entry dump_of(const char *path, uint32_t count)
{
    struct entry n = {.type = ENTRY_DUMP, .path = strdup(path), .as_of_us = 5, .size = 1 << 30};
    n.signature = (struct entry_bytes){.data = (uint8_t *)strdup("what was noted"), .len = 14};
    n.holes =
        (struct entry_bytes){.data = (uint8_t *)strdup("\1\2"), .len = 2}; /* after the runs */
    n.runs = make(count);
    return n;
}

static void check_entry(const struct entry *n, const char *path, uint32_t count)
{
    assert_string_equal(n->path, path);
    assert_int_equal(n->signature.len, 14);
    assert_int_equal(n->holes.len, 2);
    assert_int_equal(n->runs.count, count);
    check(&n->runs, count);
}

static void spools_long_entries(void **state)
{
    static const uint32_t counts[] = {3, MANY, 9000, 2 * MANY, 0};
    struct err e = ERR_INIT;
    uint64_t at[ARRAY_LEN(counts)];
    struct entry n;
    OWN_SPOOL struct spool *s = NULL;
    (void)state;
    assert_int_equal(spool_open("/tmp", &s, &e), 0);
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        n = dump_of((char[]){'a', (char)('0' + i), 0}, counts[i]);
        assert_int_equal(spool_add(s, &n, &at[i], &e), 0);
        entry_free(&n);
    }
    OWN_SPOOL_READER struct spool_reader r = spool_read(s);
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        assert_int_equal(spool_next(&r, &n, &e), 1);
        check_entry(&n, (char[]){'a', (char)('0' + i), 0}, counts[i]);
        entry_free(&n);
    }
    assert_int_equal(spool_next(&r, &n, &e), 0);
    assert_int_equal(spool_at(s, at[3], &n, &e), 0);
    spool_close(TAKE_PTR(s)); /* the entry holds on to the file */
    check_entry(&n, "a3", 2 * MANY);
    entry_free(&n);
}

static void refuses_a_record_beyond_the_limit(void **state)
{
    struct err e = ERR_INIT;
    OWN_SPOOL struct spool *s = NULL;
    struct entry n = dump_of("a", 1300000);
    (void)state;
    assert_int_equal(spool_open(NULL, &s, &e), 0);
    assert_int_equal(spool_add(s, &n, NULL, &e), ERR_LIMIT);
    assert_int_equal(spool_count(s), 0);
    assert_int_equal(spool_bytes(s), 0);
    entry_free(&n);
}

/* A record in a file is the same as in memory, and its fields must ascend there too. */
static void decodes_records_in_files(void **state)
{
    struct err e = ERR_INIT;
    struct entry n = dump_of("a", MANY), back;
    struct buf record = BUF_INIT;
    int fd = -1;
    (void)state;
    entry_encode(&n, &record);
    assert_false(record.bad);
    struct cursor c = cursor_of(record.data, record.len);
    uint64_t len = cursor_varint(&c);
    size_t head = record.len - (size_t)len;
    assert_int_equal(spool_file(NULL, &fd, &e), 0);
    struct shared_file *f = shared_file_new(fd);
    assert_non_null(f);
    assert_int_equal(io_pwrite_all(fd, record.data, record.len, 100), 0);
    assert_int_equal(entry_decode_at(f, 100 + head, len, &back, &e), 0);
    check_entry(&back, "a", MANY);
    assert_true(run_list_same(&n.runs, &back.runs));
    entry_free(&back);
    assert_int_equal(entry_decode_at(f, 100 + head, len - 1, &back, &e), ERR_DAMAGED);
    record.data[record.len - 4] = 19; /* the tag of the last field, which was 26 */
    assert_int_equal(io_pwrite_all(fd, record.data, record.len, 100), 0);
    assert_int_equal(entry_decode_at(f, 100 + head, len, &back, &e), ERR_DAMAGED);
    shared_file_unref(f);
    buf_free(&record);
    entry_free(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_and_reads),
        cmocka_unit_test(joins_what_follows_on),
        cmocka_unit_test(refuses_what_is_malformed),
        cmocka_unit_test(spools_long_entries),
        cmocka_unit_test(refuses_a_record_beyond_the_limit),
        cmocka_unit_test(decodes_records_in_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
