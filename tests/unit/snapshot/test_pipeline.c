/* The pipeline when the machine or a worker fails it: no thread to be had, a store that never
 * answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/pipeline.h"
#include "snapshot/repository.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "tests/support/sshd.h"
#include "transport/open.h"
#include "transport/store.h"

#define PAGE_SHIFT 16
#define PAGE_SIZE_ (1u << PAGE_SHIFT)

struct house {
    char dir[64];
    struct repository repo;
    struct store *stores[2];
};

/* ---- a system that fails ---- */

static int threads_left = -1; /* -1: any number */

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*work)(void *), void *arg)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    if (threads_left == 0)
        return EAGAIN;
    if (threads_left > 0)
        threads_left--;
    return real(thread, attr, work, arg);
}

static atomic_bool stuck; /* whoever writes to the second worker waits while this is set */

ssize_t write(int fd, const void *p, size_t n)
{
    static ssize_t (*real)(int, const void *, size_t);
    char link[40], path[300];
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "write");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = atomic_load(&stuck) ? readlink(link, path, sizeof path - 1) : 0;
    path[len > 0 ? len : 0] = '\0';
    while (atomic_load(&stuck) && strstr(path, "/w2/tmp/"))
        usleep(10000);
    return real(fd, p, n);
}

/* ---- */

static int setup(void **state)
{
    struct house *h = calloc(1, sizeof *h);
    struct err e = ERR_INIT;
    snprintf(h->dir, sizeof h->dir, "/tmp/syncd-test-XXXXXX");
    assert_non_null(mkdtemp(h->dir));
    assert_int_equal(digest_init(&e), 0);
    repository_new("test", &h->repo);
    for (int i = 0; i < 2; i++) {
        char url[160];
        struct store_options o = {.name = i ? "w2" : "w1"};
        snprintf(url, sizeof url, "file://%s/w%d", h->dir, i + 1);
        assert_int_equal(url_parse(url, &o.url, &e), 0);
        assert_int_equal(store_open_url(&o, &h->stores[i], &e), 0);
        assert_int_equal(repository_create(h->stores[i], &h->repo, &e), 0);
        assert_int_equal(store_make_dir(h->stores[i], "lab", &e), 0);
    }
    *state = h;
    return 0;
}

static int teardown(void **state)
{
    struct house *h = *state;
    store_close(h->stores[0]);
    store_close(h->stores[1]);
    test_remove_tree(h->dir);
    free(h);
    return 0;
}

static int start(const struct house *h, struct pipeline **ret, struct err *e)
{
    struct pipeline_options o = {
        .source = "lab", .epoch = 1, .next_sequence = 1, .worker_count = 2, .threads = 2};
    memcpy(o.repository, h->repo.id, REPO_ID_SIZE);
    for (int i = 0; i < 2; i++) {
        o.workers[i].store = h->stores[i];
        o.workers[i].holds_listed = true;
    }
    return pipeline_start(&o, ret, e);
}

static void a_thread_that_cannot_be_started_is_an_error(void **state)
{
    struct house *h = *state;
    for (int n = 0; n < 4; n++) {
        struct pipeline *p = NULL;
        struct err e = ERR_INIT;
        threads_left = n;
        assert_int_not_equal(start(h, &p, &e), 0);
        assert_null(p);
        assert_non_null(strstr(e.message, "thread"));
    }
    threads_left = -1;
}

static void add_random(struct pipeline *p, uint64_t first, uint64_t count)
{
    static uint8_t page[PAGE_SIZE_];
    static uint64_t seed = 1;
    for (uint64_t n = first; n < first + count; n++) {
        struct err e = ERR_INIT;
        for (size_t i = 0; i < sizeof page; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            page[i] = (uint8_t)(seed >> 56);
        }
        if (pipeline_page(p, 7, PAGE_SHIFT, n, n + 1, page, &e))
            fail_msg("%s", e.message);
    }
}

static void *release_later(void *arg)
{
    (void)arg;
    for (int i = 0; i < 450 && atomic_load(&stuck); i++)
        usleep(100000);
    atomic_store(&stuck, false);
    return NULL;
}

/* It costs the other worker some seconds, not its snapshot. */
static void a_store_that_never_answers_is_left_behind(void **state)
{
    struct house *h = *state;
    struct pipeline *p;
    struct err e = ERR_INIT;
    struct pipeline_result r;
    pthread_t releaser;
    int64_t before_us = clock_mono_us();
    assert_int_equal(start(h, &p, &e), 0);
    atomic_store(&stuck, true);
    assert_int_equal(pthread_create(&releaser, NULL, release_later, NULL), 0);
    add_random(p, 0, 400); /* 25 MiB: more than what may wait */
    int64_t took_us = clock_mono_us() - before_us;
    atomic_store(&stuck, false);
    pthread_join(releaser, NULL);
    struct snapshot_section section = {.as_of_us = clock_now_us(), .complete = true};
    assert_int_equal(pipeline_finish(p, &section, &r, &e), 0);
    assert_true(r.workers[0].stored && r.workers[0].as_snap);
    assert_false(r.workers[1].stored);
    assert_int_equal(r.workers[1].err.code, ERR_TIMEOUT);
    assert_true(took_us < 30 * US_PER_S);
    free(r.parts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_thread_that_cannot_be_started_is_an_error, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_store_that_never_answers_is_left_behind, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
