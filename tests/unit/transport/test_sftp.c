#include "tests/unit/transport/contract.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "tests/support/sshd.h"
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

static struct store_options options(const char *root)
{
    struct store_options o = {.name = "w1",
                              .identity_file = worker.key,
                              .known_hosts = worker.known_hosts,
                              .timeout_s = 10};
    char text[512];
    struct err e = ERR_INIT;
    snprintf(text, sizeof text, "sftp://127.0.0.1:%u%s", (unsigned)worker.port, root);
    if (url_parse(text, &o.url, &e))
        fail_msg("%s", e.message);
    return o;
}

static int setup(void **state)
{
    struct contract *c = calloc(1, sizeof *c);
    struct err e = ERR_INIT;
    c->mtime_grain_us = US_PER_S;
    snprintf(c->root, sizeof c->root, "/tmp/syncd-test-sftp-XXXXXX");
    *state = c;
    if (!mkdtemp(c->root))
        return -1;
    struct store_options o = options(c->root);
    if (store_open_url(&o, &c->store, &e)) {
        print_error("%s (%s)\n", e.message, e.hint);
        return -1;
    }
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONTRACT_TESTS(setup, teardown),
    };
    return cmocka_run_group_tests(tests, start_worker, stop_worker);
}
