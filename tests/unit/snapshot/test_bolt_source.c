/* Taking a bolt database whose owner commits, replaces or damages it at the worst moment: while a
 * page is handed over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/bolt_source.h"
#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "tests/support/sshd.h"
#include "tests/unit/snapshot/bolt_helpers.h"
#include "transport/open.h"
#include "transport/store.h"

#define PAGE 1024u /* of the fixture */
#define TXID_AT 64u
#define HOSTILE 300

struct house {
    char dir[64], db[96];
    struct buf fixture;
    struct repository repo;
    struct store *store;
    struct fingerprints *table;
    atomic_bool cancel;

    /* What the owner does as each page is taken. */
    void (*act)(struct house *h);
    unsigned acts_left;
    bool known;
};

static int setup(void **state)
{
    struct house *h = calloc(1, sizeof *h);
    struct store_options o = {.name = "w1"};
    struct err e = ERR_INIT;
    const char path[] = SYNCD_SOURCE_DIR "/tests/unit/snapshot/fixtures/small.bolt";
    char url[160];
    snprintf(h->dir, sizeof h->dir, "/tmp/syncd-test-XXXXXX");
    assert_non_null(mkdtemp(h->dir));
    snprintf(h->db, sizeof h->db, "%s/live.db", h->dir);
    assert_int_equal(io_read_file(path, 1 << 20, &h->fixture, &e), 0);
    assert_int_equal(digest_init(&e), 0);
    repository_new("test", &h->repo);
    snprintf(url, sizeof url, "file://%s/w1", h->dir);
    assert_int_equal(url_parse(url, &o.url, &e), 0);
    assert_int_equal(store_open_url(&o, &h->store, &e), 0);
    assert_int_equal(repository_create(h->store, &h->repo, &e), 0);
    assert_int_equal(store_make_dir(h->store, "lab", &e), 0);
    *state = h;
    return 0;
}

static int teardown(void **state)
{
    struct house *h = *state;
    store_close(h->store);
    test_remove_tree(h->dir);
    buf_free(&h->fixture);
    free(h);
    return 0;
}

/* ---- the owner ---- */

static void put_file(const char *path, const void *data, size_t n)
{
    OWN_FD int fd = io_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0 && io_write_all(fd, data, n) == 0);
}

/* The next transaction, without any change, over the older meta. */
static void commit(struct house *h)
{
    uint8_t metas[2 * PAGE];
    OWN_FD int fd = io_open(h->db, O_RDWR, 0);
    assert_true(fd >= 0 && io_pread_full(fd, metas, sizeof metas, 0) == sizeof metas);
    uint64_t ids[2] = {le64_get(metas + TXID_AT), le64_get(metas + PAGE + TXID_AT)};
    unsigned older = ids[0] < ids[1] ? 0 : 1;
    memcpy(metas + older * PAGE + 16, metas + !older * PAGE + 16, BOLT_META_BYTES);
    le64_put(metas + older * PAGE + TXID_AT, MAX(ids[0], ids[1]) + 1);
    bolt_seal_meta(metas, PAGE, older);
    assert_int_equal(io_pwrite_all(fd, metas + older * PAGE, PAGE, older * PAGE), 0);
}

static void replace(struct house *h)
{
    char path[128];
    snprintf(path, sizeof path, "%s.new", h->db);
    put_file(path, h->fixture.data, h->fixture.len);
    assert_int_equal(rename(path, h->db), 0);
}

static void commit_and_stop_syncd(struct house *h)
{
    commit(h);
    atomic_store(&h->cancel, true);
}

/* ---- the run ---- */

static int open_table(void *arg, uint64_t image, struct fingerprints **ret, bool *ret_known,
                      struct err *e)
{
    struct house *h = arg;
    struct fingerprints_head head = {.image = image};
    if (h->table)
        fingerprints_drop(h->table);
    int rc = fingerprints_begin(h->dir, &head, &h->table, ret_known, e);
    *ret = h->table;
    *ret_known = h->known;
    return rc;
}

static void on_read(void *arg, uint64_t bytes)
{
    struct house *h = arg;
    (void)bytes;
    if (h->acts_left) {
        h->acts_left--;
        h->act(h);
    }
}

static int take(struct house *h, void (*act)(struct house *h), unsigned acts, struct entry *ret,
                struct err *e)
{
    struct pipeline_options o = {
        .source = "lab", .epoch = 1, .next_sequence = 1, .worker_count = 1, .threads = 1};
    struct source_run run = {.repository = &h->repo,
                             .open_table = open_table,
                             .read = on_read,
                             .arg = h,
                             .cancel = &h->cancel};
    memcpy(o.repository, h->repo.id, REPO_ID_SIZE);
    o.workers[0].store = h->store;
    assert_int_equal(pipeline_start(&o, &run.pipeline, e), 0);
    h->act = act;
    h->acts_left = acts;
    atomic_store(&h->cancel, false);
    int rc = bolt_take(&run, h->db, ret, e);
    pipeline_abort(run.pipeline, NULL);
    fingerprints_drop(TAKE_PTR(h->table));
    return rc;
}

