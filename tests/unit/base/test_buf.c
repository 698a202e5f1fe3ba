#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "syncd/base/buf.h"

static void numbers_come_back(void **state)
{
    (void)state;
    static const uint64_t values[] = {0, 1, 127, 128, 16383, 16384, UINT32_MAX, UINT64_MAX};
    OWN_BUF struct buf b = BUF_INIT;
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        buf_put_varint(&b, values[i]);
        buf_put_zigzag(&b, (int64_t)values[i]);
        buf_put_u64(&b, values[i]);
        buf_put_u32(&b, (uint32_t)values[i]);
    }
    struct cursor c = cursor_of(b.data, b.len);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        assert_true(cursor_varint(&c) == values[i]);
        assert_true(cursor_zigzag(&c) == (int64_t)values[i]);
        assert_true(cursor_u64(&c) == values[i]);
        assert_true(cursor_u32(&c) == (uint32_t)values[i]);
    }
    assert_false(c.bad);
    assert_int_equal(cursor_left(&c), 0);
    cursor_u8(&c);
    assert_true(c.bad);
}

static void malformed_varints_are_refused(void **state)
{
    (void)state;
    static const uint8_t overlong[] = {0x80, 0x00};
    static const uint8_t overflow[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02};
    static const uint8_t cut[] = {0x80};
    struct cursor c = cursor_of(overlong, sizeof overlong);
    cursor_varint(&c);
    assert_true(c.bad);
    c = cursor_of(overflow, sizeof overflow);
    cursor_varint(&c);
    assert_true(c.bad);
    c = cursor_of(cut, sizeof cut);
    cursor_varint(&c);
    assert_true(c.bad);
}

static void hex_is_strict(void **state)
{
    (void)state;
    uint8_t out[2];
    char text[5];
    assert_true(hex_decode("00ff", out, 2));
    hex_encode(out, 2, text);
    assert_string_equal(text, "00ff");
    assert_false(hex_decode("00FF", out, 2));
    assert_false(hex_decode("00f", out, 2));
    assert_false(hex_decode("00ff0", out, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_come_back),
        cmocka_unit_test(malformed_varints_are_refused),
        cmocka_unit_test(hex_is_strict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
