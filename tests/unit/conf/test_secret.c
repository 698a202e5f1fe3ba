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

#include "conf/conf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

static char folder[64], path[96];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/syncd-test-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/secret", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static void write_secret(const void *p, size_t n, mode_t mode)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void assert_secret(const char *text, const char *want)
{
    OWN_MEM char *got = NULL;
    struct err e = ERR_INIT;
    write_secret(text, strlen(text), 0600);
    if (conf_read_secret(path, &got, &e))
        fail_msg("%s", e.message);
    assert_string_equal(got, want);
}

static int refused(const void *p, size_t n, mode_t mode, struct err *e)
{
    char *got = NULL;
    write_secret(p, n, mode);
    int rc = conf_read_secret(path, &got, e);
    assert_null(got);
    return rc;
}

static void the_first_line_is_the_secret(void **state)
{
    (void)state;
    assert_secret("hush", "hush");
    assert_secret("hush\n", "hush");
    assert_secret("hush\r\n", "hush");
    assert_secret(" two words \nsecond line\n", " two words ");
    char longest[1026];
    memset(longest, 'x', 1023);
    memcpy(longest + 1023, "\n", 2);
    char want[1024];
    memset(want, 'x', 1023);
    want[1023] = '\0';
    assert_secret(longest, want);
}

static void what_others_can_read_is_refused(void **state)
{
    (void)state;
    static const mode_t modes[] = {0640, 0604, 0620, 0602, 0644, 0601};
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        struct err e = ERR_INIT;
        assert_int_equal(refused("hush\n", 5, modes[i], &e), ERR_PERMISSION);
        assert_non_null(strstr(e.message, path));
        assert_non_null(strstr(e.hint, "chmod 600"));
        assert_null(strstr(e.message, "hush"));
    }
}

static void what_is_no_line_of_text_is_refused(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    char big[2000];
    memset(big, 'x', sizeof big);
    assert_int_equal(refused("", 0, 0600, &e), ERR_CONFIG);
    assert_int_equal(refused("\nhush\n", 6, 0600, &e), ERR_CONFIG);
    assert_int_equal(refused("hu\0sh\n", 6, 0600, &e), ERR_CONFIG);
    assert_int_equal(refused(big, 1024, 0600, &e), ERR_CONFIG);
    assert_int_equal(refused(big, sizeof big, 0600, &e), ERR_CONFIG);
}

static void other_kinds_of_files_are_refused(void **state)
{
    (void)state;
    char *got = NULL;
    struct err e = ERR_INIT;
    unlink(path);
    assert_int_equal(conf_read_secret(path, &got, &e), ERR_NOT_FOUND);
    assert_int_equal(conf_read_secret(folder, &got, &e), ERR_CONFIG);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(conf_read_secret(path, &got, &e), ERR_CONFIG); /* and does not wait */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_line_is_the_secret),
        cmocka_unit_test(what_others_can_read_is_refused),
        cmocka_unit_test(what_is_no_line_of_text_is_refused),
        cmocka_unit_test(other_kinds_of_files_are_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
