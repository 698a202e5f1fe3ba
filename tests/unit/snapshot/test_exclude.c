/* Which paths globs leave out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "snapshot/exclude.h"

static const struct row {
    const char *glob, *path;
    bool folder, left_out;
} rows[] = {
    {"*.tmp", "/a/b.tmp", false, true},
    {"*.tmp", "/a.tmp/b", false, false},
    {"*.tmp", "/a.tmp", true, true},
    {"cache", "/x/cache", true, true},
    {"cache", "/x/cache2", true, false},
    {"cache/", "/x/cache", true, true},
    {"cache/", "/x/cache", false, false},
    {"/var/log*", "/var/log.1", false, true},
    {"/var/log*", "/srv/var/log.1", false, false},
    {"/var/*", "/var/a/b", false, false},
    {"storage/old-?", "/home/x/storage/old-1", true, true},
    {"storage/old-?", "/home/x/storage/a/old-1", true, false},
    {"storage/old-?", "/old-1", true, false},
    {"**/a/b", "/x/y/a/b", false, true},
    {"**/*.log", "/x/y/z.log", false, true},
    {"[ab]x", "/q/bx", false, true},
    {"[ab]x", "/q/cx", false, false},
    {"\\*", "/q/*", false, true},
    {"\\*", "/q/a", false, false},
    {".*", "/q/.hidden", false, true},
    {"*", "/q/.hidden", false, true},
    {"nothing", "/q/.syncd-restore", true, true},
    {"nothing", "/q/.syncd-abc.tmp", false, true},
};

static void globs(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *list[] = {(char *)(uintptr_t)rows[i].glob, NULL};
        if (exclude_matches(list, rows[i].path, rows[i].folder) != rows[i].left_out)
            fail_msg("%s against %s", rows[i].glob, rows[i].path);
    }
    assert_false(exclude_matches(NULL, "/a/b", false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(globs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
