/* The walk's order is that of the bytes of paths, which is what the entry list is sorted by. */
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

#include "snapshot/tree_roots.h"
#include "snapshot/tree_walk.h"
#include "tests/support/sshd.h"

static char dir[64];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/syncd-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_remove_tree(dir);
    return 0;
}

static const char *in_dir(const char *name)
{
    static char path[4][4300];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static void make_file(const char *name)
{
    int fd = open(in_dir(name), O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
}

struct seen {
    size_t count;
    char path[64][300];
    enum tree_kind kind[64];
};

static void walk(char *const *paths, char *const *exclude, struct seen *s)
{
    struct err e = ERR_INIT;
    struct tree_roots roots;
    struct tree_walk *w;
    struct tree_item item;
    int rc;
    *s = (struct seen){0};
    assert_int_equal(tree_roots_make(paths, exclude, NULL, &roots, &e), 0);
    assert_int_equal(tree_walk_new(&roots, "/tmp", &w, &e), 0);
    while ((rc = tree_walk_next(w, &item, &e)) == 1) {
        assert_true(s->count < 64);
        snprintf(s->path[s->count], sizeof s->path[0], "%s", item.path);
        s->kind[s->count++] = item.kind;
    }
    assert_int_equal(rc, 0);
    tree_walk_free(w);
    tree_roots_free(&roots);
}

static void in_the_order_of_bytes(void **state)
{
    (void)state;
    static const char *const folders[] = {"a", "a/b", "a-b", "a.d", "a0", "a/b!", "z", "a/b/\xff"};
    static const char *const files[] = {"a/b/c",  "a/b-c", "a-b/x", "a!",   "a\n",
                                        "a/b!/y", "z/z",   "a0/0",  "\xff", "a.d/e\xfe"};
    struct seen s;
    char *paths[] = {dir, NULL};
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(mkdir(in_dir(folders[i]), 0700), 0);
    for (size_t i = 0; i < 10; i++)
        make_file(files[i]);
    walk(paths, NULL, &s);
    assert_int_equal(s.count, 19);
    for (size_t i = 1; i < s.count; i++)
        assert_true(strcmp(s.path[i - 1], s.path[i]) < 0);
}

static void links_are_not_followed_and_roots_are_taken_once(void **state)
{
    (void)state;
    struct seen s;
    assert_int_equal(mkdir(in_dir("d"), 0700), 0);
    assert_int_equal(mkdir(in_dir("d/e"), 0700), 0);
    make_file("d/e/f");
    assert_int_equal(symlink("..", in_dir("d/e/up")), 0);
    assert_int_equal(symlink("d", in_dir("l")), 0);
    char *one = strdup(in_dir("d")), *two = strdup(in_dir("d/e")), *three = strdup(in_dir("l/e/f"));
    char *paths[] = {two, one, three, NULL};
    walk(paths, NULL, &s);
    assert_int_equal(s.count, 4); /* d, d/e, d/e/f, d/e/up */
    assert_string_equal(s.path[0], one);
    assert_string_equal(s.path[1], two);
    /* A link that is named is kept, and so is what it leads to. */
    char *link = strdup(in_dir("l"));
    char *named[] = {link, NULL};
    walk(named, NULL, &s);
    assert_int_equal(s.count, 5);
    assert_string_equal(s.path[4], link);
    free(one);
    free(two);
    free(three);
    free(link);
}

static void what_is_missing_or_left_out(void **state)
{
    (void)state;
    struct seen s;
    assert_int_equal(mkdir(in_dir("d"), 0700), 0);
    assert_int_equal(mkdir(in_dir("d/cache"), 0700), 0);
    make_file("d/cache/x");
    make_file("d/y");
    char *one = strdup(in_dir("d")), *gone = strdup(in_dir("gone"));
    char *paths[] = {one, gone, NULL}, *exclude[] = {(char *)(uintptr_t) "cache/", NULL};
    walk(paths, exclude, &s);
    assert_int_equal(s.count, 4); /* d, d/y, gone twice: itself, and what was below it */
    assert_string_equal(s.path[1], in_dir("d/y"));
    assert_string_equal(s.path[2], gone);
    assert_int_equal(s.kind[2], TREE_FAILED);
    assert_int_equal(s.kind[3], TREE_UNKNOWN);
    free(one);
    free(gone);
}

static void roots_that_cannot_be(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct tree_roots roots;
    assert_int_equal(symlink("b", in_dir("a")), 0);
    assert_int_equal(symlink("a", in_dir("b")), 0);
    assert_int_equal(mkdir(in_dir("d"), 0700), 0);
    assert_int_equal(mkdir(in_dir("d/e"), 0700), 0);
    char *loop[] = {strdup(in_dir("a")), NULL};
    assert_int_equal(tree_roots_make(loop, NULL, NULL, &roots, &e), ERR_CONFIG);
    assert_non_null(strstr(e.message, "too many links"));
    char *relative[] = {(char *)(uintptr_t) "d", NULL};
    assert_int_equal(tree_roots_make(relative, NULL, NULL, &roots, &e), ERR_CONFIG);
    char *nested[] = {strdup(in_dir("d")), strdup(in_dir("d/e")), NULL};
    assert_int_equal(tree_roots_make(nested, NULL, NULL, &roots, &e), 0);
    assert_true(tree_roots_cover(&roots, in_dir("d/x/y")));
    assert_false(tree_roots_cover(&roots, in_dir("dd")));
    tree_roots_free(&roots);
    free(loop[0]);
    free(nested[0]);
    free(nested[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(in_the_order_of_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(links_are_not_followed_and_roots_are_taken_once, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_is_missing_or_left_out, setup, teardown),
        cmocka_unit_test_setup_teardown(roots_that_cannot_be, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
