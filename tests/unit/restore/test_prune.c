#include "restore/prune.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "restore/restore.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "tests/unit/restore/pair.h"
#include "transport/store.h"

#define DAY_US (INT64_C(86400) * US_PER_S)

/* What one prune is told: the snapshots that stay, everywhere. */
struct plan {
    size_t count;
    struct part_ref keep[64];
    bool tight, dry_run;
    int64_t now_us[2]; /* 0: this machine's */
    int (*may_change)(void *arg, struct store *s, struct err *e);
    void *arg; /* of may_change */
};

static void keep(struct plan *plan, const struct part_ref *ref)
{
    plan->keep[plan->count++] = *ref;
}

static bool is_kept(const struct plan *plan, const struct part_ref *ref)
{
    for (size_t i = 0; i < plan->count; i++)
        if (part_same(&plan->keep[i], ref))
            return true;
    return false;
}

static struct prune_result run(struct pair *p, const struct plan *plan)
{
    struct err e = ERR_INIT;
    struct kept_params kept = pair_params(p);
    OWN_HISTORY struct history history = {0};
    struct prune_result r;
    ok(history_read(&kept, &history, &e));
    for (size_t i = 0; i < history.count; i++) {
        struct history_snapshot *h = &history.snapshots[i];
        h->wanted = is_kept(plan, &h->ref);
        for (size_t at = 0; at < 2; at++)
            h->keep[at] = h->wanted && h->at[at].there;
    }
    if (plan->may_change)
        kept.arg = plan->arg;
    struct prune_params params = {.kept = &kept,
                                  .history = &history,
                                  .dry_run = plan->dry_run,
                                  .may_change = plan->may_change};
    for (size_t at = 0; at < 2; at++) {
        params.at[at].now_us = plan->now_us[at] ? plan->now_us[at] : clock_now_us();
        params.at[at].tight = plan->tight;
    }
    ok(prune_source(&params, &r, &e));
    return r;
}

static void assert_mark(const struct pair *p, size_t at, const struct part_ref *ref,
                        enum part_mark mark)
{
    for (enum part_mark m = PART_SNAP; m <= PART_BAD; m++)
        assert_int_equal(access(pair_path(p, at, ref, m).s, F_OK) == 0, m == mark);
}

static bool is_gone(const struct pair *p, size_t at, const struct part_ref *ref)
{
    return pair_file(p, at, ref).s[0] == '\0';
}

static void set_mtime(const struct pair *p, size_t at, const struct part_ref *ref, int64_t t_us)
{
    struct timespec times[2] = {{.tv_sec = t_us / US_PER_S}, {.tv_sec = t_us / US_PER_S}};
    assert_int_equal(utimensat(AT_FDCWD, pair_file(p, at, ref).s, times, 0), 0);
}

static int64_t mtime(const struct pair *p, size_t at, const struct part_ref *ref)
{
    struct stat st;
    assert_int_equal(stat(pair_file(p, at, ref).s, &st), 0);
    return (int64_t)st.st_mtime * US_PER_S;
}

/* ---- the rules ---- */

static void a_dropped_one_that_others_list_becomes_a_pack(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct plan plan = {0};
    struct part_ref first = pair_backup(p, 3, &l), second = pair_backup(p, 3, &l);
    keep(&plan, &second);
    struct prune_result r = run(p, &plan);
    for (size_t at = 0; at < 2; at++) {
        assert_mark(p, at, &first, PART_PACK);
        assert_mark(p, at, &second, PART_SNAP);
        assert_int_equal(r.workers[at].dropped, 1);
        assert_int_equal(r.workers[at].marked, 0);
        assert_int_equal(r.workers[at].err.code, 0);
    }
    r = run(p, &plan);
    assert_int_equal(r.workers[0].dropped + r.workers[0].marked + r.workers[0].removed, 0);
}

