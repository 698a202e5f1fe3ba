/* Parts that wait for the catalog: a run that is killed leaves them to the next, and where the
 * place for them is full, what could not be written whole costs only itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "syncd/base/err.h"
#include "syncd/catalog.h"
#include "syncd/unnoted.h"

static char folder[64];
static struct catalog *catalog;

static int begin(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    snprintf(folder, sizeof folder, "/tmp/syncd-unnoted-XXXXXX");
    return mkdtemp(folder) && catalog_open(folder, &catalog, NULL, &e) == 0 ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    catalog_close(catalog);
    DIR *d = opendir(folder);
    for (struct dirent *entry; d && (entry = readdir(d));)
        unlinkat(dirfd(d), entry->d_name, 0);
    closedir(d);
    return rmdir(folder);
}

static struct catalog_part part_numbered(unsigned sequence)
{
    struct catalog_part p = {.epoch = 1, .sequence = sequence, .size_bytes = 1000};
    memset(p.id, (int)sequence, sizeof p.id);
    return p;
}

static bool is_noted(unsigned sequence)
{
    struct catalog_part p = part_numbered(sequence);
    return catalog_part_is_ours(catalog, "db", p.epoch, p.sequence, p.id);
}

static void add(struct unnoted *u, unsigned sequence)
{
    struct err e = ERR_INIT;
    struct catalog_part p = part_numbered(sequence);
    assert_int_equal(unnoted_add(u, &p, &e), 0);
    assert_true(unnoted_has(u, &p));
}

/* A run that ships parts 1 to 3, the second of which finds room for `room` bytes only, and is
 * killed then. It has the catalog open as this process has, and writes nothing to it. */
static void run_and_die(rlim_t room)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit all, little = {.rlim_cur = room, .rlim_max = RLIM_INFINITY};
        struct unnoted *u = unnoted_open(folder, catalog, "db");
        signal(SIGXFSZ, SIG_IGN);
        getrlimit(RLIMIT_FSIZE, &all);
        little.rlim_max = all.rlim_max;
        add(u, 1);
        if (room)
            setrlimit(RLIMIT_FSIZE, &little);
        add(u, 2);
        setrlimit(RLIMIT_FSIZE, &all);
        add(u, 3);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void a_killed_run_leaves_them_to_the_next(void **state)
{
    (void)state;
    run_and_die(0);
    assert_false(is_noted(1));
    unnoted_close(unnoted_open(folder, catalog, "db"));
    for (unsigned i = 1; i <= 3; i++)
        assert_true(is_noted(i));
}

static void half_a_part_costs_only_itself(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    uint64_t sequence;
    run_and_die(sizeof(struct catalog_part) * 3 / 2);
    unnoted_close(unnoted_open(folder, catalog, "db"));
    assert_true(is_noted(1));
    assert_false(is_noted(2));
    assert_true(is_noted(3));
    assert_int_equal(catalog_sequence(catalog, "db", &sequence, &e), 0);
    assert_int_equal(sequence, 3);
}

static void a_snapshot_takes_them_along(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct unnoted *u = unnoted_open(folder, catalog, "db");
    struct catalog_part last = part_numbered(2);
    add(u, 1);
    assert_false(is_noted(1));
    last.is_snapshot = true;
    assert_int_equal(unnoted_add(u, &last, &e), 0);
    assert_true(is_noted(1) && is_noted(2));
    add(u, 3);
    unnoted_close(u);
    assert_true(is_noted(3)); /* a run that ends without a snapshot */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_killed_run_leaves_them_to_the_next, begin, end),
        cmocka_unit_test_setup_teardown(half_a_part_costs_only_itself, begin, end),
        cmocka_unit_test_setup_teardown(a_snapshot_takes_them_along, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
