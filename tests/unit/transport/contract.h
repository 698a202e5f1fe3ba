/* What every store promises (transport/store.h), as one table of tests that each back end's test
 * program runs over its own stores. */
#ifndef SYNCD_TEST_CONTRACT_H
#define SYNCD_TEST_CONTRACT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct store;

/* The state of each test; `store` is open on an empty, existing root. */
struct contract {
    struct store *store;
    char root[256];         /* the same folder, seen on this machine */
    int64_t mtime_grain_us; /* how exactly the back end keeps a time */
    bool lenient;           /* a front for object stores: makes parents by itself, keeps no modes,
 sets the time of what is not there */
};

#define CONTRACT_TESTS(SETUP, TEARDOWN)                                                            \
    cmocka_unit_test_setup_teardown(contract_publish, SETUP, TEARDOWN),                            \
        cmocka_unit_test_setup_teardown(contract_names_are_write_once, SETUP, TEARDOWN),           \
        cmocka_unit_test_setup_teardown(contract_read_anywhere, SETUP, TEARDOWN),                  \
        cmocka_unit_test_setup_teardown(contract_write_sizes, SETUP, TEARDOWN),                    \
        cmocka_unit_test_setup_teardown(contract_listing, SETUP, TEARDOWN),                        \
        cmocka_unit_test_setup_teardown(contract_missing_things, SETUP, TEARDOWN),                 \
        cmocka_unit_test_setup_teardown(contract_paths_stay_inside, SETUP, TEARDOWN),              \
        cmocka_unit_test_setup_teardown(contract_whole_files, SETUP, TEARDOWN),                    \
        cmocka_unit_test_setup_teardown(contract_modes, SETUP, TEARDOWN),                          \
        cmocka_unit_test_setup_teardown(contract_space_and_root, SETUP, TEARDOWN),                 \
        cmocka_unit_test_setup_teardown(contract_two_files_at_once, SETUP, TEARDOWN)

void contract_publish(void **state);
void contract_names_are_write_once(void **state);
void contract_read_anywhere(void **state);
void contract_write_sizes(void **state);
void contract_listing(void **state);
void contract_missing_things(void **state);
void contract_paths_stay_inside(void **state);
void contract_whole_files(void **state);
void contract_modes(void **state);
void contract_space_and_root(void **state);
void contract_two_files_at_once(void **state);

/* n bytes that differ from place to place, the same for the same seed. */
void contract_fill(uint8_t *p, size_t n, uint64_t seed);

#endif
