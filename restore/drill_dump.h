/* What a drill does with a stored dump: its archive is read to its end and its rows counted again,
 * and pg_restore lists what it holds. */
#ifndef SYNCD_RESTORE_DRILL_DUMP_H
#define SYNCD_RESTORE_DRILL_DUMP_H

#include <stdbool.h>
#include <stddef.h>

struct drill_dump;
struct entry;
struct err;

/* For an archive; the caller frees. Without a pg_restore only the rows are
 * counted. ERR_NOMEM, and of starting it. */
int drill_dump_begin(struct drill_dump **ret, struct err *e);
void drill_dump_feed(struct drill_dump *d, const void *p, size_t n);
/* ERR_DAMAGED: it is no whole archive, pg_restore does not take it, or a table has other rows than
 * are recorded. *ret_listed: pg_restore has listed it. */
int drill_dump_end(struct drill_dump *d, const struct entry *n, bool *ret_listed, struct err *e);
void drill_dump_free(struct drill_dump *d); /* NULL is fine */

#endif
