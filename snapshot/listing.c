#include <string.h>

#include "snapshot/repository.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

#define LISTED_FILES_MAX 2000000u /* of one source: 57 years of 15-minute snapshots */

void listing_free(struct listing *l)
{
    free(l->parts);
    *l = (struct listing){0};
}

static int add_name(void *arg, const char *name, const struct store_stat *st, struct err *e)
{
    struct listing *l = arg;
    struct listed_part part;
    if (st->kind != STORE_FILE || !part_name_parse(name, &part.ref, &part.mark))
        return 0;
    if (l->count >= LISTED_FILES_MAX)
        return err_set(e, ERR_LIMIT, NULL, "more than %u files in one source's folder",
                       LISTED_FILES_MAX);
    if (mem_grow(&l->parts, &l->cap, l->count + 1, sizeof *l->parts))
        return err_nomem(e);
    part.ref.size_bytes = st->size_bytes;
    part.mtime_us = st->mtime_us;
    l->parts[l->count++] = part;
    return 0;
}

static int compare_identity(const struct part_ref *a, const struct part_ref *b)
{
    int order = part_order(a, b);
    if (order == 0)
        order = memcmp(a->id, b->id, DIGEST_SIZE);
    return order ? order : (a->time_s > b->time_s) - (a->time_s < b->time_s);
}

static int compare_listed(const void *x, const void *y)
{
    const struct listed_part *a = x, *b = y;
    int order = compare_identity(&a->ref, &b->ref);
    return order ? order : (int)a->mark - (int)b->mark;
}

int listing_read(struct store *s, const char *source, struct listing *ret, struct err *e)
{
    OWN_LISTING struct listing l = {0};
    int rc = store_list(s, source, add_name, &l, e);
    if (rc && rc != ERR_NOT_FOUND)
        return rc;
    if (l.count)
        qsort(l.parts, l.count, sizeof *l.parts, compare_listed);
    *ret = l;
    l = (struct listing){0};
    return 0;
}

const struct listed_part *listing_find(const struct listing *l, const struct part_ref *ref)
{
    size_t low = 0, high = l->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_identity(&l->parts[middle].ref, ref) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < l->count && compare_identity(&l->parts[low].ref, ref) == 0)
        return &l->parts[low];
    return NULL;
}

bool listing_holds(const struct listing *l, const struct part_ref *ref)
{
    const struct listed_part *p = listing_find(l, ref);
    return p && p->mark != PART_BAD && p->ref.size_bytes == ref->size_bytes;
}

bool listing_holds_all(const struct listing *l, const struct part_ref *refs, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!listing_holds(l, &refs[i]))
            return false;
    return true;
}
