#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/bolt_file.h"
#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "tests/unit/snapshot/bolt_helpers.h"

#define FILE_LIMIT (1u << 20)
#define PAGE 1024u /* of small.bolt */

/* A copy of small.bolt that a test may damage, and where its pages are. */
struct fixture {
    struct buf original, text;
    struct bolt_memory memory;
    uint8_t *data;
    struct bolt_meta meta;
    struct bolt_run branch, leaf, freelist; /* the first of each; leaf: one below a branch */
};

static void load(const char *name, struct buf *ret)
{
    struct err e = ERR_INIT;
    char path[512];
    snprintf(path, sizeof path, SYNCD_SOURCE_DIR "/tests/unit/snapshot/fixtures/%s", name);
    if (io_read_file(path, FILE_LIMIT, ret, &e))
        fail_msg("%s: %s", path, e.message);
}

static int note_run(void *arg, const struct bolt_run *run, struct err *e)
{
    struct fixture *f = arg;
    (void)e;
    if (run->kind == BOLT_PAGE_FREELIST)
        f->freelist = *run;
    else if (run->kind == BOLT_PAGE_BRANCH && !f->branch.page)
        f->branch = *run;
    else if (run->kind == BOLT_PAGE_LEAF && f->branch.page && !f->leaf.page)
        f->leaf = *run;
    return 0;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err e = ERR_INIT;
    OWN_BOLT struct bolt_reader *r = NULL;
    struct bolt_walked walked;
    load("small.bolt", &f->original);
    load("small.txt", &f->text);
    f->data = malloc(f->original.len);
    memcpy(f->data, f->original.data, f->original.len);
    f->memory = (struct bolt_memory){.data = f->data, .size = f->original.len};
    struct bolt_input input = bolt_memory_input(&f->memory);
    assert_int_equal(bolt_open(&input, &r, &e), 0);
    assert_int_equal(bolt_read_meta(r, &f->meta, &e), 0);
    assert_int_equal(bolt_walk(r, &f->meta, note_run, f, &walked, &e), 0);
    bolt_walked_free(&walked);
    assert_true(f->branch.page && f->leaf.page && f->freelist.page);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    buf_free(&f->original);
    buf_free(&f->text);
    free(f->data);
    free(f);
    return 0;
}

static void repair(struct fixture *f)
{
    memcpy(f->data, f->original.data, f->original.len);
}

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

/* What bolt_walk says about the damaged copy, which is then repaired. */
static int walk_verdict(struct fixture *f, struct bolt_walked *ret, struct err *e)
{
    OWN_BOLT struct bolt_reader *r = NULL;
    struct bolt_input input = bolt_memory_input(&f->memory);
    struct bolt_meta meta;
    struct bolt_walked walked = {0};
    bolt_seal_meta(f->data, PAGE, 0);
    bolt_seal_meta(f->data, PAGE, 1);
    *e = ERR_INIT;
    int rc = bolt_open(&input, &r, e);
    if (rc == 0)
        rc = bolt_read_meta(r, &meta, e);
    if (rc == 0)
        rc = bolt_walk(r, &meta, NULL, NULL, &walked, e);
    if (ret)
        *ret = walked;
    bolt_walked_free(&walked);
    repair(f);
    return rc;
}

static void assert_damaged(struct fixture *f, const char *because)
{
    struct err e;
    int rc = walk_verdict(f, NULL, &e);
    if (rc != ERR_DAMAGED || !strstr(e.message, because))
        fail_msg("expected damage: \"%s\", got %d: %s", because, rc, e.message);
}

static uint8_t *page(struct fixture *f, uint64_t number)
{
    return f->data + number * PAGE;
}

static uint8_t *element(struct fixture *f, uint64_t number, unsigned index)
{
    return page(f, number) + 16 + index * 16;
}

static void reads_what_bbolt_reads_from(const char *name)
{
    OWN_BUF struct buf data = BUF_INIT, want = BUF_INIT, have = BUF_INIT;
    OWN_BOLT struct bolt_reader *r = NULL;
    struct bolt_walked walked;
    struct err e = ERR_INIT;
    char file[64];
    snprintf(file, sizeof file, "%s.bolt", name);
    load(file, &data);
    snprintf(file, sizeof file, "%s.txt", name);
    load(file, &want);
    struct bolt_memory m = {.data = data.data, .size = data.len};
    struct bolt_input input = bolt_memory_input(&m);
    assert_int_equal(bolt_open(&input, &r, &e), 0);
    if (bolt_describe(r, &walked, &have, &e))
        fail_msg("%s", e.message);
    assert_string_equal(buf_cstr(&have), buf_cstr(&want));
    assert_int_equal(walked.lost_pages, 0);
    bolt_walked_free(&walked);
}

