#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/report.h"

/* stdout and stderr of the code between begin and end, as files. */
static FILE *captured[2];
static int saved[2];

static void capture_begin(void)
{
    for (int i = 0; i < 2; i++) {
        FILE *stream = i ? stderr : stdout;
        fflush(stream);
        captured[i] = tmpfile();
        saved[i] = dup(i + 1);
        assert_true(dup2(fileno(captured[i]), i + 1) >= 0);
    }
}

static void capture_end(struct buf *out, struct buf *err)
{
    struct buf *const into[2] = {out, err};
    for (int i = 0; i < 2; i++) {
        fflush(i ? stderr : stdout);
        assert_true(dup2(saved[i], i + 1) >= 0);
        close(saved[i]);
        char text[4096];
        ssize_t n = pread(fileno(captured[i]), text, sizeof text, 0);
        assert_true(n >= 0);
        buf_put(into[i], text, (size_t)n);
        fclose(captured[i]);
        buf_cstr(into[i]);
    }
}

static void json_is_one_object_with_everything(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    err_set(&e, ERR_NO_SPACE, "worker1", "worker1 is full");
    err_hint(&e, "make room");
    OWN_BUF struct buf out = BUF_INIT, err = BUF_INIT;
    capture_begin();
    struct report *r = report_new("backup", REPORT_JSON);
    report_print(r, "not shown");
    report_say(r, "not shown");
    report_set(r, "sources", json_array());
    report_set(r, "taken_at", report_json_time(INT64_C(1700000000) * US_PER_S));
    report_set(r, "proven_at", report_json_time(0));
    report_set(r, "exit", json_string("a command cannot replace the frame's keys"));
    int code = report_error(r, &e);
    err_set(&e, ERR_IO, NULL, "and one more");
    report_warning(r, &e);
    assert_int_equal(report_error_count(r), 2);
    int exit_code = report_finish(r, 3);
    capture_end(&out, &err);
    report_free(r);
    assert_int_equal(code, EXIT_NOTHING);
    assert_int_equal(exit_code, 3);
    assert_int_equal(err.len, 0);
    assert_string_equal(
        buf_cstr(&out),
        "{\"syncd\":\"" SYNCD_VERSION "\",\"command\":\"backup\",\"exit\":3,\"errors\":["
        "{\"code\":\"no-space\",\"message\":\"worker1 is full\",\"object\":\"worker1\","
        "\"hint\":\"make room\"},"
        "{\"code\":\"io\",\"message\":\"and one more\",\"object\":null,\"hint\":null}],"
        "\"sources\":[],\"taken_at\":\"2023-11-14T22:13:20Z\",\"proven_at\":null}\n");
}

static void text_goes_out_and_errors_to_stderr(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    err_set(&e, ERR_USAGE, NULL, "name \xc2\x9bX");
    OWN_BUF struct buf out = BUF_INIT, err = BUF_INIT;
    capture_begin();
    struct report *r = report_new("backup", REPORT_TEXT);
    report_print(r, "%d prints\n", 1);
    report_say(r, "says\n");
    int code = report_finish(r, report_error(r, &e));
    report_free(r);
    capture_end(&out, &err);
    assert_int_equal(code, EXIT_USAGE);
    assert_string_equal(buf_cstr(&out), "1 prints\nsays\n");
    assert_non_null(strstr(buf_cstr(&err), "name \\xc2\\x9bX\n"));
}

static void quiet_hides_the_talk_only(void **state)
{
    (void)state;
    OWN_BUF struct buf out = BUF_INIT, err = BUF_INIT;
    capture_begin();
    struct report *r = report_new("status", REPORT_QUIET);
    report_print(r, "prints\n");
    report_say(r, "says\n");
    report_finish(r, 0);
    report_free(r);
    capture_end(&out, &err);
    assert_string_equal(buf_cstr(&out), "prints\n");
}

static void stdout_that_cannot_be_written_is_a_failure(void **state)
{
    (void)state;
    int full = io_open("/dev/full", 1 /* O_WRONLY */, 0);
    assert_true(full >= 0);
    fflush(stdout);
    int before = dup(1), quiet = io_open("/dev/null", 1, 0), before_err = dup(2);
    assert_true(dup2(full, 1) >= 0 && dup2(quiet, 2) >= 0);
    struct report *r = report_new("status", REPORT_JSON);
    int code = report_finish(r, 0);
    report_free(r);
    clearerr(stdout);
    dup2(before, 1);
    dup2(before_err, 2);
    close(before);
    close(before_err);
    close(full);
    close(quiet);
    assert_int_equal(code, EXIT_NOTHING);
}

static void assert_text(const char *bytes, const char *json)
{
    json_t *value = report_json_text(bytes);
    assert_string_equal(json_string_value(value), json);
    json_decref(value);
}

static void bytes_are_escaped_without_loss(void **state)
{
    (void)state;
    assert_text("plain Grün\n", "plain Grün\n");
    assert_text("C:\\dir\\x", "C:\\dir\\x");
    assert_text("\xff/\xc3", "\\xff/\\xc3");
    assert_text("\\xff", "\\x5cxff");     /* the four characters, not the byte */
    assert_text("\\\xff", "\\\\xff");     /* a backslash, then the byte */
    assert_text("\\x4\xff", "\\x4\\xff"); /* no escape before it */
    assert_text("\xed\xa0\x80", "\\xed\\xa0\\x80");
    assert_text("", "");
    json_t *null = report_json_text(NULL);
    assert_true(json_is_null(null));
}

/* Any bytes at all: the rule of the header gives them back, and jansson takes the text. */
static void random_bytes_come_back(void **state)
{
    (void)state;
    unsigned seed = 7;
    for (int round = 0; round < 20000; round++) {
        static const char alphabet[] = "\\xX5cCfF0\xff\xc3\xbc\xe2\x82\xac";
        char bytes[13] = "", back[64];
        size_t len = (size_t)rand_r(&seed) % 12, n = 0;
        for (size_t i = 0; i < len; i++)
            bytes[i] = alphabet[(size_t)rand_r(&seed) % (sizeof alphabet - 1)];
        json_t *value = report_json_text(bytes);
        assert_non_null(value);
        for (const char *s = json_string_value(value); *s;) {
            uint8_t byte;
            char digits[3] = {0};
            if (s[0] == '\\' && s[1] == 'x' && s[2] && s[3])
                memcpy(digits, s + 2, 2);
            bool escaped = digits[0] && strspn(digits, "0123456789abcdefABCDEF") == 2;
            byte = escaped ? (uint8_t)strtoul(digits, NULL, 16) : (uint8_t)*s;
            back[n++] = (char)byte;
            s += escaped ? 4 : 1;
        }
        back[n] = '\0';
        json_decref(value);
        assert_string_equal(back, bytes);
    }
}

static void exit_codes_follow_errors(void **state)
{
    (void)state;
    assert_int_equal(exit_code_of(0), 0);
    assert_int_equal(exit_code_of(ERR_USAGE), 2);
    assert_int_equal(exit_code_of(ERR_CONFIG), 2);
    assert_int_equal(exit_code_of(ERR_IO), 1);
    assert_int_equal(exit_code_of(ERR_REFUSED), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_is_one_object_with_everything),
        cmocka_unit_test(text_goes_out_and_errors_to_stderr),
        cmocka_unit_test(quiet_hides_the_talk_only),
        cmocka_unit_test(stdout_that_cannot_be_written_is_a_failure),
        cmocka_unit_test(bytes_are_escaped_without_loss),
        cmocka_unit_test(random_bytes_come_back),
        cmocka_unit_test(exit_codes_follow_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
