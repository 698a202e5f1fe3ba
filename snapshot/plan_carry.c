/* What the parent's entries need, so that they can be referred to again or carried over. */
#include <stdlib.h>
#include <string.h>

#include "snapshot/plan_claims.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

bool plan_lists(const struct plan *p, const struct entry *entry)
{
    struct run_reader r;
    struct part_run run;
    int rc;
    run_read(&r, &entry->runs);
    while ((rc = run_next(&r, &run, NULL)) == 1) {
        struct part_ref key = {.epoch = run.epoch, .sequence = run.sequence};
        if (!part_find(p->listed, p->listed_count, &key))
            return false;
    }
    return rc == 0;
}

/* A part that was left off cannot simply come back: the other databases have been compared with
 * what the shorter list holds, and it may have a later state of one of their pages than that. What
 * an entry needs that was carried over before is never left off. */
static bool is_at_hand(struct plan *p, const struct part_ref *key, bool was_carried)
{
    if (part_find(p->listed, p->listed_count, key))
        return true;
    bool was_left_off = part_find(p->left_off, p->left_off_count, key) != NULL;
    p->wants_left_off |= was_left_off && !was_carried;
    return was_left_off;
}

bool plan_is_mixed(const struct plan *p, uint64_t image)
{
    for (size_t i = 0; i < p->image_count; i++)
        if (p->images[i].id == image)
            return p->images[i].later || p->images[i].shipped;
    return false;
}

/* ---- what lost parts cost ---- */

/* A part of the parent's that will not be listed, and not only for brevity. */
static bool is_lost(const struct plan *p, const struct part_ref *part)
{
    return !part_find(p->listed, p->listed_count, part) &&
           !part_find(p->left_off, p->left_off_count, part);
}

static void lose_image(struct plan *p, uint64_t image)
{
    for (size_t i = 0; i < p->image_count; i++)
        if (p->images[i].id == image)
            p->images[i].lost = true;
}

static void lose_pages_of(struct plan *p, struct plan_claims *c, const struct part_meta *meta,
                          bool lost)
{
    for (size_t i = 0; i < meta->block_count; i++) {
        const struct entry *of = NULL;
        if (plan_claim(c, &meta->blocks[i], &of) && lost)
            lose_image(p, of->image.id);
    }
}

int plan_find_lost(struct plan *p, struct err *e)
{
    struct plan_claims claims = {0};
    size_t oldest = 0, count = p->parent.part_count;
    while (oldest < count && !is_lost(p, &p->parent.parts[oldest]))
        oldest++;
    if (oldest == count)
        return 0;
    int rc = plan_claims_begin(p, &claims, e);
    for (size_t i = count; rc == 0 && i > oldest; i--) {
        const struct part_file *f;
        rc = plan_part(p, &p->parent.parts[i - 1], &f, e);
        if (rc == 0)
            lose_pages_of(p, &claims, f->meta, is_lost(p, &p->parent.parts[i - 1]));
    }
    plan_claims_free(&claims);
    if (rc != ERR_DAMAGED && rc != ERR_NOT_FOUND && rc != ERR_FOREIGN && rc != ERR_VERSION)
        return rc;
    /* What it holds nobody can tell: it may be pages of any. */
    for (size_t i = 0; i < p->image_count; i++)
        p->images[i].lost = true;
    return 0;
}

/* ---- carrying over ---- */

static bool image_is_lost(const struct plan *p, uint64_t image)
{
    for (size_t i = 0; i < p->image_count; i++)
        if (p->images[i].id == image)
            return p->images[i].lost;
    return false;
}

static bool carry_image(struct plan *p, const struct entry *entry)
{
    bool was_carried = entry->carried != NULL;
    if (plan_is_mixed(p, entry->image.id) || image_is_lost(p, entry->image.id))
        return false;
    for (size_t i = 0; i < p->parent.part_count; i++)
        if (!is_lost(p, &p->parent.parts[i]) && !is_at_hand(p, &p->parent.parts[i], was_carried))
            return false;
    return true;
}

static bool carry_runs(struct plan *p, const struct entry *entry)
{
    bool was_carried = entry->carried != NULL;
    struct run_reader r;
    struct part_run run;
    int rc;
    run_read(&r, &entry->runs);
    while ((rc = run_next(&r, &run, NULL)) == 1) {
        struct part_ref key = {.epoch = run.epoch, .sequence = run.sequence};
        if (!is_at_hand(p, &key, was_carried))
            return false;
    }
    return rc == 0;
}

/* Its name is for another plan, which looks for a snapshot that has it whole. */
static void note_lost(struct plan *p, const char *path)
{
    struct plan_lost *l = p->o.lost;
    char *copy = l && p->has_parent && l->count < PLAN_LOST_MAX ? strdup(path) : NULL;
    if (copy)
        l->paths[l->count++] = copy;
}

bool plan_carry(struct plan *p, const struct entry *entry)
{
    bool fit = carry_runs(p, entry) && (entry->type != ENTRY_IMAGE || carry_image(p, entry));
    if (!fit)
        note_lost(p, entry->path);
    return fit;
}

bool plan_lost_has(const struct plan_lost *l, const char *path)
{
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->paths[i], path) == 0)
            return true;
    return false;
}

void plan_lost_free(struct plan_lost *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->paths[i]);
    *l = (struct plan_lost){0};
}
