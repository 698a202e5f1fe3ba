#include "snapshot/tree_merge.h"

#include <string.h>

#include "snapshot/tree_roots.h"
#include "syncd/base/mem.h"

struct merging {
    const struct tree_merge *m;
    struct spool_reader reader;
    bool has_before;
    struct entry before;
    char *unknown; /* folder whose content cannot be seen */
    struct err why;
};

static int next_before(struct merging *g, struct err *e)
{
    entry_free(&g->before);
    int rc = g->m->parent ? spool_next(&g->reader, &g->before, e) : 0;
    g->has_before = rc == 1;
    if (g->has_before && g->m->before_at)
        *g->m->before_at = g->reader.entry;
    return MIN(rc, 0);
}

/* The parent's entry in hand against the item's place: "path", or for UNKNOWN "path/". */
static int compare(const struct merging *g, const struct tree_item *item)
{
    if (!g->has_before)
        return 1;
    if (item->kind != TREE_UNKNOWN)
        return strcmp(g->before.path, item->path);
    if (tree_is_below(g->before.path, item->path))
        return 1;
    size_t n = strlen(item->path);
    int order = strncmp(g->before.path, item->path, n);
    return order ? order : (int)(unsigned char)g->before.path[n] - '/';
}

static int pass_gone(struct merging *g, struct err *e)
{
    bool unseen = g->unknown && tree_is_below(g->before.path, g->unknown);
    int rc = g->m->gone(g->m->arg, &g->before, unseen ? &g->why : NULL, e);
    return rc ? rc : next_before(g, e);
}

static int note_unknown(struct merging *g, const struct tree_item *item, struct err *e)
{
    free(g->unknown);
    g->unknown = strdup(item->path);
    if (!g->unknown)
        return err_nomem(e);
    g->why = item->err;
    return g->m->unknown ? g->m->unknown(g->m->arg, item, e) : 0;
}

static int merge_item(struct merging *g, const struct tree_item *item, struct err *e)
{
    int rc = 0;
    while (rc == 0 && compare(g, item) < 0)
        rc = pass_gone(g, e);
    if (rc)
        return rc;
    if (item->kind == TREE_UNKNOWN)
        return note_unknown(g, item, e);
    bool same = g->has_before && strcmp(g->before.path, item->path) == 0;
    rc = g->m->item(g->m->arg, item, same ? &g->before : NULL, e);
    return rc || !same ? rc : next_before(g, e);
}

int tree_merge(const struct tree_merge *m, struct err *e)
{
    struct merging g = {.m = m};
    struct tree_walk *walk = NULL;
    int rc = tree_walk_new(m->roots, m->dir, &walk, e);
    if (m->parent)
        g.reader = spool_read(m->parent);
    if (rc == 0)
        rc = next_before(&g, e);
    while (rc == 0) {
        struct tree_item item;
        rc = tree_walk_next(walk, &item, e);
        if (rc <= 0)
            break;
        rc = m->cancel && atomic_load(m->cancel) ? err_set(e, ERR_CANCELLED, NULL, "stopped")
                                                 : merge_item(&g, &item, e);
    }
    while (rc == 0 && g.has_before)
        rc = pass_gone(&g, e);
    entry_free(&g.before);
    spool_reader_free(&g.reader);
    tree_walk_free(walk);
    free(g.unknown);
    return rc;
}
