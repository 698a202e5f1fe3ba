#include "snapshot/leveldb.h"

#include <string.h>

#include "snapshot/entry.h"

bool leveldb_is_labelled(const struct entry *n)
{
    return n->type == ENTRY_DIR && n->details.len == strlen(LEVELDB_LABEL) &&
           memcmp(n->details.data, LEVELDB_LABEL, n->details.len) == 0;
}

/* Decimal digits, then exactly `end`. */
static bool is_number(const char *s, const char *end)
{
    size_t n = strspn(s, "0123456789");
    return n > 0 && n <= 20 && strcmp(s + n, end) == 0;
}

enum leveldb_part leveldb_part_of(const char *name)
{
    if (strcmp(name, "CURRENT") == 0)
        return LEVELDB_CURRENT;
    if (strncmp(name, "MANIFEST-", 9) == 0)
        return is_number(name + 9, "") ? LEVELDB_MANIFEST : LEVELDB_NONE;
    if (is_number(name, ".ldb") || is_number(name, ".sst"))
        return LEVELDB_TABLE;
    return is_number(name, ".log") ? LEVELDB_LOG : LEVELDB_NONE;
}
