/* The same promises on a server that is not OpenSSH: rclone's, which knows neither fsync nor
 * statvfs, and whose rename replaces what is there. */
#include "tests/unit/transport/contract.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "syncd/base/clock.h"
#include "tests/unit/transport/worker.h"

static struct sshd keys; /* only its keys are used */
static pid_t rclone;
static char served[64];
static uint16_t port;

static int start_rclone(void **state)
{
    (void)state;
    char address[32], authorized[160], host_key[160];
    snprintf(served, sizeof served, "/tmp/syncd-test-rclone-XXXXXX");
    if (!mkdtemp(served))
        return -1;
    sshd_start(&keys, NULL);
    sshd_kill(&keys);
    port = test_free_port();
    snprintf(address, sizeof address, "127.0.0.1:%u", (unsigned)port);
    snprintf(authorized, sizeof authorized, "%s/authorized_keys", keys.folder);
    snprintf(host_key, sizeof host_key, "%s/host_ecdsa", keys.folder);
    const char *const argv[] = {"rclone",
                                "serve",
                                "sftp",
                                served,
                                "--addr",
                                address,
                                "--authorized-keys",
                                authorized,
                                "--key",
                                host_key,
                                "--dir-cache-time",
                                "1ms",
                                "--config",
                                "/dev/null",
                                "--cache-dir",
                                keys.folder,
                                NULL};
    rclone = test_spawn(argv, NULL);
    return test_wait_port(port, rclone);
}

static int stop_rclone(void **state)
{
    (void)state;
    kill(rclone, SIGKILL);
    waitpid(rclone, NULL, 0);
    sshd_stop(&keys);
    test_remove_tree(served);
    return 0;
}

static int setup(void **state)
{
    struct contract *c = calloc(1, sizeof *c);
    struct err e = ERR_INIT;
    struct host_key key;
    c->mtime_grain_us = US_PER_S;
    c->lenient = true;
    snprintf(c->root, sizeof c->root, "%s/repository-%d", served, (int)clock_mono_us());
    *state = c;
    struct store_options o = worker_options(&keys, "user", c->root + strlen(served));
    o.url.port = port;
    assert_int_equal(store_host_key(&o, &key, &e), 0);
    o.host_key_sha256 = key.sha256;
    o.known_hosts = NULL;
    c->store = worker_open(&o);
    return store_make_root(c->store, &e);
}

static int teardown(void **state)
{
    struct contract *c = *state;
    store_close(c->store);
    test_remove_tree(c->root);
    free(c);
    return 0;
}

static void abilities_are_found_out(void **state)
{
    struct contract *c = *state;
    struct err e = ERR_INIT;
    assert_false(c->store->abilities.space);
    assert_int_equal(store_probe(c->store, &e), 0);
    assert_false(c->store->abilities.fsync);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONTRACT_TESTS(setup, teardown),
        cmocka_unit_test_setup_teardown(abilities_are_found_out, setup, teardown),
    };
    return cmocka_run_group_tests(tests, start_rclone, stop_rclone);
}
