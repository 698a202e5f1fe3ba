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
#include "syncd/key_pair.h"
#include "tests/support/sshd.h"

static char folder[] = "/tmp/syncd-key-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    test_remove_tree(folder);
    return 0;
}

static void public_halves_are_found(void **state)
{
    (void)state;
#define KEY "AAAAC3NzaC1lZDI1NTE5AAAAIKGC4BwtjoAYTdKP9nwphSo2TKlabP+RbwpA2UVMHfWD"
    static const struct {
        const char *text, *found;
    } cases[] = {
        {"ssh-ed25519 " KEY, "ssh-ed25519 " KEY},
        {"ssh-ed25519 " KEY " me@here\n", "ssh-ed25519 " KEY},
        {"warning: this\n\necdsa-sha2-nistp256 " KEY "\n", "ecdsa-sha2-nistp256 " KEY},
        {"", NULL},
        {"ssh-ed25519", NULL},
        {"ssh-ed25519 \n", NULL},
        {"ssh-ed25519 short\n", NULL},
        {"ssh-ed25519 " KEY "\"evil", NULL},
        {"xssh-ed25519 " KEY, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t len = 0;
        const char *found = key_pair_find_public(cases[i].text, &len);
        if (!cases[i].found) {
            assert_null(found);
            continue;
        }
        assert_int_equal(len, strlen(cases[i].found));
        assert_memory_equal(found, cases[i].found, len);
    }
}

static void a_missing_key_is_made_once(void **state)
{
    (void)state;
    OWN_MEM char *path = io_path(folder, "id"), *pub = io_path(folder, "id.pub");
    OWN_MEM char *left = io_path(folder, "id.tmp");
    OWN_BUF struct buf public = BUF_INIT, line = BUF_INIT, first = BUF_INIT, second = BUF_INIT;
    struct err e = ERR_INIT;
    struct stat st;
    bool made = false;
    assert_int_equal(io_replace_file(left, "half", 4, 0600, &e), 0); /* by a run that was cut */
    assert_int_equal(key_pair_ensure(path, "syncd@here", &made, &e), 0);
    assert_true(made);
    assert_int_not_equal(access(left, F_OK), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(io_read_file(path, 4096, &first, &e), 0);
    assert_int_equal(key_pair_ensure(path, "syncd@here", &made, &e), 0);
    assert_false(made);
    assert_int_equal(io_read_file(path, 4096, &second, &e), 0);
    assert_string_equal(buf_cstr(&first), buf_cstr(&second));
    /* The line for the worker says the same as the file that ssh-keygen wrote. */
    assert_int_equal(key_pair_authorized_line(path, "syncd@here", &line, &e), 0);
    assert_int_equal(io_read_file(pub, 4096, &public, &e), 0);
    char expected[512];
    snprintf(expected, sizeof expected, "restrict,command=\"internal-sftp\" %s", buf_cstr(&public));
    expected[strlen(expected) - 1] = '\0'; /* its newline */
    assert_string_equal(buf_cstr(&line), expected);
}

static void keys_that_will_not_do(void **state)
{
    (void)state;
    OWN_MEM char *path = io_path(folder, "rsa"), *none = io_path(folder, "no/such/folder/id");
    const char *const argv[] = {"ssh-keygen", "-q", "-t", "rsa", "-b", "2048",
                                "-N",         "",   "-f", path,  NULL};
    struct err e = ERR_INIT;
    bool made = false;
    assert_int_equal(test_run(argv), 0);
    assert_int_equal(key_pair_ensure(path, "c", &made, &e), ERR_AUTH);
    assert_non_null(strstr(e.message, "RSA"));
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(key_pair_ensure(path, "c", &made, &e), ERR_PERMISSION);
    assert_int_not_equal(key_pair_ensure(none, "c", &made, &e), 0);
    assert_non_null(strstr(e.message, none));
    assert_false(made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(public_halves_are_found),
        cmocka_unit_test(a_missing_key_is_made_once),
        cmocka_unit_test(keys_that_will_not_do),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
