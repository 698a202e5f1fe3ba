#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "tests/unit/restore/pair.h"
#include "transport/store.h"

#define FIRST_BLOCK 80 /* offset in a part */

static void a_worker_that_was_away_gets_everything(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref snaps[5];
    bool equal = true;
    struct err e = ERR_INIT;
    snaps[0] = pair_backup(p, 3, &l);
    for (size_t i = 1; i < 4; i++)
        snaps[i] = pair_backup(p, 1, &l);
    snaps[4] = pair_backup(p, 3, &l); /* back again: only as .pack, for it lacks listed parts */
    assert_int_equal(access(pair_path(p, 1, &snaps[4], PART_PACK).s, F_OK), 0);
    struct kept_params k = pair_params(p);
    ok(kept_looks_equal(&k, &equal, &e));
    assert_false(equal);

    struct sync_result r = pair_sync(p);
    assert_int_equal(r.snapshots, 5);
    assert_int_equal(r.workers[0].files, 0);
    assert_int_equal(r.workers[1].files, 3);
    assert_int_equal(r.workers[1].bytes,
                     snaps[1].size_bytes + snaps[2].size_bytes + snaps[3].size_bytes);
    assert_int_equal(r.workers[1].renamed, 1);
    assert_true(sync_is_complete(&r));
    sync_result_free(&r);
    pair_assert_equal(p, 5);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(access(pair_path(p, 1, &snaps[i], PART_SNAP).s, F_OK), 0);
    k = pair_params(p);
    ok(kept_looks_equal(&k, &equal, &e));
    assert_true(equal);
}

static void a_blank_worker_is_filled(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    for (size_t i = 0; i < 4; i++)
        pair_backup(p, 2, &l);
    pair_sync_to_equal(p, 4);
}

static void lineages_that_alternate_end_equal(void **state)
{
    struct pair *p = *state;
    struct lineage a = {0}, b;
    pair_backup(p, 3, &a);
    b = a;
    for (size_t i = 0; i < 3; i++) {
        pair_backup(p, 1, &a);
        pair_backup(p, 2, &b);
    }
    pair_sync_to_equal(p, 7);
}

static void what_the_time_of_a_snapshot_says_is_brought_along(void **state)
{
    struct pair *p = *state;
    struct err e = ERR_INIT;
    struct lineage l = {0};
    struct part_ref snap = pair_backup(p, 3, &l);
    char name[PART_NAME_SIZE], path[PART_NAME_SIZE + 8];
    part_name_format(&snap, PART_SNAP, name);
    snprintf(path, sizeof path, PAIR_SOURCE "/%s", name);
    int64_t later_us = p->as_of_us + 1800 * US_PER_S; /* unchanged runs, while w2 was away */
    ok(store_set_mtime(p->store[0], path, later_us, &e));
    pair_sync_to_equal(p, 1);
    assert_int_equal(p->listing[1].parts[0].mtime_us, later_us);
}

static void packs_without_a_wish_are_left_alone(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0}, cut = {0};
    pair_backup(p, 3, &l);
    struct part_ref leftover = pair_backup(p, 1, &cut);
    pair_mark(p, 0, &leftover, PART_SNAP, PART_PACK);
    struct sync_result r = pair_sync(p);
    assert_int_equal(r.workers[1].files, 0);
    assert_true(sync_is_complete(&r));
    sync_result_free(&r);
}

static bool keep_none_but_newest(void *arg, const struct part_ref *ref)
{
    (void)arg;
    return ref->sequence == 3;
}

static void what_is_not_kept_does_not_come_back(void **state)
{
    struct pair *p = *state;
    struct err e = ERR_INIT;
    struct lineage l = {0}, other = {0};
    struct part_ref dropped = pair_backup(p, 1, &other);
    struct part_ref base = pair_backup(p, 1, &l);
    pair_backup(p, 1, &l);
    struct sync_params params = {.kept = pair_params(p)};
    struct sync_result r;
    params.kept.keep = keep_none_but_newest;
    ok(sync_source(&params, &r, &e));
    assert_int_equal(r.snapshots, 1);
    assert_int_equal(r.workers[1].files, 2);
    assert_true(sync_is_complete(&r));
    sync_result_free(&r);
    assert_string_equal(pair_file(p, 1, &dropped).s, "");
    /* Listed by the kept one, but not itself kept: there as a pack. */
    assert_string_equal(pair_file(p, 1, &base).s, pair_path(p, 1, &base, PART_PACK).s);
}

