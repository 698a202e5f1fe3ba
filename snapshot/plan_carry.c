/* What the parent's entries need, so that they can be referred to again or carried over. */
#include "snapshot/plan.h"
#include "syncd/base/mem.h"

static const struct part_ref *find_part(const struct part_ref *refs, size_t count,
                                        const struct part_ref *key)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = part_order(&refs[middle], key);
        if (order == 0)
            return &refs[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

bool plan_lists(const struct plan *p, const struct entry *entry)
{
    struct run_reader r;
    struct part_run run;
    int rc;
    run_read(&r, &entry->runs);
    while ((rc = run_next(&r, &run, NULL)) == 1) {
        struct part_ref key = {.epoch = run.epoch, .sequence = run.sequence};
        if (!find_part(p->listed, p->listed_count, &key))
            return false;
    }
    return rc == 0;
}

/* A part that was left off cannot simply come back: the other databases have been compared with
 * what the shorter list holds, and it may have a later state of one of their pages than that. What
 * an entry needs that was carried over before is never left off. */
static bool is_at_hand(struct plan *p, const struct part_ref *key, bool was_carried)
{
    if (find_part(p->listed, p->listed_count, key))
        return true;
    bool was_left_off = find_part(p->left_off, p->left_off_count, key) != NULL;
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

bool plan_carry(struct plan *p, const struct entry *entry)
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
    if (rc)
        return false;
    if (entry->type != ENTRY_IMAGE)
        return true;
    if (plan_is_mixed(p, entry->image.id))
        return false;
    for (size_t i = 0; i < p->parent.part_count; i++)
        if (!is_at_hand(p, &p->parent.parts[i], was_carried))
            return false;
    return true;
}