static void expect_whole(struct house *h, const struct entry *n)
{
    assert_string_equal(n->path, h->db);
    assert_int_equal(n->type, ENTRY_IMAGE);
    assert_int_equal(n->image.kind, IMAGE_BOLT);
    assert_int_equal(1u << n->image.page_shift, PAGE);
    assert_true(n->image.page_count > 20 && n->image.page_count <= h->fixture.len / PAGE);
    assert_true(n->signature.len > 0);
}

static void some_commits_are_outlived(void **state)
{
    struct house *h = *state;
    struct entry n = {0};
    struct err e = ERR_INIT;
    uint64_t sum = 0;
    for (int i = 0; i < 4; i++) {
        h->known = i & 1; /* a first backup, or an increment */
        put_file(h->db, h->fixture.data, h->fixture.len);
        if (take(h, commit, i < 2 ? 0 : 5, &n, &e))
            fail_msg("%s", e.message);
        expect_whole(h, &n);
        if (i < 2) {
            assert_true(i == 0 || n.image.sum == sum);
            sum = n.image.sum;
        } else {
            assert_true(n.image.sum != sum); /* another transaction number */
        }
        entry_free(&n);
    }
}

static void an_owner_that_never_rests(void **state)
{
    struct house *h = *state;
    struct entry n = {0};
    struct err e = ERR_INIT;
    int64_t begun_us = clock_mono_us();
    put_file(h->db, h->fixture.data, h->fixture.len);
    assert_int_equal(take(h, commit, UINT32_MAX, &n, &e), ERR_BUSY);
    assert_non_null(strstr(e.message, h->db));
    assert_non_null(strstr(e.message, "commits faster"));
    assert_non_null(strstr(e.message, "`before` and `after` hooks"));
    assert_true(clock_mono_us() - begun_us < 60 * US_PER_S);
}

static void a_new_file_under_the_old_name(void **state)
{
    struct house *h = *state;
    struct entry n = {0};
    struct err e = ERR_INIT;
    struct stat st;
    put_file(h->db, h->fixture.data, h->fixture.len);
    if (take(h, replace, 2, &n, &e))
        fail_msg("%s", e.message);
    expect_whole(h, &n);
    assert_int_equal(stat(h->db, &st), 0);
    assert_int_equal(n.mtime_ns, (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec);
    entry_free(&n);
    assert_int_equal(take(h, replace, UINT32_MAX, &n, &e), ERR_CHANGED);
}

static void a_signal_ends_it(void **state)
{
    struct house *h = *state;
    struct entry n = {0};
    struct err e = ERR_INIT;
    put_file(h->db, h->fixture.data, h->fixture.len);
    assert_int_equal(take(h, commit_and_stop_syncd, 1, &n, &e), ERR_CANCELLED);
}

/* Whatever it holds: it is taken as it is, or it fails, and says that the database is what failed.
 */
static void hostile_files(void **state)
{
    struct house *h = *state;
    OWN_MEM uint8_t *data = malloc(h->fixture.len);
    uint32_t seed = 7;
    unsigned taken = 0, refused = 0;
    for (int i = 0; i < HOSTILE; i++) {
        struct entry n = {0};
        struct err e = ERR_INIT;
        memcpy(data, h->fixture.data, h->fixture.len);
        for (int k = 0; k <= i % 4; k++) {
            seed = seed * 1664525u + 1013904223u;
            size_t limit = i % 2 ? 2 * PAGE : h->fixture.len; /* metas, or anything */
            data[(seed >> 8) % limit] = (uint8_t)(seed >> 3);
        }
        bolt_seal_meta(data, PAGE, 0);
        bolt_seal_meta(data, PAGE, 1);
        put_file(h->db, data, i % 5 ? h->fixture.len : h->fixture.len - seed % h->fixture.len);
        int rc = take(h, commit, 0, &n, &e);
        if (rc && rc != ERR_SOURCE)
            fail_msg("file %d: %s: %s", i, err_name(rc), e.message);
        taken += rc == 0;
        refused += rc != 0;
        entry_free(&n);
    }
    assert_true(taken > HOSTILE / 10 && refused > HOSTILE / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(some_commits_are_outlived),
        cmocka_unit_test(an_owner_that_never_rests),
        cmocka_unit_test(a_new_file_under_the_old_name),
        cmocka_unit_test(a_signal_ends_it),
        cmocka_unit_test(hostile_files),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
