/* Content: what is known is referred to, and what lies in too many pieces is brought together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/chunk_table.h"
#include "snapshot/content.h"
#include "snapshot/repository.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "tests/support/sshd.h"
#include "transport/open.h"
#include "transport/store.h"

#define BYTES (1u << 20)

static char dir[64];
static struct repository repo;
static struct store *store;
static struct chunk_table *table;
static struct part_ref parts[64]; /* of all runs so far */
static size_t part_count;
static uint64_t next_sequence = 1;
static uint8_t text[BYTES];

static int setup(void **state)
{
    struct err e = ERR_INIT;
    char url[128];
    struct store_options o = {.name = "w1"};
    bool known;
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/syncd-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(digest_init(&e), 0);
    repository_new("test", &repo);
    snprintf(url, sizeof url, "file://%s/w1", dir);
    assert_int_equal(url_parse(url, &o.url, &e), 0);
    assert_int_equal(store_open_url(&o, &store, &e), 0);
    assert_int_equal(repository_create(store, &repo, &e), 0);
    assert_int_equal(store_make_dir(store, "lab", &e), 0);
    assert_int_equal(chunk_table_open(dir, &(struct chunk_table_head){0}, &table, &known, &e), 0);
    uint64_t seed = 1;
    for (size_t i = 0; i < BYTES; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        text[i] = (uint8_t)(seed >> 56);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    chunk_table_close(table);
    store_close(store);
    test_remove_tree(dir);
    return 0;
}

static struct content_writer begin(struct pipeline **ret)
{
    struct err e = ERR_INIT;
    struct pipeline_options o = {.source = "lab",
                                 .epoch = 1,
                                 .next_sequence = next_sequence,
                                 .worker_count = 1,
                                 .threads = 1,
                                 .workers = {{.store = store, .holds_listed = true}}};
    memcpy(o.repository, repo.id, REPO_ID_SIZE);
    assert_int_equal(pipeline_start(&o, ret, &e), 0);
    chunk_table_count_on(table, parts, part_count, 1, next_sequence);
    return (struct content_writer){.pipeline = *ret,
                                   .seed = repo.seed,
                                   .known = table,
                                   .sizes = {.min = 256, .average = 1024, .max = 8192}};
}

/* One backup of the text, and of the text again: the second costs nothing. */
static uint64_t back_up(bool anew, uint64_t run_bytes_max, struct run_list *ret)
{
    struct err e = ERR_INIT;
    struct pipeline *p;
    struct pipeline_result r = {0};
    struct content_writer w = begin(&p);
    w.anew = anew;
    w.run_bytes_max = run_bytes_max;
    for (int time = 0; time < 2; time++)
        for (size_t at = 0; at < BYTES; at += 65536)
            assert_int_equal(content_write(&w, text + at, 65536, &e), 0);
    assert_int_equal(content_end(&w, ret, &e), 0);
    assert_int_equal(w.bytes, 2 * BYTES);
    uint64_t shipped = w.shipped;
    content_free(&w);
    struct snapshot_section section = {.complete = true};
    assert_int_equal(pipeline_finish(p, &section, &r, &e), 0);
    assert_true(part_count + r.part_count <= ARRAY_LEN(parts));
    memcpy(parts + part_count, r.parts, r.part_count * sizeof *parts);
    part_count += r.part_count;
    next_sequence = r.next_sequence;
    free(r.parts);
    return shipped;
}

static void change(unsigned every, unsigned offset)
{
    for (size_t i = offset; i < BYTES; i += every)
        text[i] ^= 0x55;
}

static void brings_pieces_together(void **state)
{
    struct run_list runs;
    (void)state;
    assert_in_range(back_up(false, 0, &runs), BYTES, BYTES + 16384);
    uint64_t few = runs.count;
    assert_in_range(few, 2, 6);
    run_list_free(&runs);
    for (unsigned i = 0; i < 3; i++) {
        change(16384, 1000 * i);
        assert_in_range(back_up(false, 0, &runs), 30000, BYTES / 4);
        run_list_free(&runs);
    }
    assert_int_equal(back_up(false, 0, &runs), 0);
    assert_true(runs.count > 200);
    run_list_free(&runs);
    /* All is shipped once, and what comes again in it is referred to. */
    assert_in_range(back_up(true, 0, &runs), BYTES, BYTES + 16384);
    assert_in_range(runs.count, 2, 6);
    run_list_free(&runs);
    /* From then on it is known to lie there. */
    assert_int_equal(back_up(false, 0, &runs), 0);
    assert_in_range(runs.count, 2, 6);
    run_list_free(&runs);
}

static void never_passes_the_limit(void **state)
{
    struct run_list runs;
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        change(8192, 700 * i);
        back_up(false, 0, &runs);
        run_list_free(&runs);
    }
    uint64_t shipped = back_up(false, 500, &runs);
    assert_in_range(runs.len, 500, 540);
    assert_in_range(shipped, BYTES, 2 * BYTES - 1);
    run_list_free(&runs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(brings_pieces_together),
        cmocka_unit_test(never_passes_the_limit),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
