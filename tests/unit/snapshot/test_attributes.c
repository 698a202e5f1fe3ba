/* Signatures: what holds, what does not, and since when something is missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/attributes.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"

static struct stat a_file(int64_t age_s)
{
    struct stat st = {.st_mode = S_IFREG | 0644, .st_ino = 12, .st_size = 34, .st_nlink = 1};
    st.st_mtim.tv_sec = st.st_ctim.tv_sec = (time_t)(clock_now_us() / US_PER_S - age_s);
    return st;
}

static struct entry_bytes signature_of(const struct stat *st)
{
    struct err e = ERR_INIT;
    struct entry_bytes ret = {0};
    assert_int_equal(signature_make(st, &ret, &e), 0);
    return ret;
}

static void any_difference_counts(void **state)
{
    (void)state;
    struct stat st = a_file(100);
    struct entry_bytes then = signature_of(&st);
    assert_true(signature_holds(&then, &st));
    struct stat others[] = {st, st, st, st, st, st};
    others[0].st_ino++;
    others[1].st_size++;
    others[2].st_mtim.tv_nsec++;
    others[3].st_ctim.tv_nsec++;
    others[4].st_nlink = 2;
    others[5].st_mtim.tv_sec--;
    for (size_t i = 0; i < 6; i++)
        assert_false(signature_holds(&then, &others[i]));
    struct entry_bytes same = signature_of(&st), other = signature_of(&others[0]);
    assert_true(signature_same(&then, &same));
    assert_false(signature_same(&then, &other));
    assert_false(signature_linked(&then));
    struct entry_bytes linked = signature_of(&others[4]);
    assert_true(signature_linked(&linked));
    free(then.data);
    free(same.data);
    free(other.data);
    free(linked.data);
}

static void what_is_young_never_holds(void **state)
{
    (void)state;
    struct stat st = a_file(1);
    struct entry_bytes then = signature_of(&st), again = signature_of(&st);
    assert_false(signature_holds(&then, &st));
    assert_false(signature_same(&then, &again));
    free(then.data);
    free(again.data);
    struct entry_bytes none = {0};
    assert_false(signature_same(&none, &none));
}

static void since_when_it_is_missing(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct stat st = a_file(100);
    struct entry_bytes s = signature_of(&st);
    assert_int_equal(signature_missing_since(&s), 0);
    assert_int_equal(signature_set_missing(&s, 123456789, &e), 0);
    assert_int_equal(signature_set_missing(&s, 987654321, &e), 0);
    assert_int_equal(signature_missing_since(&s), 987654321);
    assert_true(signature_holds(&s, &st));
    signature_clear_missing(&s);
    assert_int_equal(signature_missing_since(&s), 0);
    assert_true(signature_holds(&s, &st));
    free(s.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_difference_counts),
        cmocka_unit_test(what_is_young_never_holds),
        cmocka_unit_test(since_when_it_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
