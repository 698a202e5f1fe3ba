/* What a restored database says of itself, before it is put in place. */
#ifndef SYNCD_RESTORE_CHECK_H
#define SYNCD_RESTORE_CHECK_H

#include <stdatomic.h>
#include <stdbool.h>

#include "snapshot/entry.h"

struct err;

/* The check of its kind. */
int check_database(enum image_kind kind, const char *path, const char *name, bool thorough,
                   const atomic_bool *cancel, struct err *e);

/* SQLite's quick_check, or with `thorough` integrity_check and foreign_key_check, over a file that
 * nobody else has open and that has no -wal (opened with immutable=1, so no sidecar is made).
 * `name` is what messages call it. ERR_DAMAGED with SQLite's first complaint; ERR_UNSUPPORTED when
 * it cannot be checked here (it needs the application's own collation or function), which says
 * nothing against it. Blocks for as long as the check takes; *cancel (may be NULL) ends it with
 * ERR_CANCELLED. */
int check_sqlite(const char *path, const char *name, bool thorough, const atomic_bool *cancel,
                 struct err *e);

/* bolt: the newest meta, all that it reaches, and the freelist, as bolt_walk checks them. The file
 * is not locked. ERR_DAMAGED with the first fault. */
int check_bolt(const char *path, const char *name, const atomic_bool *cancel, struct err *e);

#endif