static void a_listed_del_is_taken_back(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref base = pair_backup(p, 3, &l);
    pair_backup(p, 3, &l);
    pair_mark(p, 0, &base, PART_SNAP, PART_DEL);
    pair_mark(p, 1, &base, PART_SNAP, PART_DEL);
    pair_sync_to_equal(p, 2);
    assert_int_equal(access(pair_path(p, 0, &base, PART_PACK).s, F_OK), 0);
}

/* ---- damage ---- */

static void a_marked_copy_is_replaced(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref base = pair_backup(p, 3, &l);
    pair_backup(p, 3, &l);
    pair_flip(p, 0, &base, FIRST_BLOCK + 1000);
    p->marked[p->marked_count].store = p->store[0];
    p->marked[p->marked_count++].ref = base;
    struct sync_result r = pair_sync(p);
    assert_int_equal(r.workers[0].files, 1);
    assert_int_equal(r.workers[0].mended, 1);
    assert_int_equal(r.workers[0].damaged.count, 1);
    assert_true(r.workers[0].damaged.items[0].mended);
    assert_true(sync_is_complete(&r));
    sync_result_free(&r);
    pair_assert_equal(p, 2);
    assert_true(pair_is_whole(p, 0, &base));
    assert_int_equal(p->marked_count, 0);
}

static void wrong_sizes_and_bad_metadata_are_seen_without_a_mark(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref snaps[4];
    for (size_t i = 0; i < 4; i++)
        snaps[i] = pair_backup(p, 3, &l);
    pair_set_size(p, 0, &snaps[0], snaps[0].size_bytes - 1);
    pair_set_size(p, 0, &snaps[1], snaps[1].size_bytes + 7);
    pair_set_size(p, 1, &snaps[2], 0);
    pair_flip(p, 0, &snaps[3], snaps[3].size_bytes - 60); /* metadata, of the one asked first */
    struct sync_result r = pair_sync(p);
    assert_int_equal(r.workers[0].mended, 3);
    assert_int_equal(r.workers[1].mended, 1);
    assert_true(sync_is_complete(&r));
    sync_result_free(&r);
    pair_assert_equal(p, 4);
    for (size_t i = 0; i < 4; i++)
        assert_true(pair_is_whole(p, 0, &snaps[i]));
    assert_int_equal(p->marked_count, 0);
}

static void a_damaged_source_is_reported_and_not_copied(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref base = pair_backup(p, 1, &l);
    struct part_ref next = pair_backup(p, 1, &l);
    pair_flip(p, 0, &base, FIRST_BLOCK + 300000); /* the second block */
    struct sync_result r = pair_sync(p);
    assert_int_equal(r.workers[1].files, 1);
    assert_int_equal(r.workers[1].lacking, 1);
    assert_int_equal(r.workers[0].lacking, 1);
    assert_int_equal(r.workers[0].damaged.count, 1);
    assert_int_equal(r.workers[0].damaged.items[0].block, FIRST_BLOCK + 262144);
    assert_false(r.workers[0].damaged.items[0].mended);
    assert_false(sync_is_complete(&r));
    sync_result_free(&r);
    assert_true(pair_is_marked(p, 0, &base));
    assert_string_equal(pair_file(p, 1, &base).s, "");
    /* What needs it is there, but not as a snapshot. */
    assert_string_equal(pair_file(p, 1, &next).s, pair_path(p, 1, &next, PART_PACK).s);
}

static void damage_in_the_same_block_on_both_sides_is_reported(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref base = pair_backup(p, 3, &l);
    for (size_t i = 0; i < 2; i++) {
        pair_flip(p, i, &base, FIRST_BLOCK + 5 + i);
        p->marked[p->marked_count].store = p->store[i];
        p->marked[p->marked_count++].ref = base;
    }
    struct sync_result r = pair_sync(p);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(r.workers[i].lacking, 1);
        assert_true(r.workers[i].damaged.count >= 1);
        assert_int_equal(r.workers[i].err.code, 0);
        assert_true(pair_is_marked(p, i, &base));
        /* Nothing was taken away: other blocks may still serve. */
        assert_string_equal(pair_file(p, i, &base).s, pair_path(p, i, &base, PART_SNAP).s);
    }
    sync_result_free(&r);
}

