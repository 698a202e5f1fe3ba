/* The paths that a source names, as the file system knows them. */
#ifndef SYNCD_SNAPSHOT_TREE_ROOTS_H
#define SYNCD_SNAPSHOT_TREE_ROOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct err;

struct tree_root {
    char *path;       /* absolute, without links in its folders, without a '/' at its end */
    bool nested;      /* lies below another one */
    bool had_entries; /* the parent has entries below it; the scan's to fill */
};

struct tree_roots {
    size_t count, cap;
    struct tree_root *items; /* ascending by path */
    char *const *exclude;    /* globs (exclude.h); may be NULL */
    char *own_dir;           /* never entered: syncd's state_dir; NULL: none */
};

/* Links on the way to a path are followed. A path that is itself a link is kept as one, and what it
 * leads to is named as well. Missing paths are kept as they are written. ERR_CONFIG for a path that
 * is not absolute, or that lies in another one and is left out by an exclude there. */
int tree_roots_make(char *const *paths, char *const *exclude, const char *own_dir,
                    struct tree_roots *ret, struct err *e);
void tree_roots_free(struct tree_roots *r);

/* The root with exactly this path, or NULL. */
struct tree_root *tree_roots_find(const struct tree_roots *r, const char *path);

/* Whether `path` lies strictly below `folder`. */
bool tree_is_below(const char *path, const char *folder);

/* Whether a path is taken now: it is a root or below one, and no exclude leaves it out. Only for
 * paths that once were entries. */
bool tree_roots_cover(const struct tree_roots *r, const char *path);

#endif