static void an_unlisted_one_goes_a_day_later(void **state)
{
    struct pair *p = *state;
    struct lineage old = {0}, new = {0};
    struct plan plan = {0};
    struct part_ref dropped = pair_backup(p, 3, &old), kept = pair_backup(p, 3, &new);
    int64_t now_us = clock_now_us() + 5 * DAY_US;
    keep(&plan, &kept);
    plan.now_us[0] = plan.now_us[1] = now_us;
    struct prune_result r = run(p, &plan);
    assert_int_equal(r.workers[0].marked, 1);
    assert_int_equal(r.workers[0].marked_bytes, dropped.size_bytes);
    assert_mark(p, 0, &dropped, PART_DEL);
    assert_int_equal(mtime(p, 0, &dropped), now_us / US_PER_S * US_PER_S);
    assert_true(pair_is_whole(p, 0, &dropped));

    plan.now_us[0] += DAY_US - 2 * US_PER_S;
    r = run(p, &plan);
    assert_int_equal(r.workers[0].removed, 0);
    assert_mark(p, 0, &dropped, PART_DEL);

    plan.now_us[0] += 4 * US_PER_S;
    r = run(p, &plan);
    assert_int_equal(r.workers[0].removed, 1);
    assert_int_equal(r.workers[0].removed_bytes, dropped.size_bytes);
    assert_true(is_gone(p, 0, &dropped));
    assert_mark(p, 1, &dropped, PART_DEL); /* its own clock */
    assert_mark(p, 0, &kept, PART_SNAP);
    assert_true(pair_is_whole(p, 0, &kept));
}

static void without_space_it_goes_at_once(void **state)
{
    struct pair *p = *state;
    struct lineage old = {0}, new = {0};
    struct plan plan = {.tight = true};
    struct part_ref dropped = pair_backup(p, 3, &old), kept = pair_backup(p, 3, &new);
    keep(&plan, &kept);
    struct prune_result r = run(p, &plan);
    assert_int_equal(r.workers[0].removed, 1);
    assert_true(is_gone(p, 0, &dropped));
    assert_mark(p, 0, &kept, PART_SNAP);
}

static void a_listed_del_is_renamed_back(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct plan plan = {.tight = true};
    struct part_ref first = pair_backup(p, 3, &l), second = pair_backup(p, 3, &l);
    pair_mark(p, 0, &first, PART_SNAP, PART_DEL);
    set_mtime(p, 0, &first, clock_now_us() - 9 * DAY_US);
    keep(&plan, &second);
    struct prune_result r = run(p, &plan);
    assert_int_equal(r.workers[0].rescued, 1);
    assert_int_equal(r.workers[0].removed, 0);
    assert_mark(p, 0, &first, PART_PACK);
    assert_true(pair_is_whole(p, 0, &first));
}

/* A pack of a run that was cut: newer than any snapshot. */
static struct part_ref leave_pack(struct pair *p)
{
    struct lineage cut = {0};
    struct part_ref ref = pair_backup(p, 1, &cut);
    pair_mark(p, 0, &ref, PART_SNAP, PART_PACK);
    return ref;
}

static void packs_of_a_cut_run_stay_for_a_week(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct plan plan = {0};
    struct part_ref kept = pair_backup(p, 3, &l), pack = leave_pack(p);
    keep(&plan, &kept);
    set_mtime(p, 0, &pack, clock_now_us() - 7 * DAY_US + 60 * US_PER_S);
    run(p, &plan);
    assert_mark(p, 0, &pack, PART_PACK);
    plan.tight = true; /* the next run is spared what they hold */
    run(p, &plan);
    assert_mark(p, 0, &pack, PART_PACK);
    plan.tight = false;
    set_mtime(p, 0, &pack, clock_now_us() - 7 * DAY_US - 60 * US_PER_S);
    run(p, &plan);
    assert_mark(p, 0, &pack, PART_DEL);
}

static void older_packs_that_nothing_lists_go(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct plan plan = {0};
    struct part_ref pack = leave_pack(p), kept = pair_backup(p, 3, &l);
    keep(&plan, &kept);
    struct prune_result r = run(p, &plan);
    assert_int_equal(r.workers[0].marked, 1);
    assert_mark(p, 0, &pack, PART_DEL);
}

