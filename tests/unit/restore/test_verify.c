#include "restore/verify.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "restore/sync.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "tests/unit/restore/pair.h"
#include "transport/store.h"

#define FIRST_BLOCK 80 /* offset in a part */
#define BLOCK 262144   /* as stored: the test's pages cannot be compressed */

static struct verify_result run(struct pair *p, unsigned percent)
{
    struct err e = ERR_INIT;
    struct verify_params params = {.kept = pair_params(p), .read_percent = percent};
    struct verify_result r;
    ok(verify_source(&params, &r, &e));
    for (size_t i = 0; i < 2; i++)
        if (r.workers[i].err.code)
            fail_msg("%s", r.workers[i].err.message);
    return r;
}

static void whole_copies_are_whole(void **state)
{
    struct pair *p = *state;
    struct lineage l = {.share = true};
    uint64_t bytes = 0;
    for (size_t i = 0; i < 4; i++)
        bytes += pair_backup(p, 3, &l).size_bytes;
    for (unsigned percent = 0; percent <= 100; percent += 100) {
        struct verify_result r = run(p, percent);
        assert_int_equal(r.snapshots, 4);
        assert_int_equal(r.mendable + r.unmendable, 0);
        for (size_t i = 0; i < 2; i++) {
            assert_int_equal(r.workers[i].files, 4);
            assert_int_equal(r.workers[i].snapshots, 4);
            assert_int_equal(r.workers[i].missing, 0);
            assert_int_equal(r.workers[i].damaged.count, 0);
            assert_int_equal(r.workers[i].bytes, percent ? bytes : 0);
        }
        verify_result_free(&r);
    }
}

static void an_empty_repository_is_whole(void **state)
{
    struct verify_result r = run(*state, 100);
    assert_int_equal(r.snapshots + r.mendable + r.unmendable, 0);
    verify_result_free(&r);
}

/* One byte flipped on worker `at`: it is found, there and nowhere else. */
static void flip_and_find(struct pair *p, size_t at, const struct part_ref *ref, uint64_t offset,
                          unsigned percent, int64_t block)
{
    pair_flip(p, at, ref, offset);
    struct verify_result r = run(p, percent);
    assert_int_equal(r.workers[at].damaged.count, 1);
    assert_int_equal(r.workers[1 - at].damaged.count, 0);
    assert_int_equal(r.workers[at].damaged.items[0].block, block);
    assert_true(part_same(&r.workers[at].damaged.items[0].ref, ref));
    assert_int_equal(strncmp(r.workers[at].damaged.items[0].file, "db/0001-", 8), 0);
    assert_true(r.workers[at].damaged.items[0].reason[0]);
    assert_int_equal(r.mendable, 1);
    assert_int_equal(r.unmendable, 0);
    assert_true(pair_is_marked(p, at, ref));
    verify_result_free(&r);
    pair_flip(p, at, ref, offset);
    r = run(p, 0); /* marked, so it is read, and found to be whole */
    assert_int_equal(r.workers[at].damaged.count, 0);
    assert_int_equal(r.workers[at].bytes, ref->size_bytes);
    assert_false(pair_is_marked(p, at, ref));
    verify_result_free(&r);
}

static void a_flipped_byte_is_found_wherever_it_is(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref a = pair_backup(p, 3, &l);
    pair_backup(p, 3, &l);
    for (size_t at = 0; at < 2; at++) {
        static const uint64_t header[] = {0, 8, 12, 40, 79};
        static const uint64_t from_end[] = {1, 9, 20, 41, 47, 48, 49, 150};
        for (size_t i = 0; i < sizeof header / sizeof header[0]; i++)
            flip_and_find(p, at, &a, header[i], 100, 0);
        flip_and_find(p, at, &a, FIRST_BLOCK, 100, FIRST_BLOCK);
        flip_and_find(p, at, &a, FIRST_BLOCK + BLOCK - 1, 100, FIRST_BLOCK);
        flip_and_find(p, at, &a, FIRST_BLOCK + BLOCK, 100, FIRST_BLOCK + BLOCK);
        for (size_t i = 0; i < sizeof from_end / sizeof from_end[0]; i++)
            flip_and_find(p, at, &a, a.size_bytes - from_end[i], 0, DAMAGE_NO_BLOCK);
    }
}

static void several_damaged_blocks_are_all_named(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref a = pair_backup(p, 3, &l);
    pair_flip(p, 1, &a, 5);
    pair_flip(p, 1, &a, FIRST_BLOCK + 7);
    pair_flip(p, 1, &a, FIRST_BLOCK + BLOCK + 7);
    struct verify_result r = run(p, 100);
    assert_int_equal(r.workers[1].damaged.count, 3);
    assert_int_equal(r.mendable, 1); /* one file */
    verify_result_free(&r);
}

