/* Some schemas out of an archive of pg_dump, as an archive of their own: the schemas with their
 * grants and comments, and all that is in them. What pg_restore -n leaves out, the schema itself,
 * is in it. No I/O; memory: the kept part of the table of contents. */
#ifndef SYNCD_RESTORE_DUMP_FILTER_H
#define SYNCD_RESTORE_DUMP_FILTER_H

#include <stddef.h>

struct dump_filter;
struct err;

typedef int dump_filter_fn(void *arg, const void *p, size_t n, struct err *e);

/* `schemas`: NULL-terminated; they stay the caller's. The filtered bytes go to `out`. The caller
 * frees; NULL when out of memory. */
struct dump_filter *dump_filter_new(const char *const *schemas, dump_filter_fn *out, void *arg);
void dump_filter_free(struct dump_filter *f); /* NULL is fine */

/* As dump_archive_feed and dump_archive_end; out's errors. */
int dump_filter_feed(struct dump_filter *f, const void *p, size_t n, struct err *e);
int dump_filter_end(struct dump_filter *f, struct err *e);

#endif