/* One of a worker's snapshots is wanted on the other, too: what it lists stays there already. */
static void what_the_other_lists_stays(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct plan plan = {.tight = true};
    struct part_ref first = pair_backup(p, 3, &l), second = pair_backup(p, 2, &l);
    keep(&plan, &second);
    run(p, &plan);
    assert_mark(p, 0, &first, PART_PACK);
    assert_mark(p, 1, &first, PART_PACK);
    assert_mark(p, 1, &second, PART_SNAP);
}

static void one_that_cannot_be_read_protects_what_is_older(void **state)
{
    struct pair *p = *state;
    struct lineage old = {0}, l = {0}, late = {0};
    struct plan plan = {.tight = true};
    struct part_ref dropped = pair_backup(p, 3, &old), bad = pair_backup(p, 3, &l);
    struct part_ref later = pair_backup(p, 3, &late), kept = pair_backup(p, 3, &l);
    for (size_t at = 0; at < 2; at++)
        pair_flip(p, at, &bad, bad.size_bytes - 60); /* in the metadata */
    keep(&plan, &bad);
    keep(&plan, &kept);
    struct prune_result r = run(p, &plan);
    assert_mark(p, 0, &bad, PART_SNAP);
    assert_mark(p, 0, &dropped, PART_PACK);
    assert_true(is_gone(p, 0, &later));
    assert_int_equal(r.workers[0].unread, 1);
}

static void a_dry_run_changes_nothing(void **state)
{
    struct pair *p = *state;
    struct lineage old = {0}, new = {0};
    struct plan plan = {.dry_run = true, .tight = true};
    struct part_ref dropped = pair_backup(p, 3, &old), kept = pair_backup(p, 3, &new);
    int64_t before_us = mtime(p, 0, &dropped);
    keep(&plan, &kept);
    struct prune_result dry = run(p, &plan);
    assert_mark(p, 0, &dropped, PART_SNAP);
    assert_int_equal(mtime(p, 0, &dropped), before_us);
    plan.dry_run = false;
    struct prune_result wet = run(p, &plan);
    assert_int_equal(dry.workers[0].dropped, wet.workers[0].dropped);
    assert_int_equal(dry.workers[0].marked, wet.workers[0].marked);
    assert_int_equal(dry.workers[0].removed, wet.workers[0].removed);
    assert_int_equal(wet.workers[0].removed, 1);
}

static void leftovers_go_after_a_day(void **state)
{
    struct pair *p = *state;
    struct lineage l = {0};
    struct plan plan = {0};
    struct part_ref kept = pair_backup(p, 3, &l);
    static const struct {
        const char *name;
        bool old, goes;
    } files[] = {
        {"db-0123456789abcdef", true, true},
        {"db-0123456789abcdee", false, false},
        {"db-2-0123456789abcde", true, false}, /* of another source */
        {"other-0123456789abcdef", true, false},
        {"check-0123456789abcdef", true, true},
        {"0123456789abcdef0123456789abcdef", true, true},
        {"db-0123456789abcdeg", true, false},
    };
    keep(&plan, &kept);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char path[200];
        struct timespec times[2] = {{.tv_sec = time(NULL) - (files[i].old ? 90000 : 80000)},
                                    {.tv_sec = time(NULL) - (files[i].old ? 90000 : 80000)}};
        snprintf(path, sizeof path, "%s/tmp/%s", p->root[0], files[i].name);
        int fd = open(path, O_CREAT | O_WRONLY, 0600);
        assert_true(fd >= 0);
        assert_int_equal(futimens(fd, times), 0);
        close(fd);
    }
    struct prune_result r = run(p, &plan);
    assert_int_equal(r.workers[0].leftovers, 3);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char path[200];
        snprintf(path, sizeof path, "%s/tmp/%s", p->root[0], files[i].name);
        assert_int_equal(access(path, F_OK) != 0, files[i].goes);
    }
}

/* ---- fencing and crashes ---- */

struct budget {
    int changes;
    bool dies;
};

static int spend(void *arg, struct store *s, struct err *e)
{
    struct budget *b = arg;
    if (b->changes-- > 0)
        return 0;
    if (b->dies)
        _exit(7);
    return err_set(e, ERR_FENCED, s->name, "somebody else leads");
}

