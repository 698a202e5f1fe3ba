/* Any bytes as a block of pages, which must come back as they are; and any bytes as columns, which
 * must be refused or give pages, within bounds. The first byte says which, and the size of the
 * pages. */
#include <stdlib.h>
#include <string.h>

#include "snapshot/columns.h"
#include "snapshot/part.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct columns *memory[2];
static uint8_t pages[PART_BLOCK_MAX], back[PART_BLOCK_MAX];

static void there_and_back(const uint8_t *data, size_t size, uint8_t shift)
{
    const uint8_t *columns;
    uint32_t count = (uint32_t)((size + (1u << shift) - 1) >> shift);
    size_t raw_bytes = (size_t)count << shift;
    if (count == 0 || raw_bytes > PART_BLOCK_MAX)
        return;
    memset(pages, 0, raw_bytes);
    memcpy(pages, data, size);
    size_t n = columns_split(memory[0], pages, shift, count, &columns);
    if (n > PART_BLOCK_MAX || (n && (!columns_join(memory[1], columns, n, shift, count, back) ||
                                     memcmp(back, pages, raw_bytes) != 0)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > PART_BLOCK_MAX)
        return 0;
    for (int i = 0; i < 2; i++)
        if (!memory[i] && !(memory[i] = columns_new()))
            return 0;
    uint8_t shift = (uint8_t)(9 + (data[0] & 7));
    if (data[0] & 8) {
        uint32_t most = PART_BLOCK_MAX >> shift, count = data[1] + 1u;
        columns_join(memory[1], data + 2, size - 2, shift, count < most ? count : most, back);
    } else {
        there_and_back(data + 1, size - 1, shift);
    }
    return 0;
}
