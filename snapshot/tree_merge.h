/* The walk beside the parent's entries: both are sorted, so each path is seen once, with what is
 * there now and what was there then, and nothing needs to be remembered. */
#ifndef SYNCD_SNAPSHOT_TREE_MERGE_H
#define SYNCD_SNAPSHOT_TREE_MERGE_H

#include <stdatomic.h>

#include "snapshot/spool.h"
#include "snapshot/tree_walk.h"

struct tree_merge {
    const struct tree_roots *roots;
    const char *dir;           /* for temporary files */
    struct spool *parent;      /* NULL: there is none */
    const atomic_bool *cancel; /* may be NULL */
    /* Something is there (NODE) or cannot be looked at (FAILED); `before` is the parent's entry at
     * this path, or NULL; what is taken out of it must be zeroed. */
    int (*item)(void *arg, const struct tree_item *item, struct entry *before, struct err *e);
    /* From now on entries below item->path are told of as `gone` with `why`. May be NULL. */
    int (*unknown)(void *arg, const struct tree_item *item, struct err *e);
    /* The parent had it and the walk does not meet it. `why`: it cannot be seen, see above; NULL:
     * it is not there, or not taken any more. */
    int (*gone)(void *arg, struct entry *before, const struct err *why, struct err *e);
    void *arg;
    uint64_t *before_at; /* set to where `before` lies in the spool; may be NULL */
};

int tree_merge(const struct tree_merge *m, struct err *e);

#endif
