/* Changed pages of a hold that must wait for nothing: kept aside until the source is let go, in a
 * temporary file in memory, and shipped then. Bounded: what does not fit ends the hold. */
#ifndef SYNCD_SNAPSHOT_HELD_PAGES_H
#define SYNCD_SNAPSHOT_HELD_PAGES_H

#include <stddef.h>
#include <stdint.h>

struct err;
struct held_pages;
struct pipeline;

#define HELD_PAGES_MAX (8u << 20) /* bytes */

int held_pages_new(uint64_t image, uint8_t page_shift, struct held_pages **ret, struct err *e);
void held_pages_free(struct held_pages *h); /* NULL is fine */

/* ERR_BUSY: full, and the page was not taken. */
int held_pages_add(struct held_pages *h, uint64_t page, uint64_t fingerprint, const void *data,
                   struct err *e);

/* Bytes of the pages that are kept now. */
uint64_t held_pages_bytes(const struct held_pages *h);

/* Hands all of them to the pipeline, and is empty then. Blocks as pipeline_page does. */
int held_pages_ship(struct held_pages *h, struct pipeline *to, struct err *e);

#endif