/* Stored as it was not read: every digest is right, on both workers, and no sync can mend it. */
static void a_wrong_content_is_found(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    p->tips_a_bit = true;
    struct part_ref a = pair_backup(p, 3, &l);
    p->tips_a_bit = false;
    pair_backup(p, 3, &l);
    struct verify_result r = run(p, 100);
    for (size_t at = 0; at < 2; at++) {
        assert_int_equal(r.workers[at].damaged.count, 1);
        assert_int_equal(r.workers[at].damaged.items[0].block, FIRST_BLOCK + BLOCK);
        assert_non_null(strstr(r.workers[at].damaged.items[0].reason, "something else"));
        assert_true(pair_is_marked(p, at, &a));
    }
    assert_int_equal(r.mendable, 0);
    assert_int_equal(r.unmendable, 1);
    verify_result_free(&r);
    struct sync_result s = pair_sync(p);
    sync_result_free(&s);
    for (size_t at = 0; at < 2; at++)
        assert_true(pair_is_marked(p, at, &a)); /* so that the next backup ships it again */
}

static void a_wrong_length_is_found(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref a = pair_backup(p, 3, &l), b = pair_backup(p, 3, &l), c = pair_backup(p, 3, &l);
    pair_set_size(p, 0, &a, a.size_bytes - 1);
    pair_set_size(p, 1, &b, b.size_bytes + 1);
    pair_set_size(p, 1, &c, 0); /* listed by nobody: only its own metadata tells its size */
    struct verify_result r = run(p, 0);
    assert_int_equal(r.workers[0].damaged.count, 1);
    assert_int_equal(r.workers[1].damaged.count, 2);
    assert_int_equal(r.mendable, 3);
    assert_int_equal(r.unmendable, 0);
    verify_result_free(&r);
}

static void what_is_missing_is_counted(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref a = pair_backup(p, 3, &l), b = pair_backup(p, 3, &l);
    pair_backup(p, 3, &l);
    pair_remove(p, 0, &a);
    pair_mark(p, 1, &b, PART_SNAP, PART_BAD);
    struct verify_result r = run(p, 0);
    assert_int_equal(r.workers[0].missing, 1);
    assert_int_equal(r.workers[1].missing, 1);
    assert_int_equal(r.workers[0].snapshots, 0); /* b and c list a */
    assert_int_equal(r.workers[1].snapshots, 1);
    assert_int_equal(r.mendable, 2);
    verify_result_free(&r);
    pair_remove(p, 1, &a);
    r = run(p, 0);
    assert_int_equal(r.snapshots, 2);
    assert_int_equal(r.workers[0].missing, 1);
    assert_int_equal(r.workers[1].missing, 2);
    assert_int_equal(r.mendable, 1);
    assert_int_equal(r.unmendable, 1);
    verify_result_free(&r);
}

static void a_damaged_entry_list_is_found_without_reading_data(void **state)
{
    struct pair *p = *state;
    struct lineage l = {.share = true};
    struct part_ref a = pair_backup(p, 3, &l);
    pair_backup(p, 3, &l);
    uint64_t list = FIRST_BLOCK + 10 * 65536; /* after ten pages */
    pair_flip(p, 1, &a, list + 3);
    struct verify_result r = run(p, 0);
    assert_int_equal(r.workers[0].damaged.count, 0);
    assert_int_equal(r.workers[0].snapshots, 2);
    assert_int_equal(r.workers[1].damaged.count, 1);
    assert_int_equal(r.workers[1].damaged.items[0].block, list);
    assert_int_equal(r.workers[1].snapshots, 0); /* the second list begins with the same chunk */
    assert_int_equal(r.mendable, 1);
    verify_result_free(&r);
}

static void damage_on_both_sides(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref a = pair_backup(p, 3, &l), b = pair_backup(p, 3, &l), c = pair_backup(p, 3, &l),
                    d = pair_backup(p, 3, &l);
    pair_flip(p, 0, &a, FIRST_BLOCK); /* the same block */
    pair_flip(p, 1, &a, FIRST_BLOCK + 9);
    pair_flip(p, 0, &b, FIRST_BLOCK); /* different ones */
    pair_flip(p, 1, &b, FIRST_BLOCK + BLOCK);
    pair_flip(p, 0, &c, c.size_bytes - 1); /* the metadata of one, a block of the other */
    pair_flip(p, 1, &c, FIRST_BLOCK);
    pair_flip(p, 0, &d, d.size_bytes - 1); /* both metadata: no size, no digests */
    pair_flip(p, 1, &d, d.size_bytes - 100);
    struct verify_result r = run(p, 100);
    assert_int_equal(r.workers[0].damaged.count, 4);
    assert_int_equal(r.workers[1].damaged.count, 4);
    assert_int_equal(r.mendable, 2);
    assert_int_equal(r.unmendable, 2);
    verify_result_free(&r);

    /* And sync does what verify has said. */
    struct err e = ERR_INIT;
    struct sync_params params = {.kept = pair_params(p)};
    struct sync_result s;
    ok(sync_source(&params, &s, &e));
    sync_result_free(&s);
    for (size_t at = 0; at < 2; at++) {
        assert_false(pair_is_whole(p, at, &a));
        assert_true(pair_is_whole(p, at, &b));
        assert_true(pair_is_whole(p, at, &c));
        assert_false(pair_is_whole(p, at, &d));
    }
    r = run(p, 100);
    assert_int_equal(r.mendable, 0);
    assert_int_equal(r.unmendable, 2);
    verify_result_free(&r);
}