static void fencing_ends_it(void **state)
{
    struct pair *p = *state;
    struct lineage old = {0}, new = {0};
    struct budget budget = {0};
    struct plan plan = {.tight = true, .may_change = spend, .arg = &budget};
    struct part_ref dropped = pair_backup(p, 3, &old), kept = pair_backup(p, 3, &new);
    keep(&plan, &kept);
    struct prune_result r = run(p, &plan);
    assert_int_equal(r.workers[0].err.code, ERR_FENCED);
    assert_int_equal(r.workers[1].err.code, ERR_FENCED);
    assert_mark(p, 0, &dropped, PART_SNAP);
    assert_mark(p, 1, &dropped, PART_SNAP);
}

/* Every .snap on each worker has all that it lists, whole. */
static void assert_snaps_are_whole(struct pair *p)
{
    struct err e = ERR_INIT;
    struct kept_params kept = pair_params(p);
    for (size_t at = 0; at < 2; at++) {
        struct pool pool = {.repository = &p->repository, .source = PAIR_SOURCE, .store_count = 1};
        pool.at[0].store = p->store[at];
        pool.at[0].listing = kept.at[at].listing;
        for (size_t i = 0; i < kept.at[at].listing->count; i++) {
            OWN_SNAPSHOT struct snapshot s = {0};
            struct part_ref ref = kept.at[at].listing->parts[i].ref;
            if (kept.at[at].listing->parts[i].mark != PART_SNAP)
                continue;
            ok(pool_snapshot(&pool, &ref, &s, &e));
            assert_true(listing_holds_all(kept.at[at].listing, s.parts, s.part_count));
        }
        pool_close(&pool);
    }
}

/* The process ends before the nth change, for every n, with no space, so that removals follow at
 * once; each time what is there is whole, and in the end all is as it should be. */
static void cut_anywhere_leaves_whole_snapshots(void **state)
{
    struct pair *p = *state;
    bool finished = false;
    for (int changes = 0; !finished; changes++) {
        struct lineage a = {0}, b = {0}, c = {0};
        struct part_ref x[2], y[3], z;
        for (size_t i = 0; i < 2; i++)
            x[i] = pair_backup(p, 3, &a);
        for (size_t i = 0; i < 3; i++)
            y[i] = pair_backup(p, 3, &b);
        z = pair_backup(p, 3, &c);
        pair_mark(p, 0, &y[0], PART_SNAP, PART_DEL);
        struct budget budget = {.changes = changes, .dies = true};
        struct plan plan = {.tight = true, .may_change = spend, .arg = &budget};
        keep(&plan, &y[2]);
        keep(&plan, &z);
        pair_close(p);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            pair_open(p);
            run(p, &plan);
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        finished = WEXITSTATUS(status) == 0;
        assert_int_equal(WEXITSTATUS(status), finished ? 0 : 7);
        pair_open(p);
        assert_snaps_are_whole(p);
        for (size_t at = 0; at < 2; at++)
            for (size_t i = 0; i < 3; i++)
                assert_true(pair_is_whole(p, at, &y[i]));
        budget.changes = 1000;
        run(p, &plan);
        assert_snaps_are_whole(p);
        for (size_t at = 0; at < 2; at++) {
            assert_true(is_gone(p, at, &x[0]) && is_gone(p, at, &x[1]));
            assert_mark(p, at, &y[1], PART_PACK);
            assert_mark(p, at, &y[2], PART_SNAP);
            assert_mark(p, at, &z, PART_SNAP);
        }
        assert_true(changes < 100);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, pair_setup, pair_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_dropped_one_that_others_list_becomes_a_pack),
        TEST(an_unlisted_one_goes_a_day_later),
        TEST(without_space_it_goes_at_once),
        TEST(a_listed_del_is_renamed_back),
        TEST(packs_of_a_cut_run_stay_for_a_week),
        TEST(older_packs_that_nothing_lists_go),
        TEST(what_the_other_lists_stays),
        TEST(one_that_cannot_be_read_protects_what_is_older),
        TEST(a_dry_run_changes_nothing),
        TEST(leftovers_go_after_a_day),
        TEST(fencing_ends_it),
        TEST(cut_anywhere_leaves_whole_snapshots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
