#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "conf/conf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

static void durations(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t seconds;
    } good[] = {{"0", 0},     {"0s", 0},      {"5s", 5},       {"15m", 900},
                {"1h", 3600}, {"7d", 604800}, {"2w", 1209600}, {"36500d", INT64_C(3153600000)}};
    static const char *const bad[] = {
        "",     "15",  "m",   "15 m",  " 15m", "15m ", "-1h",    "+1h",
        "1.5h", "15M", "15x", "1h30m", "015m", "1hh",  "36601d", "99999999999999999999s",
        "0x1h"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        int64_t s = -1;
        assert_int_equal(conf_parse_duration(good[i].text, &s, NULL), 0);
        assert_int_equal(s, good[i].seconds);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int64_t s = 77;
        if (conf_parse_duration(bad[i], &s, NULL) != ERR_CONFIG || s != 77)
            fail_msg("\"%s\" was read as %lld", bad[i], (long long)s);
    }
}

static void sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},
                {"500", 500},
                {"1K", 1024},
                {"64M", UINT64_C(64) << 20},
                {"2G", UINT64_C(2) << 30},
                {"3T", UINT64_C(3) << 40}};
    static const char *const bad[] = {"",     "M",   "64m",          "64MB",
                                      "64 M", "-1K", "1.5G",         "01K",
                                      "10%",  "1KK", "20000000000G", "99999999999999999999"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        uint64_t b = 77;
        assert_int_equal(conf_parse_size(good[i].text, &b, NULL), 0);
        assert_true(b == good[i].bytes);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint64_t b = 77;
        if (conf_parse_size(bad[i], &b, NULL) != ERR_CONFIG || b != 77)
            fail_msg("\"%s\" was read as %llu", bad[i], (unsigned long long)b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(durations), cmocka_unit_test(sizes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