static void damage_in_different_blocks_makes_two_whole_copies(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref base = pair_backup(p, 3, &l);
    for (size_t i = 0; i < 2; i++) {
        pair_flip(p, i, &base, FIRST_BLOCK + 5 + i * 262144);
        p->marked[p->marked_count].store = p->store[i];
        p->marked[p->marked_count++].ref = base;
    }
    pair_flip(p, 0, &base, base.size_bytes - 3); /* and the trailer */
    pair_sync_to_equal(p, 1);
    assert_true(pair_is_whole(p, 0, &base));
}

static void a_wrong_mark_is_cleared(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref only = pair_backup(p, 1, &l);
    p->marked[p->marked_count].store = p->store[0];
    p->marked[p->marked_count++].ref = only;
    pair_sync_to_equal(p, 1);
}

static void a_bad_header_is_replaced(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref base = pair_backup(p, 1, &l);
    pair_flip(p, 0, &base, 33); /* found while it is copied, mended in the second round */
    pair_sync_to_equal(p, 1);
    assert_true(pair_is_whole(p, 0, &base));
}

static void a_bad_pack_is_replaced_by_a_snapshot(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref a = pair_backup(p, 3, &l), b = pair_backup(p, 3, &l);
    pair_mark(p, 1, &a, PART_SNAP, PART_PACK); /* cut before it got its mark, and then damaged */
    pair_set_size(p, 1, &a, 100);
    pair_set_size(p, 1, &b, 100);
    pair_sync_to_equal(p, 2);
    assert_true(pair_is_whole(p, 1, &a) && pair_is_whole(p, 1, &b));
}

static void the_only_mark_of_a_snapshot_is_not_lost(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref a = pair_backup(p, 3, &l), b = pair_backup(p, 3, &l);
    pair_mark(p, 1, &b, PART_SNAP, PART_PACK);
    pair_set_size(p, 0, &b, 100); /* the .snap is damaged, the .pack is whole */
    for (size_t i = 0; i < 2; i++)
        pair_remove(p, i, &a); /* and neither can be complete */
    struct sync_result r = pair_sync(p);
    assert_int_equal(r.snapshots, 1);
    assert_int_equal(r.workers[0].mended, 1);
    assert_int_equal(r.workers[0].lacking, 1);
    sync_result_free(&r);
    assert_true(pair_is_whole(p, 0, &b));
    assert_int_equal(access(pair_path(p, 0, &b, PART_SNAP).s, F_OK), 0);
    assert_int_equal(access(pair_path(p, 1, &b, PART_PACK).s, F_OK), 0);
}

/* ---- leftovers ---- */

static void copy_file(const char *from, const char *to)
{
    char command[700];
    snprintf(command, sizeof command, "%s", to);
    assert_int_equal(link(from, command), 0);
}

static void leftovers_of_a_cut_healing_go(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref a = pair_backup(p, 3, &l), b = pair_backup(p, 3, &l), c = pair_backup(p, 3, &l);
    copy_file(pair_path(p, 0, &a, PART_SNAP).s, pair_path(p, 0, &a, PART_BAD).s);
    copy_file(pair_path(p, 1, &b, PART_SNAP).s, pair_path(p, 1, &b, PART_PACK).s);
    pair_mark(p, 1, &c, PART_SNAP, PART_BAD); /* alone: missing */
    pair_sync_to_equal(p, 3);
    assert_true(pair_is_whole(p, 0, &a) && pair_is_whole(p, 1, &b) && pair_is_whole(p, 1, &c));
}

static void a_second_name_goes_only_beside_a_whole_copy(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref a = pair_backup(p, 1, &l);
    copy_file(pair_path(p, 0, &a, PART_SNAP).s, pair_path(p, 0, &a, PART_PACK).s);
    pair_flip(p, 0, &a, FIRST_BLOCK);
    struct sync_result r = pair_sync(p);
    assert_int_equal(r.workers[0].removed, 0);
    assert_false(sync_is_complete(&r));
    sync_result_free(&r);
    assert_int_equal(access(pair_path(p, 0, &a, PART_PACK).s, F_OK), 0);
    assert_int_equal(access(pair_path(p, 0, &a, PART_SNAP).s, F_OK), 0);
}

