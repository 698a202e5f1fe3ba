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
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/identity.h"
#include "tests/support/sshd.h"

#define SOMEBODY 65534 /* nobody, on every Debian */

static char folder[] = "/tmp/syncd-identity-XXXXXX";

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

static struct conf *config(const char *sources)
{
    char text[2048];
    struct conf *c = NULL;
    struct err e = ERR_INIT;
    snprintf(text, sizeof text, "state_dir = \"%s/state\"\n%s", folder, sources);
    if (conf_parse("test.conf", text, strlen(text), &c, NULL, &e))
        fail_msg("%s", e.message);
    return c;
}

static char *file_of(const char *name, uid_t uid)
{
    char *path = io_path(folder, name);
    assert_int_equal(io_replace_file(path, "x", 1, 0600, NULL), 0);
    if (geteuid() == 0)
        assert_int_equal(chown(path, uid, (gid_t)-1), 0);
    return path;
}

static void names(void **state)
{
    (void)state;
    char name[IDENTITY_NAME_SIZE];
    assert_string_equal(identity_name(0, name), "root");
    assert_string_equal(identity_name(3999999999u, name), "user 3999999999");
}

static void the_owner_of_the_sources(void **state)
{
    (void)state;
    OWN_MEM char *a = file_of("a", geteuid()), *b = file_of("b", geteuid());
    char text[1024];
    uid_t uid = 1;
    gid_t gid = 1;
    struct err e = ERR_INIT;
    snprintf(text, sizeof text,
             "source \"s\" { path = {\"%s\", \"%s\"} }\n"
             "source \"t\" { path = \"/nonexistent\" }\n",
             a, b);
    struct conf *c = config(text);
    assert_int_equal(identity_sources_owner(c, &uid, &gid, &e), 0);
    assert_int_equal(uid, geteuid());
    conf_free(c);
    c = config("source \"t\" { path = \"/nonexistent\" }\n");
    assert_int_equal(identity_sources_owner(c, &uid, &gid, &e), ERR_NOT_FOUND);
    conf_free(c);
}

static void need_root(void)
{
    if (geteuid() == 0)
        return;
    print_message("NOTICE: not root, so nobody else can be acted as\n");
    skip();
}

static void two_owners(void **state)
{
    (void)state;
    need_root();
    OWN_MEM char *a = file_of("mine", 0), *b = file_of("theirs", SOMEBODY);
    char text[1024];
    uid_t uid;
    gid_t gid;
    struct err e = ERR_INIT;
    snprintf(text, sizeof text, "source \"s\" { path = \"%s\" }\nsource \"t\" { path = \"%s\" }\n",
             a, b);
    struct conf *c = config(text);
    assert_int_equal(identity_sources_owner(c, &uid, &gid, &e), ERR_CONFIG);
    assert_non_null(strstr(e.message, "root"));
    assert_non_null(strstr(e.message, "nobody"));
    /* Nobody to make state_dir for. */
    assert_int_equal(identity_act_as_owner(c, &e), ERR_CONFIG);
    assert_int_equal(geteuid(), 0);
    conf_free(c);
}

static void there_and_back(void **state)
{
    (void)state;
    need_root();
    OWN_MEM char *path = file_of("theirs", SOMEBODY), *state_dir = io_path(folder, "state");
    char text[1024];
    struct stat st;
    struct err e = ERR_INIT;
    snprintf(text, sizeof text, "source \"s\" { path = \"%s\" }\n", path);
    struct conf *c = config(text);
    assert_int_equal(chmod(folder, 0755), 0);
    for (int i = 0; i < 2; i++) { /* the second time state_dir is there */
        assert_int_equal(identity_act_as_owner(c, &e), 0);
        assert_int_equal(geteuid(), SOMEBODY);
        assert_int_equal(identity_act_as_owner(c, &e), 0); /* again: nothing */
        assert_true(identity_is_root());
        assert_int_equal(stat(state_dir, &st), 0);
        assert_int_equal(st.st_uid, SOMEBODY);
        assert_int_equal(st.st_mode & 07777, 0700);
        assert_int_equal(identity_act_as_root(&e), 0);
        assert_int_equal(geteuid(), 0);
        assert_int_equal(getegid(), 0);
    }
    assert_int_equal(identity_act_as_root(&e), 0);
    conf_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(the_owner_of_the_sources),
        cmocka_unit_test(two_owners),
        cmocka_unit_test(there_and_back),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
