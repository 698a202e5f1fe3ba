/* For tests of the bolt library: a database in memory, and its contents in the text form of
 * tests/integration/bolt_writer, whose `stats` and `dump` are bbolt's own view of the same file. */
#ifndef SYNCD_TESTS_BOLT_HELPERS_H
#define SYNCD_TESTS_BOLT_HELPERS_H

#include <stddef.h>
#include <stdint.h>

#include "snapshot/bolt_file.h"

struct buf;
struct err;

struct bolt_memory {
    const uint8_t *data;
    size_t size;
    uint64_t bytes_read; /* so far; shows a loop */
};

struct bolt_input bolt_memory_input(struct bolt_memory *m);

/* Newest meta, walk, stats as `bolt_writer stats` and items as `bolt_writer dump` print them, into
 * *ret (NULL: read all the same, but keep nothing). */
int bolt_describe(struct bolt_reader *r, struct bolt_walked *ret_walked, struct buf *ret,
                  struct err *e);

/* Does with hostile bytes all that the library can do, also where the walk has refused them.
 * Returns what the walk (or the opening) said. */
int bolt_exercise(struct bolt_memory *m);

/* Gives the meta in `slot` a right checksum again. */
void bolt_seal_meta(uint8_t *data, uint32_t page_size, unsigned slot);

#endif
