/* Which files of a folder LevelDB's state lies in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "snapshot/entry.h"
#include "snapshot/leveldb.h"
#include "syncd/base/mem.h"

static void parts_by_their_names(void **state)
{
    static const struct {
        const char *name;
        enum leveldb_part part;
    } names[] = {
        {"CURRENT", LEVELDB_CURRENT},
        {"CURRENT.bak", LEVELDB_NONE},
        {"MANIFEST-000004", LEVELDB_MANIFEST},
        {"MANIFEST-", LEVELDB_NONE},
        {"MANIFEST-4.old", LEVELDB_NONE},
        {"000005.ldb", LEVELDB_TABLE},
        {"1.sst", LEVELDB_TABLE},
        {"000006.log", LEVELDB_LOG},
        {"12345678901234567890.log", LEVELDB_LOG},
        {"123456789012345678901.log", LEVELDB_NONE},
        {"000006.log.1", LEVELDB_NONE},
        {".log", LEVELDB_NONE},
        {"x6.log", LEVELDB_NONE},
        {"-6.ldb", LEVELDB_NONE},
        {"LOG", LEVELDB_NONE},
        {"LOCK", LEVELDB_NONE},
        {"000007.dbtmp", LEVELDB_NONE},
        {"", LEVELDB_NONE},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (leveldb_part_of(names[i].name) != names[i].part)
            fail_msg("%s is %d", names[i].name, leveldb_part_of(names[i].name));
}

static void only_a_folder_is_labelled(void **state)
{
    uint8_t label[] = LEVELDB_LABEL;
    struct entry n = {.type = ENTRY_DIR};
    (void)state;
    assert_false(leveldb_is_labelled(&n));
    n.details = (struct entry_bytes){.data = label, .len = sizeof label - 1};
    assert_true(leveldb_is_labelled(&n));
    n.details.len--;
    assert_false(leveldb_is_labelled(&n));
    n.details.len++;
    n.type = ENTRY_DUMP;
    assert_false(leveldb_is_labelled(&n));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_by_their_names),
        cmocka_unit_test(only_a_folder_is_labelled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