static void reads_what_bbolt_reads(void **state)
{
    (void)state;
    reads_what_bbolt_reads_from("small");
    reads_what_bbolt_reads_from("nofreelist");
}

static void sniffs_by_either_meta(void **state)
{
    struct fixture *f = *state;
    OWN_MEM uint8_t *head = calloc(1, BOLT_SNIFF_BYTES);
    assert_true(bolt_sniff(f->data, f->memory.size));
    assert_true(bolt_sniff(f->data, 24));
    assert_false(bolt_sniff(f->data, 23));
    assert_false(bolt_sniff(f->data, 0));
    f->data[16] ^= 1;
    assert_true(bolt_sniff(f->data, f->memory.size));
    assert_false(bolt_sniff(f->data, PAGE));
    for (uint32_t size = BOLT_PAGE_SIZE_MIN; size <= BOLT_PAGE_SIZE_MAX; size *= 2) {
        memset(head, 0, BOLT_SNIFF_BYTES);
        assert_false(bolt_sniff(head, BOLT_SNIFF_BYTES));
        memcpy(head + size, f->original.data, 80);
        assert_false(bolt_sniff(head, BOLT_SNIFF_BYTES) && size != PAGE);
        le32_put(head + size + 24, size);
        assert_true(bolt_sniff(head, BOLT_SNIFF_BYTES));
    }
    repair(f);
}

static void takes_the_newest_meta_that_is_whole(void **state)
{
    struct fixture *f = *state;
    struct bolt_input input = bolt_memory_input(&f->memory);
    struct bolt_meta meta;
    struct err e = ERR_INIT;
    unsigned newest = f->meta.txid % 2;
    f->data[newest * PAGE + 16 + 60] ^= 1;
    OWN_BOLT struct bolt_reader *r = NULL;
    assert_int_equal(bolt_open(&input, &r, &e), 0);
    assert_int_equal(bolt_page_size(r), PAGE);
    assert_int_equal(bolt_read_meta(r, &meta, &e), 0);
    assert_int_equal(meta.txid, f->meta.txid - 1);
    assert_false(bolt_meta_same(&meta, &f->meta));
    f->data[(1 - newest) * PAGE + 16 + 60] ^= 1;
    assert_int_equal(bolt_read_meta(r, &meta, &e), ERR_DAMAGED);
    bolt_closep(&r);
    assert_int_equal(bolt_open(&input, &r, &e), ERR_DAMAGED);
    repair(f);
}

static void both_metas_can_be_the_same(void **state)
{
    struct fixture *f = *state;
    struct bolt_input input = bolt_memory_input(&f->memory);
    struct bolt_meta meta;
    struct err e = ERR_INIT;
    for (unsigned slot = 0; slot < 2; slot++)
        bolt_encode_meta(&f->meta, slot, page(f, slot));
    for (unsigned slot = 0; slot < 2; slot++)
        assert_int_equal(le64_get(page(f, slot)), slot);
    OWN_BOLT struct bolt_reader *r = NULL;
    assert_int_equal(bolt_open(&input, &r, &e), 0);
    assert_int_equal(bolt_read_meta(r, &meta, &e), 0);
    assert_true(bolt_meta_same(&meta, &f->meta));
    repair(f);
}

static void strange_page_sizes_are_refused(void **state)
{
    struct fixture *f = *state;
    struct err e;
    static const uint32_t sizes[] = {0, 1, 512, 1000, 3072, 131072, UINT32_MAX};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        le32_put(page(f, 0) + 24, sizes[i]);
        assert_int_equal(walk_verdict(f, NULL, &e), ERR_UNSUPPORTED);
    }
}