static void of_two_names_the_whole_one_counts(void **state)
{
    struct pair *p = *state;
    struct err e = ERR_INIT;
    struct lineage l = {0};
    struct part_ref a = pair_backup(p, 1, &l);
    pair_backup(p, 1, &l);
    pair_mark(p, 0, &a, PART_SNAP, PART_PACK);
    ok(io_replace_file(pair_path(p, 0, &a, PART_SNAP).s, "cut", 3, 0600, &e));
    assert_int_equal(io_set_mtime(pair_path(p, 0, &a, PART_SNAP).s, p->as_of_us), 0);
    pair_sync_to_equal(p, 2);
    assert_int_equal(access(pair_path(p, 0, &a, PART_SNAP).s, F_OK), 0);
}

static void touch(const struct pair *p, size_t at, const char *name, const char *text)
{
    char path[400];
    snprintf(path, sizeof path, "%s/" PAIR_SOURCE "/%s", p->root[at], name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void hostile_names_harm_nothing(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref a = pair_backup(p, 1, &l), b = pair_backup(p, 1, &l);
    char name[PART_NAME_SIZE];
    struct part_ref fake = a;
    touch(p, 0, "..snap", "x");
    touch(p, 0, "0001-00000001-20260101T000000Z-zz.snap", "x");
    touch(p, 0, "\033[2Jhello.pack", "x");
    fake.time_s -= 60; /* the identity of a, at another time */
    part_name_format(&fake, PART_SNAP, name);
    touch(p, 0, name, "not a part");
    memset(fake.id, 7, sizeof fake.id); /* a snapshot that nobody made */
    fake.sequence = 77;
    part_name_format(&fake, PART_SNAP, name);
    touch(p, 0, name, "");

    struct sync_result r = pair_sync(p);
    assert_int_equal(r.unreadable, 2);
    assert_int_equal(r.workers[1].files, 2);
    assert_int_equal(r.workers[1].err.code, 0);
    sync_result_free(&r);
    pair_list(p);
    assert_int_equal(p->listing[1].count, 2);
    assert_true(pair_is_whole(p, 1, &a) && pair_is_whole(p, 1, &b));
    assert_string_equal(pair_file(p, 1, &b).s, pair_path(p, 1, &b, PART_SNAP).s);
}

static void a_snapshot_that_lies_about_sizes_blocks_nobody(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0}, liar;
    struct part_ref a = pair_backup(p, 1, &l), b = pair_backup(p, 1, &l);
    liar = l;
    liar.parts[0].size_bytes += 5;
    struct part_ref lie = pair_backup(p, 1, &liar); /* stored as .pack, for nobody has that */
    pair_mark(p, 0, &lie, PART_PACK, PART_SNAP);
    struct sync_result r = pair_sync(p);
    assert_int_equal(r.workers[1].files, 3);
    assert_int_equal(r.workers[1].lacking, 0);
    sync_result_free(&r);
    assert_int_equal(p->marked_count, 0);
    assert_string_equal(pair_file(p, 1, &b).s, pair_path(p, 1, &b, PART_SNAP).s);
    assert_string_equal(pair_file(p, 1, &lie).s, pair_path(p, 1, &lie, PART_PACK).s);
    assert_true(pair_is_whole(p, 1, &a));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, pair_setup, pair_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_worker_that_was_away_gets_everything),
        TEST(a_blank_worker_is_filled),
        TEST(lineages_that_alternate_end_equal),
        TEST(what_the_time_of_a_snapshot_says_is_brought_along),
        TEST(packs_without_a_wish_are_left_alone),
        TEST(what_is_not_kept_does_not_come_back),
        TEST(a_listed_del_is_taken_back),
        TEST(a_marked_copy_is_replaced),
        TEST(wrong_sizes_and_bad_metadata_are_seen_without_a_mark),
        TEST(a_damaged_source_is_reported_and_not_copied),
        TEST(damage_in_the_same_block_on_both_sides_is_reported),
        TEST(damage_in_different_blocks_makes_two_whole_copies),
        TEST(a_wrong_mark_is_cleared),
        TEST(a_bad_header_is_replaced),
        TEST(a_bad_pack_is_replaced_by_a_snapshot),
        TEST(the_only_mark_of_a_snapshot_is_not_lost),
        TEST(leftovers_of_a_cut_healing_go),
        TEST(a_second_name_goes_only_beside_a_whole_copy),
        TEST(of_two_names_the_whole_one_counts),
        TEST(hostile_names_harm_nothing),
        TEST(a_snapshot_that_lies_about_sizes_blocks_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
