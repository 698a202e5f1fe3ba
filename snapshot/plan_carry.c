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

/* Lists a part that was left off again. */
static bool bring_back(struct plan *p, const struct part_ref *key)
{
    const struct part_ref *part = find_part(p->left_off, p->left_off_count, key);
    if (find_part(p->listed, p->listed_count, key))
        return true;
    struct part_ref *grown =
        part ? reallocarray(p->listed, p->listed_count + 1, sizeof *grown) : NULL;
    if (!grown)
        return false;
    size_t at = p->listed_count;
    for (; at > 0 && part_order(&grown[at - 1], part) > 0; at--)
        grown[at] = grown[at - 1];
    grown[at] = *part;
    p->listed = grown;
    p->listed_count++;
    chunk_table_count_on(p->chunks, p->listed, p->listed_count, p->epoch, p->next_sequence);
    return true;
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
    struct run_reader r;
    struct part_run run;
    int rc;
    run_read(&r, &entry->runs);
    while ((rc = run_next(&r, &run, NULL)) == 1) {
        struct part_ref key = {.epoch = run.epoch, .sequence = run.sequence};
        if (!bring_back(p, &key))
            return false;
    }
    if (rc)
        return false;
    if (entry->type != ENTRY_IMAGE)
        return true;
    if (plan_is_mixed(p, entry->image.id))
        return false;
    for (size_t i = 0; i < p->parent.part_count; i++)
        if (!bring_back(p, &p->parent.parts[i]))
            return false;
    return true;
}
