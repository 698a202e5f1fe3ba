/* What pg_dump's archive holds, read as it flows by: rows per table, owners, schemas. */
#ifndef SYNCD_SNAPSHOT_DUMP_SUMMARY_H
#define SYNCD_SNAPSHOT_DUMP_SUMMARY_H

#include <jansson.h>
#include <stddef.h>

struct dump_summary;
struct err;

/* The caller frees; NULL when out of memory. */
struct dump_summary *dump_summary_new(void);
void dump_summary_free(struct dump_summary *s); /* NULL is fine */

/* The next bytes of the stream. What is wrong with them is told at the end. */
void dump_summary_feed(struct dump_summary *s, const void *p, size_t n);

/* 0 when the whole archive has passed by. ERR_VERSION: its format is not known, so nothing is known
 * of it; ERR_DAMAGED. */
int dump_summary_end(const struct dump_summary *s, struct err *e);

/* {"schema": {"table": rows}}, ["role", ...], ["schema", ...]; all stay the summary's. Names that
 * are no UTF-8 are left out. */
json_t *dump_summary_rows(const struct dump_summary *s);
json_t *dump_summary_owners(const struct dump_summary *s);
json_t *dump_summary_schemas(const struct dump_summary *s);

#endif
