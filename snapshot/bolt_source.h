/* Taking one bolt database while its owner commits: copies without its lock (bolt_copy.h) until one
 * counts, whose pages go the way of every image's. DESIGN 4. */
#ifndef SYNCD_SNAPSHOT_BOLT_SOURCE_H
#define SYNCD_SNAPSHOT_BOLT_SOURCE_H

#include <stdbool.h>

#include "snapshot/source.h"

struct err;

/* Ships what changed of the database at `path` and fills *ret (as_of, owner, image, signature; that
 * one is a tree entry's, attributes.h). The image is the state of the newest meta: both metas say
 * it, pages that it does not reach are zeros, and its tree has been checked. On failure nothing of
 * it counts, but pages already shipped may be of use to the next run.
 *
 * ERR_SOURCE (damaged, or not a bolt database any more), ERR_BUSY (its owner commits faster than it
 * can be read and shipped), ERR_CHANGED (replaced by another file again and again), ERR_NOT_FOUND,
 * ERR_PERMISSION, ERR_CANCELLED, the pipeline's errors. Blocks as long as the workers need, and for
 * 3 s, or ten copies, that are overtaken by commits. */
int bolt_take(const struct source_run *run, const char *path, struct entry *ret, struct err *e);

#endif
