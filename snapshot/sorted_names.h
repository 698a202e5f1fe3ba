/* The names in one folder, in the order of their bytes. Memory is bounded: what is beyond goes, in
 * sorted runs, to a temporary file and is merged from there. One thread. */
#ifndef SYNCD_SNAPSHOT_SORTED_NAMES_H
#define SYNCD_SNAPSHOT_SORTED_NAMES_H

#include <stddef.h>

struct err;
struct sorted_names;

#define SORTED_NAMES_BYTES (512u * 1024) /* in memory, for each folder of the walk's way down */

/* `dir`: where the temporary file goes, if there must be one. */
int sorted_names_new(const char *dir, struct sorted_names **ret, struct err *e);
void sorted_names_free(struct sorted_names *n); /* NULL is fine */

int sorted_names_add(struct sorted_names *n, const char *name, struct err *e);
int sorted_names_sort(struct sorted_names *n, struct err *e); /* after the last add */

size_t sorted_names_count(const struct sorted_names *n);

/* The next name without taking it, NULL after the last; valid until it is taken. */
const char *sorted_names_peek(const struct sorted_names *n);
int sorted_names_take(struct sorted_names *n, struct err *e);

#endif
