/* A key exchange every few megabytes must pass unnoticed in the middle of anything. A program of
 * its own, because libssh2 1.10 forgets the 51 bytes of the old host key at each. */
#include "tests/unit/transport/contract.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/transport/worker.h"

const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libssh2.so";
}

static void keys_change_under_way(void **state)
{
    (void)state;
    struct sshd worker;
    struct err e = ERR_INIT;
    struct store_file *f, *g;
    enum { SIZE = 20 * 1024 * 1024, STEP = 262144 };
    char root[] = "/tmp/syncd-test-sftp-XXXXXX";
    uint8_t *data = malloc(SIZE), *got = malloc(SIZE);
    contract_fill(data, SIZE, 8);
    assert_non_null(mkdtemp(root));
    sshd_start(&worker, "RekeyLimit 1M");
    struct store_options o = worker_options(&worker, NULL, root);
    struct store *s = worker_open(&o);
    assert_int_equal(store_create(s, "f", &f, &e), 0);
    for (size_t i = 0; i < SIZE; i += STEP)
        assert_int_equal(store_write(f, data + i, STEP, &e), 0);
    assert_int_equal(store_publish(f, "f", "g", -1, &e), 0);
    assert_int_equal(store_close_file(f, &e), 0);
    assert_int_equal(store_open(s, "g", &g, &e), 0);
    for (size_t at = 0, n; at < SIZE; at += n) {
        struct store_stat st;
        assert_int_equal(store_read_at(g, at, got + at, STEP, &n, &e), 0);
        assert_true(n > 0);
        if (at % (8 * STEP) == 0)
            assert_int_equal(store_stat(s, "g", &st, &e), 0);
    }
    assert_memory_equal(got, data, SIZE);
    assert_int_equal(store_close_file(g, &e), 0);
    store_close(s);
    sshd_stop(&worker);
    test_remove_tree(root);
    free(data);
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_change_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
