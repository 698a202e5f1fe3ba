/* Which parts are ordinary history under a ruler, and the leader's own record of an epoch. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "snapshot/repository.h"
#include "syncd/base/err.h"

static const struct epoch ruler = {
    .number = 5, .token = {1, 2, 3}, .source_count = 2, .sources = {{"db", 3, 40}, {"lab", 1, 7}}};

static bool has(const char *source, uint32_t epoch, uint64_t sequence)
{
    struct part_ref ref = {.epoch = epoch, .sequence = sequence};
    return epoch_has(&ruler, source, &ref);
}

static void test_history(void **state)
{
    (void)state;
    struct part_ref any = {.epoch = 1, .sequence = 1};
    assert_true(has("db", 5, 1));
    assert_true(has("new", 5, 1));
    assert_true(has("db", 3, 40));
    assert_false(has("db", 3, 41));
    assert_true(has("db", 2, 1000));
    assert_false(has("db", 4, 1));
    assert_true(has("lab", 1, 7));
    assert_false(has("lab", 1, 8));
    assert_false(has("lab", 3, 1));
    assert_false(has("new", 1, 1));
    assert_true(epoch_has(NULL, "db", &any));
    assert_true(epoch_has(&(struct epoch){0}, "db", &any));
}

static void test_record(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    OWN_BUF struct buf text = BUF_INIT;
    struct epoch back;
    assert_int_equal(epoch_encode(&ruler, &text, &e), 0);
    assert_int_equal(epoch_decode(text.data, text.len, "here", &back, &e), 0);
    assert_int_equal(back.number, ruler.number);
    assert_memory_equal(back.token, ruler.token, TOKEN_SIZE);
    assert_int_equal(back.source_count, 2);
    assert_string_equal(back.sources[1].name, "lab");
    assert_int_equal(back.sources[0].sequence, 40);
    for (size_t n = 0; n + 2 < text.len; n++) /* the last bytes: "}\n" */
        assert_int_equal(epoch_decode(text.data, n, "here", &back, &e), ERR_DAMAGED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_history),
        cmocka_unit_test(test_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