static void pages_are_reached_once(void **state)
{
    struct fixture *f = *state;
    /* Two children the same; a child that is its own parent; one past the end; a meta. */
    le64_put(element(f, f->branch.page, 1) + 8, le64_get(element(f, f->branch.page, 0) + 8));
    assert_damaged(f, "is referred to twice");
    le64_put(element(f, f->branch.page, 0) + 8, f->branch.page);
    assert_damaged(f, "is referred to twice");
    le64_put(element(f, f->branch.page, 0) + 8, f->meta.high_water);
    assert_damaged(f, "is referred to, but pages in use are");
    le64_put(element(f, f->branch.page, 0) + 8, UINT64_MAX);
    assert_damaged(f, "is referred to, but pages in use are");
    le64_put(element(f, f->branch.page, 0) + 8, 1);
    assert_damaged(f, "is referred to, but pages in use are");
    le64_put(element(f, f->branch.page, 0) + 8, f->freelist.page);
    assert_damaged(f, "is neither branch nor leaf");
}

static void page_headers_are_checked(void **state)
{
    struct fixture *f = *state;
    uint8_t *leaf = page(f, f->leaf.page);
    le64_put(leaf, f->leaf.page + 1);
    assert_damaged(f, "says that it is page");
    put16(leaf + 8, 3);
    assert_damaged(f, "is neither branch nor leaf");
    put16(leaf + 10, 0xFFFF);
    assert_damaged(f, "is too small for its 65535 elements");
    le32_put(leaf + 12, UINT32_MAX);
    assert_damaged(f, "overflows past the end");
    put16(page(f, f->branch.page) + 10, 0);
    assert_damaged(f, "is a branch without children");
}

static void elements_are_checked(void **state)
{
    struct fixture *f = *state;
    uint8_t *first = element(f, f->leaf.page, 0), *second = element(f, f->leaf.page, 1);
    le32_put(first, 2);
    assert_damaged(f, "has unknown flags");
    le32_put(first + 4, 0);
    assert_damaged(f, "outside of itself");
    le32_put(first + 4, UINT32_MAX);
    assert_damaged(f, "outside of itself");
    le32_put(first + 8, 0);
    assert_damaged(f, "has a key of 0 bytes");
    le32_put(first + 8, BOLT_KEY_MAX + 1);
    assert_damaged(f, "has a key of 32769 bytes");
    le32_put(first + 12, UINT32_MAX);
    assert_damaged(f, "outside of itself");
    le32_put(second + 4, le32_get(first + 4) - 16); /* the first one's bytes again */
    assert_damaged(f, "has overlapping elements");
}

static void keys_must_ascend(void **state)
{
    struct fixture *f = *state;
    uint8_t *first = element(f, f->leaf.page, 0), *second = element(f, f->leaf.page, 1);
    uint8_t *separator = element(f, f->branch.page, 1);
    memcpy(second + le32_get(second + 4), first + le32_get(first + 4), le32_get(first + 8));
    assert_damaged(f, "has its keys out of order at element 1");
    first[le32_get(first + 4)] = 1; /* below the separator above it */
    assert_damaged(f, "has its keys out of order at element 0");
    separator[le32_get(separator)] = 0xFF; /* above what lies under it */
    assert_damaged(f, "has its keys out of order");
    separator[le32_get(separator)] = 1; /* below what lies before it */
    assert_damaged(f, "has its keys out of order at element 1");
}

static void the_freelist_is_checked(void **state)
{
    struct fixture *f = *state;
    uint8_t *list = page(f, f->freelist.page);
    unsigned count = f->freelist.count;
    struct bolt_walked walked;
    struct err e;
    assert_true(count > 2);
    le64_put(list + 16, f->leaf.page);
    assert_damaged(f, "is in use and on the freelist");
    le64_put(list + 16, le64_get(list + 24));
    assert_damaged(f, "is twice on the freelist");
    le64_put(list + 16, f->meta.high_water);
    assert_damaged(f, "is a freelist that names page");
    le64_put(list + 16, 1);
    assert_damaged(f, "is a freelist that names page");
    put16(list + 10, (PAGE - 16) / 8 + 1);
    assert_damaged(f, "is a freelist too small");
    put16(list + 10, 0xFFFF);
    le64_put(list + 16, UINT64_MAX);
    assert_damaged(f, "is a freelist too small");
    put16(list + 8, 2);
    assert_damaged(f, "is not the freelist");
    le64_put(page(f, f->meta.txid % 2) + 16 + 32, 0);
    assert_damaged(f, "is said to be the freelist");

    /* The long form, with its count in front. */
    memmove(list + 24, list + 16, (size_t)count * 8);
    put16(list + 10, 0xFFFF);
    le64_put(list + 16, count);
    assert_int_equal(walk_verdict(f, &walked, &e), 0);
    assert_int_equal(walked.free_pages, count);
    assert_int_equal(walked.lost_pages, 0);

    /* A page that nobody knows costs space only. */
    uint64_t lost = le64_get(list + 16 + (size_t)(count - 1) * 8);
    put16(list + 10, count - 1);
    assert_int_equal(walk_verdict(f, &walked, &e), 0);
    assert_int_equal(walked.lost_pages, 1);
    assert_int_equal(walked.lost_page, lost);
}

