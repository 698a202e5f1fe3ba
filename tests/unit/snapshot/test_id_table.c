/* The table in a file: grows, forgets what does not live, and survives damage as an empty one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/id_table.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "tests/support/sshd.h"

static char dir[64], path[128];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/syncd-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/table", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_remove_tree(dir);
    return 0;
}

static void put(struct id_table *t, uint64_t key, uint64_t value, id_table_live_fn *live)
{
    struct err e = ERR_INIT;
    uint8_t k[ID_TABLE_KEY] = {0}, v[ID_TABLE_VALUE] = {1};
    le64_put(k, key);
    le64_put(v + 8, value);
    assert_int_equal(id_table_put(t, k, v, live, NULL, &e), 0);
}

/* UINT64_MAX: it is not there. */
static uint64_t get(struct id_table *t, uint64_t key)
{
    struct err e = ERR_INIT;
    uint8_t k[ID_TABLE_KEY] = {0}, v[ID_TABLE_VALUE];
    le64_put(k, key);
    int rc = id_table_get(t, k, v, &e);
    assert_true(rc >= 0);
    return rc ? le64_get(v + 8) : UINT64_MAX;
}

static void what_is_put_is_found_again(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct id_table *t;
    assert_int_equal(id_table_open(dir, path, &t, &e), 0);
    for (uint64_t i = 0; i < 20000; i++)
        put(t, i, i * 3, NULL);
    for (uint64_t i = 0; i < 20000; i += 7)
        put(t, i, i * 5, NULL);
    id_table_close(t);
    assert_int_equal(id_table_open(dir, path, &t, &e), 0);
    for (uint64_t i = 0; i < 20000; i++)
        assert_int_equal(get(t, i), i % 7 ? i * 3 : i * 5);
    assert_int_equal(get(t, 20000), UINT64_MAX);
    id_table_close(t);
}

static bool is_even(const void *arg, const uint8_t value[static ID_TABLE_VALUE])
{
    (void)arg;
    return le64_get(value + 8) % 2 == 0;
}

static void growing_leaves_out_what_does_not_live(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct id_table *t;
    assert_int_equal(id_table_open(dir, NULL, &t, &e), 0);
    for (uint64_t i = 0; i < 700; i++) /* before it grows for the first time */
        put(t, i, i, is_even);
    assert_int_equal(get(t, 699), 699);
    for (uint64_t i = 700; i < 1000; i++)
        put(t, i, 2 * i, is_even);
    for (uint64_t i = 0; i < 700; i++)
        assert_int_equal(get(t, i), i % 2 ? UINT64_MAX : i);
    id_table_close(t);
}

static void a_damaged_one_is_empty(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct id_table *t;
    uint8_t note[ID_TABLE_NOTE];
    static const off_t cuts[] = {0, 10, 5000};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(id_table_open(dir, path, &t, &e), 0);
        assert_int_equal(get(t, 7), UINT64_MAX);
        put(t, 7, 70, NULL);
        memset(note, 0x55, sizeof note);
        assert_int_equal(id_table_note_set(t, note, &e), 0);
        id_table_close(t);
        if (i < 3) {
            assert_int_equal(truncate(path, cuts[i]), 0);
        } else {
            int fd = open(path, O_WRONLY);
            assert_int_equal(pwrite(fd, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, 8), 8);
            close(fd);
        }
    }
    assert_int_equal(id_table_open(dir, path, &t, &e), 0);
    assert_int_equal(get(t, 7), UINT64_MAX);
    assert_int_equal(id_table_note_get(t, note, &e), 0);
    for (size_t i = 0; i < sizeof note; i++)
        assert_int_equal(note[i], 0);
    id_table_close(t);
}

/* Only an empty one is made larger, and what was put stays where it is found again. */
static void room_that_is_expected(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct id_table *t;
    struct stat before, after;
    assert_int_equal(id_table_open(dir, path, &t, &e), 0);
    assert_int_equal(get(t, 5), UINT64_MAX);
    assert_int_equal(id_table_expect(t, 50000, &e), 0);
    assert_int_equal(stat(path, &before), 0);
    assert_true(before.st_size >= 50000 * (ID_TABLE_KEY + ID_TABLE_VALUE));
    for (uint64_t i = 0; i < 40000; i++)
        put(t, i, i + 1, NULL);
    assert_int_equal(id_table_expect(t, 1000000, &e), 0);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(after.st_size, before.st_size);
    id_table_close(t);
    assert_int_equal(id_table_open(dir, path, &t, &e), 0);
    for (uint64_t i = 0; i < 40000; i++)
        assert_int_equal(get(t, i), i + 1);
    id_table_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_put_is_found_again, setup, teardown),
        cmocka_unit_test_setup_teardown(growing_leaves_out_what_does_not_live, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_one_is_empty, setup, teardown),
        cmocka_unit_test_setup_teardown(room_that_is_expected, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
