/* Live copies, judged by bbolt itself: tests/integration/bolt_writer is built with Debian's Go and
 * bbolt. SYNCD_TEST_COPIES is how many copies are taken beside its commits (default 30). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "snapshot/bolt_copy.h"
#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "tests/unit/snapshot/bolt_helpers.h"

#define OUTPUT_LIMIT (64u << 20)
#define TRIES_MAX 5000
#define BATCH 10 /* copies judged together, then removed */

struct bench {
    char folder[64], db[128], copy[BATCH][128], out[128];
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

/* Starts a program with its stdin from *ret_stdin (or none) and its output in a file. */
static pid_t start(const char *const argv[], char *const env[], const char *out, int *ret_stdin)
{
    posix_spawn_file_actions_t a;
    int pipe_fds[2] = {-1, -1};
    char complaints[160];
    pid_t pid;
    posix_spawn_file_actions_init(&a);
    if (ret_stdin) {
        assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
        posix_spawn_file_actions_adddup2(&a, pipe_fds[0], 0);
    } else {
        posix_spawn_file_actions_addopen(&a, 0, "/dev/null", O_RDONLY, 0);
    }
    posix_spawn_file_actions_addopen(&a, 1, out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    snprintf(complaints, sizeof complaints, "%s.err", out);
    posix_spawn_file_actions_addopen(&a, 2, complaints, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int rc = posix_spawnp(&pid, argv[0], &a, NULL, (char *const *)(uintptr_t)argv, env);
    posix_spawn_file_actions_destroy(&a);
    if (rc)
        fail_msg("cannot start %s: %s", argv[0], strerror(rc));
    if (ret_stdin) {
        close(pipe_fds[0]);
        *ret_stdin = pipe_fds[1];
    }
    return pid;
}

static int wait_for(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static int run(const struct bench *b, const char *const argv[])
{
    return wait_for(start(argv, environ, b->out, NULL));
}

#define RUN(b, ...) run(b, (const char *const[]){BOLT_WRITER, __VA_ARGS__, NULL})

static int setup(void **state)
{
    if (access(BOLT_WRITER, X_OK) != 0) {
        print_error("%s was not built: needs golang-go, golang-github-coreos-bbolt-dev; configure "
                    "again when they are there\n",
                    BOLT_WRITER);
        return -1;
    }
    struct bench *b = calloc(1, sizeof *b);
    snprintf(b->folder, sizeof b->folder, "/tmp/syncd-test-bolt-XXXXXX");
    assert_non_null(mkdtemp(b->folder));
    snprintf(b->db, sizeof b->db, "%s/live.db", b->folder);
    snprintf(b->out, sizeof b->out, "%s/out", b->folder);
    for (int i = 0; i < BATCH; i++)
        snprintf(b->copy[i], sizeof b->copy[i], "%s/copy%d.db", b->folder, i);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;
    nftw(b->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(b);
    return 0;
}

/* Where a copy goes: every page in its place, in ascending order. */
struct target {
    int fd;
    uint32_t page_size;
    uint64_t next;
    bool dawdles;
    struct bolt_copied plan;
};

static int on_begin(void *arg, const struct bolt_copied *plan, struct err *e)
{
    struct target *t = arg;
    (void)e;
    t->page_size = plan->meta.page_size;
    t->plan = *plan;
    t->next = 0;
    assert_int_equal(ftruncate(t->fd, 0), 0);
    return 0;
}

static int on_page(void *arg, uint64_t page, const uint8_t *bytes, struct err *e)
{
    struct target *t = arg;
    (void)e;
    assert_int_equal(page, t->next++);
    if (t->dawdles && page % 100 == 0)
        usleep(10000);
    assert_int_equal(io_pwrite_all(t->fd, bytes, t->page_size, page * t->page_size), 0);
    return 0;
}

/* Tries until a copy counts - or, with `any`, until a slow one reaches its last page. */
static unsigned copy_until_good(const char *db, const char *to, bool any, struct bolt_copied *ret)
{
    OWN_FD int fd = io_open(db, O_RDONLY, 0), out = io_open(to, O_RDWR | O_CREAT, 0600);
    struct target t = {.fd = out, .dawdles = any};
    struct bolt_copy copy = {
        .path = db, .fd = fd, .begin = on_begin, .page = on_page, .arg = &t, .to_the_end = any};
    struct err e = ERR_INIT;
    assert_true(fd >= 0 && out >= 0);
    for (unsigned tries = 1; tries <= TRIES_MAX; tries++) {
        int rc = bolt_copy(&copy, &(struct bolt_copied){0}, NULL, &e);
        bool whole = t.plan.pages && t.next == t.plan.pages;
        if (rc == 0)
            assert_true(whole);
        if (rc == 0 || (rc == ERR_CHANGED && any && whole)) {
            *ret = t.plan;
            return tries;
        }
        if (rc != ERR_CHANGED)
            fail_msg("%s", e.message);
    }
    fail_msg("no copy in %d tries: %s", TRIES_MAX, e.message);
    return 0;
}

/* What the library reads is what bbolt reads; the copy is good, and its owner can go on with it. */
static void copies_of(struct bench *b, const char *page_size, const char *freelist)
{
    OWN_BUF struct buf want = BUF_INIT, have = BUF_INIT;
    OWN_BOLT struct bolt_reader *r = NULL;
    struct bolt_copied copied;
    struct bolt_walked walked;
    struct bolt_input input;
    struct err e = ERR_INIT;
    unlink(b->db);
    unlink(b->copy[0]);
    assert_int_equal(RUN(b, "write", "-no-sync", freelist, "-page-size", page_size, "-keys", "4000",
                         "-commits", "40", b->db),
                     0);
    assert_int_equal(RUN(b, "stats", b->db), 0); /* then dump: what bolt_describe gives */
    assert_int_equal(io_read_file(b->out, OUTPUT_LIMIT, &want, &e), 0);
    assert_int_equal(RUN(b, "dump", b->db), 0);
    assert_int_equal(io_read_file(b->out, OUTPUT_LIMIT, &want, &e), 0);
    copy_until_good(b->db, b->copy[0], false, &copied);
    assert_int_equal(copied.meta.page_size, atoll(page_size));
    assert_int_equal(copied.lost_pages, 0);

    OWN_FD int fd = io_open(b->copy[0], O_RDONLY, 0);
    struct bolt_local file = {.fd = fd, .path = b->copy[0]};
    assert_int_equal(bolt_local_input(&file, &input, &e), 0);
    assert_int_equal(input.size_bytes, copied.pages * copied.meta.page_size);
    assert_int_equal(bolt_open(&input, &r, &e), 0);
    if (bolt_describe(r, &walked, &have, &e))
        fail_msg("%s", e.message);
    assert_int_equal(walked.reachable_pages, copied.reachable_pages);
    bolt_walked_free(&walked);
    assert_true(want.len > 100000 && have.len == want.len);
    assert_memory_equal(have.data, want.data, want.len);

    /* Twice, so that each parity of the transaction number overwrites its page. */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(RUN(b, "check", b->copy[0]), 0);
        assert_int_equal(RUN(b, "commit", b->copy[0]), 0);
    }
    assert_int_equal(RUN(b, "check", b->copy[0]), 0);
}

static void every_page_size(void **state)
{
    copies_of(*state, "1024", "-no-freelist=false");
    copies_of(*state, "4096", "-no-freelist=false");
    copies_of(*state, "16384", "-no-freelist=false");
    copies_of(*state, "65536", "-no-freelist=false");
}

static void without_a_stored_freelist(void **state)
{
    copies_of(*state, "4096", "-no-freelist=true");
}

/* Waits for the writer's "ready". */
static pid_t start_writer(struct bench *b, const char *keys, const char *rate, int *ret_stdin)
{
    int64_t deadline = clock_mono_us() + 30 * US_PER_S;
    struct stat st = {0};
    unlink(b->db);
    unlink(b->out);
    const char *const argv[] = {BOLT_WRITER, "write", "-no-sync", "-reader", "-keys",
                                keys,        "-rate", rate,       b->db,     NULL};
    pid_t pid = start(argv, environ, b->out, ret_stdin);
    while ((stat(b->out, &st) != 0 || st.st_size == 0) && clock_mono_us() < deadline)
        usleep(2000);
    if (st.st_size == 0) {
        kill(pid, SIGKILL);
        fail_msg("the writer was not ready in 30 s");
    }
    return pid;
}

static double commit_rate(const struct bench *b)
{
    OWN_BUF struct buf out = BUF_INIT;
    struct err e = ERR_INIT;
    double commits, seconds;
    assert_int_equal(io_read_file(b->out, 65536, &out, &e), 0);
    assert_int_equal(
        sscanf(buf_cstr(&out), "ready\n{\"commits\":%lf,\"seconds\":%lf", &commits, &seconds), 2);
    return commits / seconds;
}

/* How many of the copies bbolt finds bad. */
static unsigned judge(struct bench *b, unsigned count)
{
    char out[128];
    unsigned bad = 0;
    snprintf(out, sizeof out, "%s/judge", b->folder);
    for (unsigned i = 0; i < count; i++) {
        const char *const argv[] = {BOLT_WRITER, "check", b->copy[i], NULL};
        bad += wait_for(start(argv, environ, out, NULL)) != 0;
        unlink(b->copy[i]);
    }
    return bad;
}

static unsigned copy_beside(struct bench *b, const char *keys, const char *rate, unsigned count,
                            bool any)
{
    int writer_stdin;
    pid_t writer = start_writer(b, keys, rate, &writer_stdin);
    unsigned bad = 0, tries = 0, batch = 0, worst = 0;
    int64_t copying = 0;
    struct bolt_copied copied = {0};
    for (unsigned i = 0; i < count; i++) {
        int64_t from = clock_mono_us();
        unsigned n = copy_until_good(b->db, b->copy[batch++], any, &copied);
        copying += clock_mono_us() - from;
        tries += n;
        worst = MAX(worst, n);
        if (batch == BATCH || i + 1 == count) {
            bad += judge(b, batch);
            batch = 0;
        }
        usleep(1000 * (i % 7));
    }
    close(writer_stdin);
    assert_int_equal(wait_for(writer), 0);
    print_message("%s %u copies of %.1f MB beside %.0f commits/s: %.2f tries each, at most %u, "
                  "%.1f ms each; %u bad\n",
                  any ? "unguarded:" : "guarded:", count,
                  (double)copied.pages * copied.meta.page_size / 1e6, commit_rate(b),
                  (double)tries / count, worst, (double)copying / 1000 / count, bad);
    return bad;
}

static unsigned copies_wanted(void)
{
    const char *s = getenv("SYNCD_TEST_COPIES");
    return s ? (unsigned)strtoul(s, NULL, 10) : 30;
}

static void live_copies_are_good(void **state)
{
    /* Larger ones at rates that leave time between two commits, and a small one that is written so
     * fast that commits fall into every moment of a try. */
    static const char *const beside[][2] = {{"4000", "20"}, {"4000", "50"}, {"100", "1000"}};
    for (size_t i = 0; i < ARRAY_LEN(beside); i++)
        assert_int_equal(copy_beside(*state, beside[i][0], beside[i][1],
                                     copies_wanted() / ARRAY_LEN(beside), false),
                         0);
}

/* Without the last look at the metas the same judge finds bad copies: it can tell. */
static void the_judge_sees_mixtures(void **state)
{
    assert_true(copy_beside(*state, "4000", "100", 10, true) > 0);
}

/* Something that happens to the database while page 2 is handed over. */
struct intruder {
    struct bench *bench;
    enum { COMMITS, GROWS, REPLACES, FAILS } act;
    uint64_t seen;
};

static int intrude(void *arg, uint64_t page, const uint8_t *bytes, struct err *e)
{
    struct intruder *i = arg;
    (void)bytes;
    i->seen++;
    if (page != 2)
        return 0;
    switch (i->act) {
    case COMMITS:
        assert_int_equal(RUN(i->bench, "commit", i->bench->db), 0);
        break;
    case GROWS:
        assert_int_equal(truncate(i->bench->db, 64 << 20), 0);
        break;
    case REPLACES:
        assert_int_equal(rename(i->bench->copy[1], i->bench->db), 0);
        break;
    case FAILS:
        return err_set(e, ERR_NO_SPACE, "w1", "full");
    }
    return 0;
}

static int copy_beside_intruder(struct bench *b, int act, bool to_the_end, bool *ret_replaced,
                                uint64_t *ret_seen, uint64_t *ret_pages)
{
    OWN_FD int fd = io_open(b->db, O_RDONLY, 0);
    struct intruder i = {.bench = b, .act = act};
    struct bolt_copy copy = {
        .path = b->db, .fd = fd, .page = intrude, .arg = &i, .to_the_end = to_the_end};
    struct bolt_copied copied = {0};
    struct err e = ERR_INIT;
    int rc = bolt_copy(&copy, &copied, ret_replaced, &e);
    *ret_seen = i.seen;
    *ret_pages = copied.pages;
    return rc;
}

static void an_overtaken_copy_does_not_count(void **state)
{
    struct bench *b = *state;
    uint64_t seen, pages, all;
    bool replaced;
    unlink(b->db);
    assert_int_equal(RUN(b, "write", "-no-sync", "-keys", "20000", "-commits", "1", b->db), 0);
    copy_until_good(b->db, b->copy[1], false, &(struct bolt_copied){0});
    assert_int_equal(copy_beside_intruder(b, FAILS, false, &replaced, &seen, &pages), ERR_NO_SPACE);
    assert_int_equal(seen, 3);
    assert_int_equal(copy_beside_intruder(b, COMMITS, true, &replaced, &all, &pages), ERR_CHANGED);
    assert_false(replaced);
    assert_int_equal(copy_beside_intruder(b, COMMITS, false, &replaced, &seen, &pages),
                     ERR_CHANGED);
    assert_true(seen < all);
    assert_int_equal(copy_beside_intruder(b, GROWS, false, &replaced, &seen, &pages), ERR_CHANGED);
    assert_false(replaced);
    assert_int_equal(copy_beside_intruder(b, REPLACES, false, &replaced, &seen, &pages),
                     ERR_CHANGED);
    assert_true(replaced);
}

static void damage_is_told_from_change(void **state)
{
    struct bench *b = *state;
    uint64_t seen, pages;
    bool replaced;
    struct bolt_copied copied;
    uint8_t flags[2] = {4, 0};
    unlink(b->db);
    assert_int_equal(RUN(b, "write", "-no-sync", "-keys", "2000", "-commits", "1", b->db), 0);
    copy_until_good(b->db, b->copy[0], false, &copied);
    OWN_FD int fd = io_open(b->db, O_RDWR, 0);
    uint64_t root = copied.meta.root_page * copied.meta.page_size;
    assert_int_equal(io_pwrite_all(fd, flags, 2, root + 8), 0);
    assert_int_equal(copy_beside_intruder(b, COMMITS, false, &replaced, &seen, &pages),
                     ERR_DAMAGED);
    assert_int_equal(seen, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_page_size),
        cmocka_unit_test(without_a_stored_freelist),
        cmocka_unit_test(live_copies_are_good),
        cmocka_unit_test(the_judge_sees_mixtures),
        cmocka_unit_test(an_overtaken_copy_does_not_count),
        cmocka_unit_test(damage_is_told_from_change),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
