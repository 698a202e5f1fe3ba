/* A fuzz entry for the bolt library, seeded with tests/unit/snapshot/fixtures:
 * its corpus is a link to them.
 *
 * The metas get right checksums before use, or hardly any change would reach the tree. */
#include <stdlib.h>
#include <string.h>

#include "syncd/base/mem.h"
#include "tests/unit/snapshot/bolt_helpers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    OWN_MEM uint8_t *copy = malloc(size + 1);
    if (!copy)
        return 0;
    if (size)
        memcpy(copy, data, size);
    if (size >= 2048) {
        bolt_seal_meta(copy, 1024, 0);
        bolt_seal_meta(copy, 1024, 1);
    }
    struct bolt_memory m = {.data = copy, .size = size};
    bolt_exercise(&m);
    return 0;
}