/* The element of a bucket inside a bucket: "jobs" and its first one that is inline or not. */
static struct bolt_item find_bucket(struct fixture *f, bool is_inline)
{
    OWN_BOLT struct bolt_reader *r = NULL;
    OWN_BOLT_CURSOR struct bolt_cursor *c = NULL;
    struct bolt_input input = bolt_memory_input(&f->memory);
    struct bolt_item item;
    struct bolt_bucket jobs, b;
    struct err e = ERR_INIT;
    assert_int_equal(bolt_open(&input, &r, &e), 0);
    struct bolt_bucket root = bolt_root(r, &f->meta);
    assert_int_equal(bolt_find(r, &root, "jobs", 4, &item, &e), 0);
    assert_int_equal(bolt_bucket_open(r, &root, &item, &jobs, &e), 0);
    assert_int_equal(bolt_cursor_open(r, &jobs, &c, &e), 0);
    for (;;) {
        assert_int_equal(bolt_cursor_next(c, &item, &e), 0);
        assert_non_null(item.key);
        assert_int_equal(bolt_bucket_open(r, &jobs, &item, &b, &e), 0);
        if ((b.root_page == 0) == is_inline)
            return item;
    }
}

static void buckets_are_checked(void **state)
{
    struct fixture *f = *state;
    uint8_t *nested = f->data + find_bucket(f, false).value_at;
    uint8_t *inlined = f->data + find_bucket(f, true).value_at;
    le64_put(nested, f->meta.root_page);
    assert_damaged(f, "is referred to twice");
    le64_put(nested, f->meta.high_water + 5);
    assert_damaged(f, "is referred to, but pages in use are");
    put16(inlined + 16 + 8, 1);
    assert_damaged(f, "an inline bucket is not a leaf");
    put16(inlined + 16 + 10, 5000);
    assert_damaged(f, "is too small for its 5000 elements");
    le32_put(inlined + 32, 1);
    assert_damaged(f, "inline bucket");
}

static void cursors_seek(void **state)
{
    struct fixture *f = *state;
    OWN_BOLT struct bolt_reader *r = NULL;
    OWN_BOLT_CURSOR struct bolt_cursor *c = NULL;
    struct bolt_input input = bolt_memory_input(&f->memory);
    struct bolt_item item, all[200];
    struct bolt_bucket items;
    struct err e = ERR_INIT;
    char keys[200][1024];
    size_t n = 0;
    assert_int_equal(bolt_open(&input, &r, &e), 0);
    struct bolt_bucket root = bolt_root(r, &f->meta);
    assert_int_equal(bolt_find(r, &root, "items", 5, &item, &e), 0);
    assert_int_equal(bolt_bucket_open(r, &root, &item, &items, &e), 0);
    assert_int_equal(bolt_cursor_open(r, &items, &c, &e), 0);
    while (bolt_cursor_next(c, &all[n], &e) == 0 && all[n].key && n < 199) {
        memcpy(keys[n], all[n].key, all[n].key_bytes);
        n++;
    }
    assert_true(n > 50);
    for (size_t i = 0; i < n; i++) {
        /* Itself; just above it; just below it. */
        assert_int_equal(bolt_cursor_seek(c, keys[i], all[i].key_bytes, &e), 0);
        assert_int_equal(bolt_cursor_next(c, &item, &e), 0);
        assert_int_equal(item.value_at, all[i].value_at);
        keys[i][all[i].key_bytes] = 0;
        assert_int_equal(bolt_cursor_seek(c, keys[i], all[i].key_bytes + 1, &e), 0);
        assert_int_equal(bolt_cursor_next(c, &item, &e), 0);
        assert_int_equal(item.key ? item.value_at : 0, i + 1 < n ? all[i + 1].value_at : 0);
        /* One byte shorter: no other key begins like that but those before it in `all`. */
        assert_int_equal(bolt_cursor_seek(c, keys[i], all[i].key_bytes - 1, &e), 0);
        assert_int_equal(bolt_cursor_next(c, &item, &e), 0);
        size_t first = i;
        while (first && memcmp(keys[first - 1], keys[i], all[i].key_bytes - 1) >= 0)
            first--;
        assert_int_equal(item.value_at, all[first].value_at);
        assert_int_equal(bolt_find(r, &items, keys[i], all[i].key_bytes - 1, &item, &e),
                         ERR_NOT_FOUND);
    }
    assert_int_equal(bolt_cursor_seek(c, "", 0, &e), 0);
    assert_int_equal(bolt_cursor_next(c, &item, &e), 0);
    assert_int_equal(item.value_at, all[0].value_at);
}

