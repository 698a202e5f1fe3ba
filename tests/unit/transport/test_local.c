#include "tests/unit/transport/contract.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "transport/open.h"
#include "transport/store.h"

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int open_local(struct contract *c, uint64_t max_rate, const int *cancel_fd)
{
    struct store_options o = {.name = "w1", .max_rate = max_rate, .cancel_fd = cancel_fd};
    struct err e = ERR_INIT;
    char text[512];
    snprintf(text, sizeof text, "file://%s", c->root);
    if (url_parse(text, &o.url, &e) || store_open_url(&o, &c->store, &e)) {
        print_error("%s\n", e.message);
        return -1;
    }
    return 0;
}

static int setup(void **state)
{
    struct contract *c = calloc(1, sizeof *c);
    c->mtime_grain_us = 1;
    snprintf(c->root, sizeof c->root, "/tmp/syncd-test-local-XXXXXX");
    *state = c;
    return mkdtemp(c->root) ? open_local(c, 0, NULL) : -1;
}

static int teardown(void **state)
{
    struct contract *c = *state;
    store_close(c->store);
    nftw(c->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(c);
    return 0;
}

static void the_rate_is_kept(void **state)
{
    struct contract *c = *state;
    struct err e = ERR_INIT;
    struct store_file *f;
    static const char zeros[500000];
    store_close(c->store);
    assert_int_equal(open_local(c, 1000000, NULL), 0);
    assert_int_equal(store_create(c->store, "f", &f, &e), 0);
    int64_t start = clock_mono_us();
    assert_int_equal(store_write(f, zeros, sizeof zeros, &e), 0);
    int64_t took = clock_mono_us() - start;
    assert_true(took >= 250 * US_PER_MS && took < 5 * US_PER_S);
    assert_int_equal(store_close_file(f, &e), 0);
}

static void a_write_that_waits_can_be_cancelled(void **state)
{
    struct contract *c = *state;
    struct err e = ERR_INIT;
    struct store_file *f;
    static const char zeros[500000];
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    store_close(c->store);
    assert_int_equal(open_local(c, 1000, &fds[0]), 0);
    assert_int_equal(store_create(c->store, "f", &f, &e), 0);
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_int_equal(store_write(f, zeros, sizeof zeros, &e), ERR_CANCELLED);
    assert_int_equal(store_close_file(f, &e), 0);
    close(fds[0]);
    close(fds[1]);
}

static void a_folder_needs_no_key(void **state)
{
    struct contract *c = *state;
    assert_int_equal(store_enrol_key(c->store, "ssh-ed25519 AAAA", NULL), ERR_UNSUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONTRACT_TESTS(setup, teardown),
        cmocka_unit_test_setup_teardown(the_rate_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(a_write_that_waits_can_be_cancelled, setup, teardown),
        cmocka_unit_test_setup_teardown(a_folder_needs_no_key, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
