/* Sync and verify with the second worker behind a real sshd: times of whole seconds, a server that
 * renames by link and unlink, and a connection that ends in the middle. */
#include <stdio.h>
#include <unistd.h>

#include "restore/verify.h"
#include "syncd/base/err.h"
#include "tests/support/sshd.h"
#include "tests/unit/restore/pair.h"
#include "transport/open.h"
#include "transport/store.h"

static struct sshd worker;

static int start_worker(void **state)
{
    (void)state;
    sshd_start(&worker, NULL);
    return 0;
}

static int stop_worker(void **state)
{
    (void)state;
    sshd_stop(&worker);
    return 0;
}

static void connect_w2(struct pair *p)
{
    struct store_options o = {.name = "w2",
                              .identity_file = worker.key,
                              .known_hosts = worker.known_hosts,
                              .timeout_s = 10};
    struct err e = ERR_INIT;
    char text[256];
    snprintf(text, sizeof text, "sftp://127.0.0.1:%u%s", (unsigned)worker.port, p->root[1]);
    store_close(p->store[1]);
    p->store[1] = NULL;
    ok(url_parse(text, &o.url, &e));
    ok(store_open_url(&o, &p->store[1], &e));
}

static int setup(void **state)
{
    int rc = pair_setup(state);
    if (rc == 0)
        connect_w2(*state);
    return rc;
}

static void a_far_worker_is_filled_and_mended(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0}, other = {0};
    struct part_ref snaps[3];
    for (size_t i = 0; i < 3; i++)
        snaps[i] = pair_backup(p, 1, &l);
    pair_backup(p, 2, &other);
    pair_sync_to_equal(p, 4);
    pair_set_size(p, 1, &snaps[0], 7);
    pair_flip(p, 0, &snaps[1], 100000);
    pair_flip(p, 1, &snaps[2], snaps[2].size_bytes - 50);

    struct err e = ERR_INIT;
    struct verify_params v = {.kept = pair_params(p), .read_percent = 100};
    struct verify_result found;
    ok(verify_source(&v, &found, &e));
    assert_int_equal(found.workers[0].damaged.count, 1);
    assert_int_equal(found.workers[1].damaged.count, 2);
    assert_int_equal(found.mendable, 3);
    assert_int_equal(found.unmendable, 0);
    verify_result_free(&found);
    pair_sync_to_equal(p, 4);
    assert_int_equal(p->marked_count, 0);
    for (size_t i = 0; i < 3; i++)
        assert_true(pair_is_whole(p, 0, &snaps[i]) && pair_is_whole(p, 1, &snaps[i]));
}

static uint64_t cut_after;

static void cut(void *arg, const struct store *to, uint64_t bytes)
{
    (void)arg;
    (void)to;
    if (cut_after && cut_after <= bytes)
        sshd_kill(&worker);
    cut_after = cut_after > bytes ? cut_after - bytes : 0;
}

static void a_worker_that_is_lost_does_not_harm_the_other(void **state)
{
    struct pair *p = *state;
    struct err e = ERR_INIT;
    struct lineage l = {0}, other = {0};
    pair_backup(p, 3, &l);
    for (size_t i = 0; i < 3; i++)
        pair_backup(p, 1, &l);
    struct part_ref far = pair_backup(p, 2, &other);
    struct sync_params params = {.kept = pair_params(p), .copied = cut};
    struct sync_result r;
    cut_after = 1500000; /* w1 has got its one file by then, w2 one of three */
    ok(sync_source(&params, &r, &e));
    assert_int_equal(r.workers[0].err.code, 0);
    assert_int_equal(r.workers[0].files, 1);
    assert_int_equal(r.workers[0].lacking, 0);
    assert_int_equal(r.workers[1].err.code, ERR_CONNECT);
    assert_in_range(r.workers[1].lacking, 1, 3);
    sync_result_free(&r);
    assert_true(pair_is_whole(p, 0, &far));

    sshd_restart(&worker);
    connect_w2(p);
    params = (struct sync_params){.kept = pair_params(p)};
    ok(sync_source(&params, &r, &e));
    assert_true(sync_is_complete(&r));
    sync_result_free(&r);
    for (size_t i = 0; i < l.count; i++)
        assert_true(pair_is_whole(p, 1, &l.parts[i]));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, pair_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_far_worker_is_filled_and_mended),
        TEST(a_worker_that_is_lost_does_not_harm_the_other),
    };
    return cmocka_run_group_tests(tests, start_worker, stop_worker);
}