/* More than this, and the same bytes were read over and over: an honest run of everything takes a
 * few file sizes, and a refused file may be looked at up to bolt_exercise's limit of items. */
#define READ_LIMIT (UINT64_C(2) << 30)

static void exercise(struct fixture *f, const char *what, uint64_t where)
{
    f->memory.bytes_read = 0;
    int rc = bolt_exercise(&f->memory);
    if (rc != 0 && rc != ERR_DAMAGED && rc != ERR_UNSUPPORTED)
        fail_msg("%s at %llu: code %d", what, (unsigned long long)where, rc);
    if (f->memory.bytes_read > READ_LIMIT)
        fail_msg("%s at %llu: %llu bytes read", what, (unsigned long long)where,
                 (unsigned long long)f->memory.bytes_read);
}

/* Every byte of every page header and of the first elements, set to telling values. */
static void no_field_is_trusted(void **state)
{
    struct fixture *f = *state;
    static const uint8_t values[] = {0, 1, 0xFF};
    for (uint64_t at = 0; at < f->memory.size; at++) {
        if (at % PAGE >= 16 + 4 * 16 && at >= 2 * PAGE)
            continue;
        for (size_t i = 0; i <= ARRAY_LEN(values); i++) {
            f->data[at] = i < ARRAY_LEN(values) ? values[i] : f->data[at] ^ 0x10;
            bolt_seal_meta(f->data, PAGE, 0);
            bolt_seal_meta(f->data, PAGE, 1);
            exercise(f, "field", at);
            memcpy(f->data, f->original.data, 2 * PAGE);
            f->data[at] = f->original.data[at];
        }
    }
}

static uint64_t next_random(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    return *x ^= *x << 17;
}

static void random_damage_is_survived(void **state)
{
    struct fixture *f = *state;
    const char *given = getenv("SYNCD_TEST_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t)clock_now_us(), x = seed | 1;
    print_message("SYNCD_TEST_SEED=%llu\n", (unsigned long long)seed);
    for (int round = 0; round < 20000; round++) {
        for (uint64_t flips = 1 + next_random(&x) % 12; flips; flips--) {
            uint64_t at = next_random(&x) % f->memory.size;
            if (next_random(&x) % 2) /* headers and elements are hit more often than data */
                at = at / PAGE * PAGE + at % 128;
            f->data[at] ^= (uint8_t)(1u << next_random(&x) % 8);
        }
        if (round % 8 == 0) /* cut short */
            f->memory.size = next_random(&x) % f->original.len;
        if (f->memory.size >= 2 * PAGE) {
            bolt_seal_meta(f->data, PAGE, 0);
            bolt_seal_meta(f->data, PAGE, 1);
        }
        exercise(f, "round", (uint64_t)round);
        f->memory.size = f->original.len;
        repair(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_bbolt_reads),
        cmocka_unit_test(sniffs_by_either_meta),
        cmocka_unit_test(takes_the_newest_meta_that_is_whole),
        cmocka_unit_test(both_metas_can_be_the_same),
        cmocka_unit_test(strange_page_sizes_are_refused),
        cmocka_unit_test(pages_are_reached_once),
        cmocka_unit_test(page_headers_are_checked),
        cmocka_unit_test(elements_are_checked),
        cmocka_unit_test(keys_must_ascend),
        cmocka_unit_test(the_freelist_is_checked),
        cmocka_unit_test(buckets_are_checked),
        cmocka_unit_test(cursors_seek),
        cmocka_unit_test(no_field_is_trusted),
        cmocka_unit_test(random_damage_is_survived),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