static void what_shall_mend_is_read_first(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref a = pair_backup(p, 3, &l);
    pair_flip(p, 0, &a, FIRST_BLOCK);
    pair_flip(p, 1, &a, FIRST_BLOCK + 1); /* not known yet */
    p->marked[p->marked_count].store = p->store[0];
    p->marked[p->marked_count++].ref = a;
    struct verify_result r = run(p, 0);
    assert_int_equal(r.unmendable, 1);
    assert_true(pair_is_marked(p, 1, &a));
    verify_result_free(&r);
}

/* ---- what is read when ---- */

static struct {
    struct part_ref ref;
    int64_t at_us;
} times[8];
static size_t times_count;
static size_t order[8], order_count;

static size_t time_of(const struct part_ref *ref)
{
    for (size_t i = 0; i < times_count; i++)
        if (part_same(&times[i].ref, ref))
            return i;
    fail();
    return 0;
}

static int64_t verified_at(void *arg, const struct store *s, const struct part_ref *ref)
{
    const struct pair *p = arg;
    return s == p->store[0] ? times[time_of(ref)].at_us : INT64_MAX;
}

static void verified(void *arg, const struct store *s, const struct part_ref *ref, int64_t now_us)
{
    const struct pair *p = arg;
    if (s != p->store[0])
        return;
    assert_true(order_count < 8);
    order[order_count++] = time_of(ref);
    times[time_of(ref)].at_us = now_us;
}

static void the_longest_unread_come_first(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    static const int64_t when[] = {500, 0, 300, 100};
    static const size_t expected[] = {1, 3, 2, 0};
    times_count = order_count = 0;
    for (size_t i = 0; i < 4; i++) {
        times[times_count].ref = pair_backup(p, 3, &l);
        times[times_count++].at_us = when[i];
    }
    for (size_t round = 0; round < 4; round++) {
        struct err e = ERR_INIT;
        struct verify_params params = {.kept = pair_params(p),
                                       .read_percent = 10, /* less than one part: one is read */
                                       .verified_at = verified_at,
                                       .verified = verified};
        struct verify_result r;
        ok(verify_source(&params, &r, &e));
        assert_int_equal(order_count, round + 1);
        assert_int_equal(r.workers[0].bytes, times[order[round]].ref.size_bytes);
        verify_result_free(&r);
    }
    assert_memory_equal(order, expected, sizeof expected);
}

static atomic_bool stop;

static void stop_at_once(void *arg, const struct store *s, uint64_t bytes)
{
    (void)arg;
    (void)s;
    (void)bytes;
    atomic_store(&stop, true);
}

static void it_can_be_stopped(void **state)
{
    struct pair *p = *state;
    struct err e = ERR_INIT;
    struct lineage l = {0};
    for (size_t i = 0; i < 3; i++)
        pair_backup(p, 3, &l);
    atomic_store(&stop, false);
    struct verify_params params = {
        .kept = pair_params(p), .read_percent = 100, .read = stop_at_once};
    params.kept.cancel = &stop;
    struct verify_result r;
    assert_int_equal(verify_source(&params, &r, &e), ERR_CANCELLED);
    assert_true(r.workers[0].bytes < 2 * l.parts[0].size_bytes);
    verify_result_free(&r);
}

static void one_worker_alone_is_verified(void **state)
{
    struct pair *p = *state;
    struct err e = ERR_INIT;
    struct lineage l = {0};
    struct part_ref a = pair_backup(p, 3, &l);
    pair_flip(p, 1, &a, FIRST_BLOCK);
    struct verify_params params = {.kept = pair_params(p), .read_percent = 100};
    params.kept.store_count = 1;
    params.kept.at[0] = params.kept.at[1];
    struct verify_result r;
    ok(verify_source(&params, &r, &e));
    assert_int_equal(r.workers[0].damaged.count, 1);
    assert_int_equal(r.unmendable, 1);
    verify_result_free(&r);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, pair_setup, pair_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(whole_copies_are_whole),
        TEST(an_empty_repository_is_whole),
        TEST(a_flipped_byte_is_found_wherever_it_is),
        TEST(several_damaged_blocks_are_all_named),
        TEST(a_wrong_content_is_found),
        TEST(a_wrong_length_is_found),
        TEST(what_is_missing_is_counted),
        TEST(a_damaged_entry_list_is_found_without_reading_data),
        TEST(damage_on_both_sides),
        TEST(what_shall_mend_is_read_first),
        TEST(the_longest_unread_come_first),
        TEST(it_can_be_stopped),
        TEST(one_worker_alone_is_verified),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
