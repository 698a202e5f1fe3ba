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
#include "syncd/config_file.h"
#include "tests/support/sshd.h"
#include "transport/url.h"

static char folder[] = "/tmp/syncd-config-XXXXXX";

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

static struct conf *parsed(struct buf *text)
{
    struct conf *c = NULL;
    struct err e = ERR_INIT;
    assert_non_null(buf_cstr(text));
    if (conf_parse("test.conf", (const char *)text->data, text->len, &c, NULL, &e))
        fail_msg("%s\n%s", e.message, (const char *)text->data);
    return c;
}

static void a_new_config_can_be_read(void **state)
{
    (void)state;
    OWN_BUF struct buf text = BUF_INIT;
    config_put_skeleton("shed", "/srv/with \"quotes\" and \\", &text);
    struct conf *c = parsed(&text);
    assert_string_equal(c->name, "shed");
    assert_string_equal(c->state_dir, "/srv/with \"quotes\" and \\");
    assert_int_equal(c->worker_count, 0);
    assert_int_equal(c->source_count, 0);
    conf_free(c);
}

/* The example in it, with its # taken away, must be right too. */
static void its_example_can_be_read(void **state)
{
    (void)state;
    OWN_BUF struct buf text = BUF_INIT, shown = BUF_INIT;
    config_put_skeleton("shed", "/srv", &text);
    const char *at = strstr(buf_cstr(&text), "#source");
    assert_non_null(at);
    for (; *at; at++)
        if (*at != '#')
            buf_put_u8(&shown, (uint8_t)*at);
    struct conf *c = parsed(&shown);
    assert_int_equal(c->source_count, 1);
    assert_int_equal(c->sources[0].every_s, 900);
    conf_free(c);
}

static void put_worker(const char *before, const char *url, struct buf *to)
{
    const struct config_worker w = {.name = "w1",
                                    .url = url,
                                    .identity_file = "/etc/\"id\"\\",
                                    .known_hosts = "/etc/known hosts"};
    buf_put_str(to, before);
    config_put_worker(&w, to);
}

static void a_block_says_what_was_meant(void **state)
{
    (void)state;
    static const char *const befores[] = {"", "name = \"x\"", "name = \"x\"\n", "# comment",
                                          "name = \"x\" # comment"};
    for (size_t i = 0; i < ARRAY_LEN(befores); i++) {
        OWN_BUF struct buf text = BUF_INIT;
        put_worker(befores[i], "sftp://me@host/~/a%20b", &text);
        struct conf *c = parsed(&text);
        assert_int_equal(c->worker_count, 1);
        assert_string_equal(c->workers[0].name, "w1");
        assert_string_equal(c->workers[0].url, "sftp://me@host/~/a%20b");
        assert_string_equal(c->workers[0].identity_file, "/etc/\"id\"\\");
        assert_string_equal(c->workers[0].known_hosts, "/etc/known hosts");
        conf_free(c);
    }
}

static void a_folders_block_has_no_key(void **state)
{
    (void)state;
    OWN_BUF struct buf text = BUF_INIT;
    const struct config_worker w = {.name = "disk", .url = "file:///mnt/stick"};
    config_put_worker(&w, &text);
    assert_string_equal(buf_cstr(&text), "worker \"disk\" {\n    url = \"file:///mnt/stick\"\n}\n");
}

/* ---- titles ---- */

static bool among(const void *arg, const char *title)
{
    for (const char *const *t = arg; *t; t++)
        if (strcmp(*t, title) == 0)
            return true;
    return false;
}

