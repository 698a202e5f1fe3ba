#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/command.h"
#include "syncd/host_pin.h"
#include "tests/support/sshd.h"
#include "transport/open.h"

#define A "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define B "SHA256:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"

/* What is given for sftp://h.example:2222/x by one or two --host-key. */
static int given(const char *first, const char *second, const char **ret)
{
    struct url url;
    struct err e = ERR_INIT;
    OWN_ARGS struct command_args args = {0};
    char *argv[] = {(char *)(uintptr_t) "syncd",      (char *)(uintptr_t) "setup",
                    (char *)(uintptr_t) "--host-key", (char *)(uintptr_t)first,
                    (char *)(uintptr_t) "--host-key", (char *)(uintptr_t)second};
    int argc = !first ? 2 : !second ? 4 : 6;
    assert_int_equal(url_parse("sftp://h.example:2222/x", &url, &e), 0);
    assert_int_equal(args_parse(command_table, argc, argv, &args, &e), 0);
    return host_pin_given(&args, &url, ret, &e);
}

static void what_is_given(void **state)
{
    (void)state;
    static const struct {
        const char *first, *second, *found; /* NULL: nothing for this host */
    } cases[] = {
        {NULL, NULL, NULL},
        {A, NULL, A},
        {A "=", NULL, A "="},
        {"h.example=" A, NULL, A},
        {"H.EXAMPLE=" A, NULL, A},
        {"h.example:2222=" A, NULL, A},
        {"[h.example]:2222=" A, NULL, A},
        {"h.example:22=" A, NULL, NULL},
        {"h=" A, NULL, NULL},
        {"other=" B, "h.example=" A, A},
        {"h.example=" A, B, A},
        {B, "h.example=" A, A},
        {"h.example:2222=" A "=", NULL, A "="},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *found = "untouched";
        assert_int_equal(given(cases[i].first, cases[i].second, &found), 0);
        if (cases[i].found)
            assert_string_equal(found, cases[i].found);
        else
            assert_null(found);
    }
}

static void what_is_no_fingerprint(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "yes",
                                      "SHA256:",
                                      A "A",
                                      A "==",
                                      "MD5:00:11",
                                      "h.example=",
                                      "h.example=MD5:00",
                                      "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                                      "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA*",
                                      "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        const char *found;
        assert_int_equal(given(bad[i], NULL, &found), ERR_USAGE);
    }
}

static void what_is_confirmed(void **state)
{
    (void)state;
    struct url url;
    struct err e = ERR_INIT;
    struct host_key shown = {.sha256 = A, .type = "ssh-ed25519"};
    assert_int_equal(url_parse("sftp://h/x", &url, &e), 0);
    assert_int_equal(host_pin_confirm(&shown, &url, A, &e), 0);
    assert_int_equal(host_pin_confirm(&shown, &url, A "=", &e), 0);
    assert_int_equal(host_pin_confirm(&shown, &url, B, &e), ERR_HOST_KEY);
    assert_non_null(strstr(e.message, A));
    assert_non_null(strstr(e.message, B));
    shown.known = true;
    assert_int_equal(host_pin_confirm(&shown, &url, NULL, &e), 0);
    assert_int_equal(host_pin_confirm(&shown, &url, B, &e), ERR_HOST_KEY);
}

static void what_is_written(void **state)
{
    (void)state;
    static const struct {
        const char *before, *after;
    } cases[] = {{NULL, "line\n"}, {"", "line\n"}, {"a\nb\n", "a\nb\nline\n"}, {"a", "a\nline\n"}};
    char folder[] = "/tmp/syncd-pin-XXXXXX";
    assert_non_null(mkdtemp(folder));
    OWN_MEM char *path = io_path(folder, "known_hosts");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        OWN_BUF struct buf text = BUF_INIT;
        struct stat st;
        const char *before = cases[i].before;
        if (before)
            assert_int_equal(io_replace_file(path, before, strlen(before), 0600, NULL), 0);
        assert_int_equal(host_pin_write(path, "line", NULL), 0);
        assert_int_equal(io_read_file(path, 100, &text, NULL), 0);
        assert_string_equal(buf_cstr(&text), cases[i].after);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, before ? 0600 : 0644);
    }
    test_remove_tree(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_given),
        cmocka_unit_test(what_is_no_fingerprint),
        cmocka_unit_test(what_is_confirmed),
        cmocka_unit_test(what_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
