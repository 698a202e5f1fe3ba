/* Any bytes as a part's metadata: an error, or blocks that can be walked within their limits. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/part.h"
#include "syncd/base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(const struct part_meta *m)
{
    uint64_t pages = 0, chunks = 0;
    for (size_t i = 0; i < m->block_count; i++) {
        struct block_walk w = block_walk_begin(&m->blocks[i]);
        uint32_t seen = 0, end = 0;
        while (block_walk_next(&w)) {
            end = w.raw_offset + w.raw_bytes;
            seen++;
        }
        if (seen != m->blocks[i].count || end != m->blocks[i].raw_bytes || end > PART_BLOCK_MAX)
            abort();
        *(m->blocks[i].kind == BLOCK_PAGES ? &pages : &chunks) += seen;
    }
    if (pages != m->page_total || chunks != m->chunk_total)
        abort();
}

/* `file_bytes` must fit the blocks; the message of a first try says what would. */
static uint64_t fitting_size(const uint8_t *data, size_t size)
{
    struct buf raw = BUF_INIT;
    struct part_meta *m = NULL;
    struct err e = ERR_INIT;
    uint64_t bytes = 0;
    buf_put(&raw, data, size);
    if (part_meta_decode(&raw, 0, "part", &m, &e) == 0)
        abort(); /* no part is 0 bytes long */
    const char *says = strstr(e.message, "it should be ");
    if (says)
        sscanf(says, "it should be %" SCNu64, &bytes);
    return bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* The header is not what is looked for: a right one goes before the bytes. */
    uint8_t whole[PART_HEADER_SIZE + 65536];
    struct part_header header = {
        .epoch = 2, .sequence = 77, .time_us = 1700000000000000, .source = "s"};
    struct buf raw = BUF_INIT;
    struct part_meta *m = NULL;
    struct err e = ERR_INIT;
    if (size > 65536)
        return 0;
    part_header_encode(&header, whole);
    if (size)
        memcpy(whole + PART_HEADER_SIZE, data, size);
    uint64_t bytes = fitting_size(whole, PART_HEADER_SIZE + size);
    buf_put(&raw, whole, PART_HEADER_SIZE + size);
    if (part_meta_decode(&raw, bytes, "part", &m, &e) == 0)
        walk(m);
    part_meta_free(m);
    return 0;
}
