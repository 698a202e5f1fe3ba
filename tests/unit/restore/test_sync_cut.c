/* Sync that is stopped, refused or killed in the middle. */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "tests/unit/restore/pair.h"
#include "transport/store.h"

struct stop {
    struct pair *pair;
    atomic_bool cancel;
    int64_t left;
};

static struct stop *stop_now;

static void stop_after(void *arg, const struct store *to, uint64_t bytes)
{
    (void)arg;
    (void)to;
    stop_now->left -= (int64_t)bytes;
    if (stop_now->left <= 0)
        atomic_store(&stop_now->cancel, true);
}

static void a_cancelled_sync_goes_on_later(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    for (size_t i = 0; i < 3; i++)
        pair_backup(p, 1, &l);
    int cancelled = 0;
    for (int64_t bytes = 50; bytes < 2200000; bytes += 200000) {
        struct stop stop = {.pair = p, .left = bytes};
        struct err e = ERR_INIT;
        struct sync_result r;
        stop_now = &stop;
        struct sync_params params = {.kept = pair_params(p), .copied = stop_after};
        params.kept.cancel = &stop.cancel;
        int rc = sync_source(&params, &r, &e);
        assert_true(rc == 0 || rc == ERR_CANCELLED);
        cancelled += rc == ERR_CANCELLED;
        sync_result_free(&r);
    }
    assert_true(cancelled >= 3);
    pair_sync_to_equal(p, 3);
}

static int refuse_w2(void *arg, struct store *s, uint64_t add_bytes, struct err *e)
{
    struct pair *p = arg;
    if (s == p->store[1] && add_bytes)
        return err_set(e, ERR_NO_SPACE, s->name, "less than min_free");
    return 0;
}

static void a_worker_that_refuses_does_not_harm_the_other(void **state)
{
    struct pair *p = *state;
    struct err e = ERR_INIT;
    struct lineage l = {0}, other = {0};
    pair_backup(p, 1, &l);
    struct part_ref b = pair_backup(p, 2, &other);
    struct sync_params params = {.kept = pair_params(p), .may_change = refuse_w2};
    struct sync_result r;
    ok(sync_source(&params, &r, &e));
    assert_int_equal(r.workers[0].files, 1);
    assert_int_equal(r.workers[0].lacking, 0);
    assert_int_equal(r.workers[1].err.code, ERR_NO_SPACE);
    assert_int_equal(r.workers[1].lacking, 1);
    sync_result_free(&r);
    assert_true(pair_is_whole(p, 0, &b));
    pair_sync_to_equal(p, 2);
}

/* In another process, so that it can be killed at any call that touches a file. */
static int child_main(char **roots)
{
    struct pair p = {0};
    struct err e = ERR_INIT;
    struct sync_result r;
    for (size_t i = 0; i < 2; i++)
        snprintf(p.root[i], sizeof p.root[i], "%s", roots[i]);
    pair_open(&p);
    ok(digest_init(&e));
    ok(repository_read(p.store[0], &p.repository, &e));
    struct sync_params params = {.kept = pair_params(&p)};
    int rc = sync_source(&params, &r, &e);
    sync_result_free(&r);
    pair_close(&p);
    return rc ? 1 : 0;
}

/* True when it was killed at its Nth call. */
static bool killed_at(struct pair *p, int n)
{
    char fault[64];
    snprintf(fault, sizeof fault, "SYNCD_FAULT=%d:kill", n);
    char self[] = "/proc/self/exe", word[] = "child";
    char *argv[] = {self, word, p->root[0], p->root[1], NULL}, *env[] = {fault, NULL};
    pid_t pid;
    int status;
    assert_int_equal(posix_spawn(&pid, self, NULL, NULL, argv, env), 0);
    while (waitpid(pid, &status, 0) < 0)
        assert_int_equal(errno, EINTR);
    if (WIFEXITED(status))
        assert_int_equal(WEXITSTATUS(status), 0);
    return WIFSIGNALED(status);
}

/* Every snapshot keeps a copy with its mark, and none looks fresher than it is, whatever the
 * moment.
 */
static void assert_nothing_lost(struct pair *p, const struct part_ref *snaps, size_t count)
{
    pair_list(p);
    for (size_t at = 0; at < 2; at++)
        for (size_t i = 0; i < p->listing[at].count; i++)
            assert_true(p->listing[at].parts[i].mark != PART_SNAP ||
                        p->listing[at].parts[i].mtime_us <= p->as_of_us);
    for (size_t i = 0; i < count; i++) {
        assert_true(pair_is_whole(p, 0, &snaps[i]) || pair_is_whole(p, 1, &snaps[i]));
        assert_true(access(pair_path(p, 0, &snaps[i], PART_SNAP).s, F_OK) == 0 ||
                    access(pair_path(p, 1, &snaps[i], PART_SNAP).s, F_OK) == 0);
    }
}

/* Without the time of the change becoming that of the snapshot. */
static void damage(struct pair *p, size_t at, const struct part_ref *ref, int64_t mtime_us)
{
    pair_set_size(p, at, ref, 1000);
    assert_int_equal(io_set_mtime(pair_file(p, at, ref).s, mtime_us), 0);
}

static void a_kill_at_any_call_is_mended_by_the_next_run(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct part_ref snaps[3];
    int n = 0;
    bool killed = true;
    for (size_t i = 0; i < 3; i++)
        snaps[i] = pair_backup(p, 3, &l);
    while (killed) {
        n++;
        /* One to be copied, one to be replaced, one only to get its mark. */
        pair_remove(p, 1, &snaps[0]);
        damage(p, 0, &snaps[1], p->as_of_us);
        pair_mark(p, 1, &snaps[2], PART_SNAP, PART_PACK);
        killed = killed_at(p, n);
        assert_nothing_lost(p, snaps, 3);
        struct sync_result r = pair_sync(p);
        assert_true(sync_is_complete(&r));
        sync_result_free(&r);
        for (size_t i = 0; i < 3; i++)
            for (size_t at = 0; at < 2; at++)
                assert_true(pair_is_whole(p, at, &snaps[i]));
    }
#ifdef SYNCD_FAULTS
    assert_true(n > 40);
#endif
    pair_list(p);
    assert_int_equal(p->listing[0].count, 3);
    assert_int_equal(p->listing[1].count, 3);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, pair_setup, pair_teardown)

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "child") == 0)
        return child_main(argv + 2);
    const struct CMUnitTest tests[] = {
        TEST(a_cancelled_sync_goes_on_later),
        TEST(a_worker_that_refuses_does_not_harm_the_other),
        TEST(a_kill_at_any_call_is_mended_by_the_next_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
