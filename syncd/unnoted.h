/* Parts that were published and are not yet in the catalog: kept in memory and in a file beside the
 * fingerprints, so that the next run still knows them as its own and builds on them. The catalog
 * gets them together with the snapshot's, or after a minute, so that a long run costs the card few
 * writes; a power cut loses what it shipped in that minute. Where the catalog cannot be written to
 * (its disk is full, or read-only), they wait here. Any thread may note one. */
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
/* Hands what is left to the catalog. NULL is fine. */
void unnoted_close(struct unnoted *u);

/* Notes a part here, and where it is time for that in the catalog; one that is a snapshot at once.
 * *e is the catalog's error (its code is returned), told once: later ones of the same run answer 0.
 */
int unnoted_add(struct unnoted *u, const struct catalog_part *part, struct err *e);

/* Whether the part is here. */
bool unnoted_has(struct unnoted *u, const struct catalog_part *part);

#endif
