#include "tests/unit/transport/contract.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "syncd/base/clock.h"
#include "syncd/base/mem.h"
#include "tests/unit/transport/worker.h"

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

static int setup(void **state)
{
    struct contract *c = calloc(1, sizeof *c);
    c->mtime_grain_us = US_PER_S;
    snprintf(c->root, sizeof c->root, "/tmp/syncd-test-sftp-XXXXXX");
    *state = c;
    if (!mkdtemp(c->root))
        return -1;
    struct store_options o = worker_options(&worker, NULL, c->root);
    c->store = worker_open(&o);
    return 0;
}

static int teardown(void **state)
{
    struct contract *c = *state;
    store_close(c->store);
    test_remove_tree(c->root);
    free(c);
    return 0;
}

static void openssh_can_do_everything(void **state)
{
    struct contract *c = *state;
    struct err e = ERR_INIT;
    assert_int_equal(store_probe(c->store, &e), 0);
    assert_true(c->store->abilities.fsync);
    assert_true(c->store->abilities.space);
}

static void a_far_worker_gets_its_window_filled(void **state)
{
    struct contract *c = *state;
    struct relay relay;
    struct err e = ERR_INIT;
    struct store_file *f;
    enum { ROUND_TRIP_MS = 40, SIZE = 4 * 1024 * 1024, TRIES = 8 };
    const int64_t limit_us = 60 * ROUND_TRIP_MS * US_PER_MS;
    uint8_t *data = malloc(SIZE), *got = malloc(SIZE);
    contract_fill(data, SIZE, 7);
    relay_start(&relay, worker.port, ROUND_TRIP_MS * US_PER_MS / 2);
    struct store_options o = worker_options(&worker, NULL, c->root);
    o.url.port = relay.port; /* known by another port, so it is pinned */
    struct host_key key;
    assert_int_equal(store_host_key(&o, &key, &e), 0);
    o.host_key_sha256 = key.sha256;
    struct store *s = worker_open(&o);
    /* Packet by packet each would take 140 round trips. The machine may be busy with others, so the
     * best of some tries counts. */
    int64_t wrote_us = INT64_MAX, read_us = INT64_MAX;
    for (int i = 0; i < TRIES && MAX(wrote_us, read_us) >= limit_us; i++) {
        char name[16];
        snprintf(name, sizeof name, "g%d", i);
        int64_t start_us = clock_mono_us();
        assert_int_equal(store_create(s, "f", &f, &e), 0);
        for (size_t at = 0; at < SIZE; at += 65536)
            assert_int_equal(store_write(f, data + at, 65536, &e), 0);
        assert_int_equal(store_publish(f, "f", name, -1, &e), 0);
        assert_int_equal(store_close_file(f, &e), 0);
        wrote_us = MIN(wrote_us, clock_mono_us() - start_us);
        start_us = clock_mono_us();
        assert_int_equal(store_open(s, name, &f, &e), 0);
        for (size_t at = 0, n; at < SIZE; at += n) {
            assert_int_equal(store_read_at(f, at, got + at, 262144, &n, &e), 0);
            assert_true(n > 0);
        }
        read_us = MIN(read_us, clock_mono_us() - start_us);
        assert_int_equal(store_close_file(f, &e), 0);
        assert_memory_equal(got, data, SIZE);
    }
    assert_true(MAX(wrote_us, read_us) < limit_us);
    store_close(s);
    relay_stop(&relay);
    free(data);
    free(got);
}

static void the_rate_is_kept(void **state)
{
    struct contract *c = *state;
    struct err e = ERR_INIT;
    struct store_file *f;
    static const char zeros[600000];
    struct store_options o = worker_options(&worker, NULL, c->root);
    o.max_rate = 1000000;
    struct store *s = worker_open(&o);
    assert_int_equal(store_create(s, "f", &f, &e), 0);
    int64_t start_us = clock_mono_us();
    assert_int_equal(store_write(f, zeros, sizeof zeros, &e), 0);
    int64_t took_us = clock_mono_us() - start_us;
    assert_true(took_us > 400 * US_PER_MS && took_us < 5 * US_PER_S);
    assert_int_equal(store_close_file(f, &e), 0);
    store_close(s);
}

struct writer {
    struct store_options options;
    const char *name;
    int rc;
};

static void *write_one(void *arg)
{
    struct writer *w = arg;
    struct store *s = NULL;
    struct store_file *f = NULL;
    static const char data[1000000];
    w->rc = store_open_url(&w->options, &s, NULL);
    if (w->rc)
        return NULL;
    w->rc = store_create(s, w->name, &f, NULL);
    for (int i = 0; i < 8 && w->rc == 0; i++)
        w->rc = store_write(f, data, sizeof data, NULL);
    char to[32];
    snprintf(to, sizeof to, "%s-done", w->name);
    if (w->rc == 0)
        w->rc = store_publish(f, w->name, to, -1, NULL);
    store_close_file(f, NULL);
    store_close(s);
    return NULL;
}

static void two_threads_have_a_worker_each(void **state)
{
    struct contract *c = *state;
    struct writer w[2] = {{.name = "a"}, {.name = "b"}};
    pthread_t threads[2];
    struct store_stat st;
    for (int i = 0; i < 2; i++) {
        w[i].options = worker_options(&worker, NULL, c->root);
        assert_int_equal(pthread_create(&threads[i], NULL, write_one, &w[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(w[i].rc, 0);
    }
    assert_int_equal(store_stat(c->store, "b-done", &st, NULL), 0);
    assert_int_equal(st.size_bytes, 8000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONTRACT_TESTS(setup, teardown),
        cmocka_unit_test_setup_teardown(openssh_can_do_everything, setup, teardown),
        cmocka_unit_test_setup_teardown(a_far_worker_gets_its_window_filled, setup, teardown),
        cmocka_unit_test_setup_teardown(two_threads_have_a_worker_each, setup, teardown),
        cmocka_unit_test_setup_teardown(the_rate_is_kept, setup, teardown),
    };
    return cmocka_run_group_tests(tests, start_worker, stop_worker);
}
