#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "syncd/base/err.h"
#include "transport/url.h"

struct good {
    const char *text;
    enum url_scheme scheme;
    const char *user, *host;
    uint16_t port;
    bool under_home;
    const char *path;
};

static const struct good good[] = {
    {"sftp://w1/srv/backup", URL_SFTP, "", "w1", 22, false, "/srv/backup"},
    {"sftp://me@W1.Local:2222/~/syncd/leader/", URL_SFTP, "me", "w1.local", 2222, true,
     "syncd/leader"},
    {"SFTP://m%40e@w1//a//b/", URL_SFTP, "m@e", "w1", 22, false, "/a/b"},
    {"sftp://[fe80::1%25eth0]:23/x", URL_SFTP, "", "fe80::1%eth0", 23, false, "/x"},
    {"sftp://w1", URL_SFTP, "", "w1", 22, false, ""},
    {"sftp://w1/", URL_SFTP, "", "w1", 22, false, ""},
    {"sftp://w1/~", URL_SFTP, "", "w1", 22, true, ""},
    {"sftp://w1/~user/x", URL_SFTP, "", "w1", 22, false, "/~user/x"},
    {"file:///mnt/usb%20stick/", URL_FILE, "", "", 0, false, "/mnt/usb stick"},
};

static void urls_are_taken_apart(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct url u;
        struct err e = ERR_INIT;
        if (url_parse(good[i].text, &u, &e))
            fail_msg("%s: %s", good[i].text, e.message);
        assert_int_equal(u.scheme, good[i].scheme);
        assert_string_equal(u.user, good[i].user);
        assert_string_equal(u.host, good[i].host);
        assert_int_equal(u.port, good[i].port);
        assert_int_equal(u.under_home, good[i].under_home);
        assert_string_equal(u.path, good[i].path);
    }
}

static void bad_urls_say_why(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"", "sftp://"},
        {"http://w1/x", "sftp://"},
        {"/srv/backup", "sftp://"},
        {"sftp://me:secret@w1/x", "password"},
        {"sftp:///x", "host"},
        {"sftp://-oProxyCommand=x/y", "host"},
        {"sftp://w1 w2/y", "host"},
        {"sftp://w1%0aw2/y", "host"},
        {"sftp://@w1/x", "user"},
        {"sftp://w1:0/x", "port"},
        {"sftp://w1:65536/x", "port"},
        {"sftp://w1:22x/x", "port"},
        {"sftp://w1:/x", "port"},
        {"sftp://[::1/x", "]"},
        {"sftp://[::1]22/x", "port"},
        {"sftp://w1/a/../b", ".."},
        {"sftp://w1/./b", ".."},
        {"sftp://w1/a%2e%2e/%2e%2e/b", ".."},
        {"sftp://w1/a%00b", "path"},
        {"sftp://w1/a%0", "path"},
        {"sftp://w1/a%zz", "path"},
        {"file://host/x", "three slashes"},
        {"file:///", "root"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct url u;
        struct err e = ERR_INIT;
        if (url_parse(bad[i][0], &u, &e) != ERR_CONFIG)
            fail_msg("accepted: %s", bad[i][0]);
        if (!strstr(e.message, bad[i][1]))
            fail_msg("%s: %s", bad[i][0], e.message);
        assert_true(e.hint[0]);
    }
}

static void long_parts_are_refused(void **state)
{
    (void)state;
    char text[2048], part[1500];
    struct url u;
    memset(part, 'a', sizeof part);
    for (size_t i = 200; i < sizeof part; i += 200)
        part[i] = '/';
    part[sizeof part - 1] = '\0';
    snprintf(text, sizeof text, "sftp://w1/%s", part);
    assert_int_equal(url_parse(text, &u, NULL), ERR_CONFIG);
    text[10 + 1000] = '\0';
    assert_int_equal(url_parse(text, &u, NULL), 0);
    memset(part, 'a', 300);
    part[300] = '\0';
    snprintf(text, sizeof text, "sftp://%s/x", part);
    assert_int_equal(url_parse(text, &u, NULL), ERR_CONFIG);
    snprintf(text, sizeof text, "sftp://w1/%s", part);
    assert_int_equal(url_parse(text, &u, NULL), ERR_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_are_taken_apart),
        cmocka_unit_test(bad_urls_say_why),
        cmocka_unit_test(long_parts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
