/* Reads PostgreSQL's custom archive (pg_dump -Fc -Z0) as it flows by: which items it has, and how
 * many rows of which table. The stream itself is not changed. Versions 1.12 to 1.16 of the format
 * (PostgreSQL 9.0 to 18). No I/O. */
#ifndef SYNCD_SNAPSHOT_DUMP_ARCHIVE_H
#define SYNCD_SNAPSHOT_DUMP_ARCHIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DUMP_HEAD_MAX                                                                              \
    (16u << 20) /* of the head, or of one item: a longer one is not understood                     \
                 */

struct err;
struct dump_archive;

/* An item of the table of contents; texts that it lacks are "". Valid during the call. */
struct dump_item {
    int32_t id;
    bool has_data;
    const char *tag, *kind, *schema, *owner; /* kind: "TABLE", "TABLE DATA", ... */
    const uint8_t *raw;                      /* as in the archive */
    size_t raw_len;
};

/* What is told; each may be NULL. An answer other than 0 ends the reading. */
struct dump_events {
    /* What is before the items; the last 1 + int_size bytes of it are their number. */
    int (*head)(void *arg, const uint8_t *p, size_t n, unsigned int_size, struct err *e);
    int (*item)(void *arg, const struct dump_item *item, struct err *e);
    /* Bytes of an item's data, with the block's own head and lengths. */
    int (*data)(void *arg, int32_t id, const uint8_t *p, size_t n, struct err *e);
    /* An item's data is over; rows of a table, else 0. */
    int (*end)(void *arg, int32_t id, uint64_t rows, struct err *e);
    void *arg;
};

/* The caller frees; NULL when out of memory. */
struct dump_archive *dump_archive_new(const struct dump_events *events);
void dump_archive_free(struct dump_archive *a); /* NULL is fine */

/* The next bytes. ERR_VERSION: a format that is not known; ERR_DAMAGED; the events' errors. After
 * an error nothing more may be fed. */
int dump_archive_feed(struct dump_archive *a, const void *p, size_t n, struct err *e);

/* ERR_DAMAGED when the stream ended in the middle of something. */
int dump_archive_end(const struct dump_archive *a, struct err *e);

#endif
