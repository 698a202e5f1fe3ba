#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/mem.h"
#include "syncd/show.h"

static void sizes(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        {0, "0 B"},
        {999, "999 B"},
        {1000, "1.0 KiB"},
        {1024, "1.0 KiB"},
        {1229, "1.2 KiB"},
        {10188, "9.9 KiB"},
        {10240, "10 KiB"},
        {1023488, "1.0 MiB"}, /* 999.5 KiB: never four digits */
        {1023400, "999 KiB"},
        {550502400, "525 MiB"},
        {UINT64_C(7516192768), "7.0 GiB"},
        {UINT64_MAX, "16 EiB"},
    };
    char text[SHOW_SIZE];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        show_size(cases[i].bytes, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void durations(void **state)
{
    (void)state;
    static const struct {
        double seconds;
        const char *text;
    } cases[] = {
        {-1, "0 s"},
        {0, "0 s"},
        {0.234, "0.2 s"},
        {9.94, "9.9 s"},
        {9.96, "10 s"},
        {59.4, "59 s"},
        {59.6, "1 min"},
        {200, "3 min 20 s"},
        {3600, "1 h"},
        {7500, "2 h 5 min"},
        {3 * 86400 + 4 * 3600, "3 d 4 h"},
        {30 * 86400, "30 d"},
    };
    char text[SHOW_SIZE];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        show_duration((int64_t)(cases[i].seconds * US_PER_S), text);
        assert_string_equal(text, cases[i].text);
    }
    show_duration(INT64_MAX, text);
    assert_true(strlen(text) < SHOW_SIZE);
}

static void ages(void **state)
{
    (void)state;
    static const struct {
        int64_t seconds;
        const char *text;
    } cases[] = {
        {0, "now"},
        {-4, "now"},
        {30, "30 seconds ago"},
        {119, "119 seconds ago"},
        {120, "2 minutes ago"},
        {200, "3 minutes ago"},
        {7199, "119 minutes ago"},
        {7200, "2 hours ago"},
        {3 * 86400, "3 days ago"},
        {15 * 86400, "2 weeks ago"},
        {-300, "in 5 minutes"},
    };
    char text[SHOW_SIZE];
    int64_t now_us = INT64_C(1700000000) * US_PER_S;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        show_age(now_us - cases[i].seconds * US_PER_S, now_us, text);
        assert_string_equal(text, cases[i].text);
    }
    show_age(0, now_us, text);
    assert_string_equal(text, "never");
}

static const char *safe(const char *s)
{
    static char text[128];
    OWN_BUF struct buf b = BUF_INIT;
    show_safe(s, &b);
    show_safe_into(s, text, sizeof text);
    assert_string_equal(buf_cstr(&b), text);
    return text;
}

static void nothing_drives_the_terminal(void **state)
{
    (void)state;
    assert_string_equal(safe("plain \\x41 text"), "plain \\x41 text");
    assert_string_equal(safe("Grün 水 😀"), "Grün 水 😀");
    assert_string_equal(safe("\033[2J"), "\\x1b[2J");
    assert_string_equal(safe("a\nb\rc\td\177"), "a\\x0ab\\x0dc\\x09d\\x7f");
    assert_string_equal(safe("\xc2\x9b"
                             "31m"),
                        "\\xc2\\x9b31m"); /* CSI as one character */
    assert_string_equal(safe("\x9b"), "\\x9b");
    assert_string_equal(safe("\xe2\x80\xae"
                             "txt"),
                        "\\xe2\\x80\\xaetxt"); /* turns the text round */
    assert_string_equal(safe("\xe2\x80\xa8"), "\\xe2\\x80\\xa8");
    assert_string_equal(safe("\xc3"), "\\xc3");                            /* cut */
    assert_string_equal(safe("\xc0\xaf"), "\\xc0\\xaf");                   /* overlong */
    assert_string_equal(safe("\xe0\x80\xaf"), "\\xe0\\x80\\xaf");          /* overlong */
    assert_string_equal(safe("\xed\xa0\x80"), "\\xed\\xa0\\x80");          /* surrogate */
    assert_string_equal(safe("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80"); /* past the end */
    assert_string_equal(safe("\xf5\x80\x80\x80"), "\\xf5\\x80\\x80\\x80");
}

static void a_small_buffer_cuts_between_characters(void **state)
{
    (void)state;
    char text[8];
    assert_string_equal(show_safe_into("abcdefghij", text, 4), "abc");
    assert_string_equal(show_safe_into("aüü", text, 5), "aü");
    assert_string_equal(show_safe_into("aüü", text, 4), "aü");
    assert_string_equal(show_safe_into("aüü", text, 3), "a");
    assert_string_equal(show_safe_into("\033\033", text, 8), "\\x1b");
    assert_string_equal(show_safe_into("a", text, 1), "");
}

static void widths(void **state)
{
    (void)state;
    assert_int_equal(show_width("abc"), 3);
    assert_int_equal(show_width("grün"), 4);
    if (setlocale(LC_CTYPE, "C.UTF-8"))
        assert_int_equal(show_width("水"), 2);
    setlocale(LC_CTYPE, "C");
    assert_int_equal(show_width("grün"), 4);
}

static void a_table_is_aligned(void **state)
{
    (void)state;
    static const char *const titles[] = {"NAME", ">SIZE", "STATE", NULL};
    struct table *t = table_new(titles);
    static const char *const cells[] = {"grün", "5 B", "fresh", "b", "1024 MiB",
                                        NULL,   "c\n", "",      ""};
    for (size_t i = 0; i < ARRAY_LEN(cells); i++)
        table_add(t, cells[i]);
    OWN_BUF struct buf b = BUF_INIT;
    table_print(t, &b);
    table_free(t);
    assert_string_equal(buf_cstr(&b), "NAME       SIZE  STATE\n"
                                      "grün        5 B  fresh\n"
                                      "b      1024 MiB  -\n"
                                      "c\\x0a\n");
}

static void a_table_without_rows_is_its_titles(void **state)
{
    (void)state;
    static const char *const titles[] = {"ONE", "TWO", NULL};
    struct table *t = table_new(titles);
    OWN_BUF struct buf b = BUF_INIT;
    table_print(t, &b);
    table_free(t);
    assert_string_equal(buf_cstr(&b), "ONE  TWO\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(durations),
        cmocka_unit_test(ages),
        cmocka_unit_test(nothing_drives_the_terminal),
        cmocka_unit_test(a_small_buffer_cuts_between_characters),
        cmocka_unit_test(widths),
        cmocka_unit_test(a_table_is_aligned),
        cmocka_unit_test(a_table_without_rows_is_its_titles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