static void titles(void **state)
{
    (void)state;
    static const struct {
        const char *url, *title;
        const char *taken[3];
    } cases[] = {
        {"sftp://worker1.local/x", "worker1", {NULL}},
        {"sftp://pi@Shed-2.example.org:2222/~/x", "shed-2", {NULL}},
        {"sftp://10.0.0.7/x", "10-0-0-7", {NULL}},
        {"sftp://10.0.0.7/x", "10-0-0-7-2", {"10-0-0-7"}},
        {"sftp://[fe80::1]/x", "fe80--1", {NULL}},
        {"sftp://[::1]/x", "1", {NULL}},
        {"sftp://_._/x", "worker", {NULL}},
        {"sftp://tmp/x", "worker", {NULL}},
        {"sftp://shed/x", "shed3", {"shed", "shed2"}},
        {"file:///mnt/stick", "disk", {NULL}},
        {"file:///mnt/stick", "disk2", {"disk"}},
        {"sftp://a-host-name-that-is-much-longer-than-a-title-may-be/x",
         "a-host-name-that-is-much-lon",
         {NULL}},
        {"sftp://a-host-name-that-is-much-longer-than-a-title-may-be/x",
         "a-host-name-that-is-much-lon2",
         {"a-host-name-that-is-much-lon"}},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct url url;
        char title[CONF_NAME_MAX + 1];
        assert_int_equal(url_parse(cases[i].url, &url, NULL), 0);
        config_worker_title(&url, among, cases[i].taken, title, sizeof title);
        assert_string_equal(title, cases[i].title);
        assert_true(conf_name_is_valid(title));
    }
}

/* ---- the file ---- */

static void put(const char *path, const char *text, mode_t mode)
{
    assert_int_equal(io_replace_file(path, text, strlen(text), mode, NULL), 0);
}

static char *text_of(const char *path)
{
    struct buf b = BUF_INIT;
    assert_int_equal(io_read_file(path, 65536, &b, NULL), 0);
    assert_non_null(buf_cstr(&b));
    return (char *)b.data;
}

static void saved_as_it_was(void **state)
{
    (void)state;
    OWN_MEM char *path = io_path(folder, "a.conf"), *link_path = io_path(folder, "link");
    struct config_file f;
    struct stat st;
    put(path, "name = \"x\"", 0604);
    assert_int_equal(symlink(path, link_path), 0);
    assert_int_equal(config_file_load(link_path, &f, NULL), 0);
    assert_true(f.exists);
    assert_int_equal(config_file_check_writable(&f, NULL), 0);
    OWN_BUF struct buf text = BUF_INIT;
    buf_put_str(&text, "name = \"y\"\n");
    assert_int_equal(config_file_save(&f, &text, NULL), 0);
    config_file_free(&f);
    assert_int_equal(lstat(link_path, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0604);
    OWN_MEM char *now = text_of(path);
    assert_string_equal(now, "name = \"y\"\n");
}

static void what_changed_meanwhile_is_left_alone(void **state)
{
    (void)state;
    OWN_MEM char *path = io_path(folder, "b.conf"), *new_path = io_path(folder, "new/c.conf");
    struct config_file f;
    struct err e = ERR_INIT;
    OWN_BUF struct buf text = BUF_INIT;
    buf_put_str(&text, "ours");
    put(path, "one", 0600);
    assert_int_equal(config_file_load(path, &f, &e), 0);
    put(path, "two", 0600);
    assert_int_equal(config_file_save(&f, &text, &e), ERR_CHANGED);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(config_file_save(&f, &text, &e), ERR_CHANGED);
    assert_int_not_equal(access(path, F_OK), 0);
    config_file_free(&f);
    /* One that was not there, and is now. */
    assert_int_equal(config_file_load(new_path, &f, &e), 0);
    assert_false(f.exists);
    assert_int_equal(config_file_check_writable(&f, &e), 0);
    OWN_MEM char *new_folder = io_path(folder, "new");
    assert_int_equal(mkdir(new_folder, 0755), 0);
    put(new_path, "theirs", 0600);
    assert_int_equal(config_file_save(&f, &text, &e), ERR_CHANGED);
    assert_int_equal(unlink(new_path), 0);
    assert_int_equal(rmdir(new_folder), 0);
    assert_int_equal(config_file_save(&f, &text, &e), 0); /* makes the folder, too */
    OWN_MEM char *now = text_of(new_path);
    assert_string_equal(now, "ours");
    config_file_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_config_can_be_read),
        cmocka_unit_test(its_example_can_be_read),
        cmocka_unit_test(a_block_says_what_was_meant),
        cmocka_unit_test(a_folders_block_has_no_key),
        cmocka_unit_test(titles),
        cmocka_unit_test(saved_as_it_was),
        cmocka_unit_test(what_changed_meanwhile_is_left_alone),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
