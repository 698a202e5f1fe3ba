/* Everything below the paths that a source names, in the order of their bytes (that of the entry
 * list), whatever happens to the tree meanwhile. Links are not followed, so a loop of links is none
 * for the walk; other file systems are not entered unless they are named. Memory is bounded: names
 * of a large folder go through a temporary file (sorted_names.h), one descriptor for each level.
 * One thread. */
#ifndef SYNCD_SNAPSHOT_TREE_WALK_H
#define SYNCD_SNAPSHOT_TREE_WALK_H

#include <stdbool.h>
#include <sys/stat.h>

#include "syncd/base/err.h"

struct tree_roots;
struct tree_walk;

enum tree_kind {
    TREE_NODE,    /* something is there: `st` of it itself */
    TREE_FAILED,  /* it cannot be looked at, or is a named path that is missing: err */
    TREE_UNKNOWN, /* what is below it cannot be seen, for the reason in err */
};

struct tree_item {
    enum tree_kind kind;
    const char *path; /* bytes; valid until the next call, as is everything here */
    int dir_fd;       /* NODE: with `name`, for openat(); AT_FDCWD for a root */
    const char *name;
    struct stat st;
    bool root;    /* a path that the source names */
    bool empty;   /* a root: a folder without anything in it */
    bool told;    /* UNKNOWN: it was FAILED itself before */
    bool foreign; /* NODE: a folder of another file system, not entered */
    struct err err;
};

/* `roots` must outlive the walk. `dir` is for temporary files. */
int tree_walk_new(const struct tree_roots *roots, const char *dir, struct tree_walk **ret,
                  struct err *e);
void tree_walk_free(struct tree_walk *w); /* NULL is fine */

/* 1: the next item; 0: that was all; or an error of this machine (no memory, no temporary file).
 * What vanishes between the listing of its folder and the look at it is passed over. */
int tree_walk_next(struct tree_walk *w, struct tree_item *ret, struct err *e);

#endif
