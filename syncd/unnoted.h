/* Parts that were published while the catalog could not be written to (its disk is full, or
 * read-only): kept in memory and beside the fingerprints until the catalog can take them, so that
 * the next run still knows them as its own and builds on them. Any thread may note one. */
#ifndef SYNCD_UNNOTED_H
#define SYNCD_UNNOTED_H

#include <stdbool.h>
#include <stddef.h>

struct catalog;
struct catalog_part;
struct err;
struct unnoted;

/* Reads what an earlier run left in `dir` and hands it to the catalog, as far as that takes it.
 * NULL: out of memory. */
struct unnoted *unnoted_open(const char *dir, struct catalog *c, const char *source);
void unnoted_close(struct unnoted *u); /* NULL is fine */

/* Notes a part in the catalog, else here. *e is the catalog's error (its code is returned), told
 * once: later ones of the same run answer 0. */
int unnoted_add(struct unnoted *u, const struct catalog_part *part, struct err *e);

/* Whether the part is here. */
bool unnoted_has(struct unnoted *u, const struct catalog_part *part);

#endif
