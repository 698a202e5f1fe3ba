/* A block of SQLite pages as columns, and back (FORMAT.md 2.5). Leaf pages of tables and indexes
 * are taken apart into their rows, and the rows into columns, so that like stands beside like: zstd
 * makes half of it, or a quarter. What does not parse as a row stays as it lies, so that every
 * block comes back bit for bit, whatever is in it.
 *
 * One thread at a time for each struct columns; no I/O, no allocation but in columns_new. */
#ifndef SYNCD_SNAPSHOT_COLUMNS_H
#define SYNCD_SNAPSHOT_COLUMNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Working memory: 0.9 MiB, of which blocks of 4 KiB pages touch 0.6 MiB when they are taken apart,
 * and 0.02 MiB when they are put together. */
struct columns;
struct columns *columns_new(void); /* NULL: out of memory */
void columns_free(struct columns *c);

/* Takes `count` pages of 1 << page_shift bytes (9 to 16; at most PART_BLOCK_MAX bytes in all)
 * apart. Answers with the length of *ret, at most PART_BLOCK_MAX, which lies in c until the next
 * call; or with 0, *ret being as it was, when it is not worth it: less than half of the block was
 * rows, or nothing is saved. What it answers with was put together again and compared: a fault in
 * this module may cost bytes, but no row. */
size_t columns_split(struct columns *c, const uint8_t *raw, uint8_t page_shift, uint32_t count,
                     const uint8_t **ret);

/* Puts count pages together from n bytes of columns. False when those are malformed, which is found
 * out without reading or writing out of bounds; `raw` holds garbage then. */
bool columns_join(struct columns *c, const uint8_t *from, size_t n, uint8_t page_shift,
                  uint32_t count, uint8_t *raw);

#endif
