#include "restore/damage.h"

#include <stdio.h>
#include <stdlib.h>

#include "syncd/base/err.h"
#include "syncd/base/mem.h"

void damage_list_free(struct damage_list *l)
{
    free(l->items);
    *l = (struct damage_list){0};
}

bool damage_add(struct damage_list *l, const char *source, const struct part_ref *ref,
                enum part_mark mark, int64_t block, const struct err *why)
{
    char name[PART_NAME_SIZE];
    for (size_t i = 0; i < l->listed; i++) {
        if (!part_same(&l->items[i].ref, ref) || l->items[i].block != block)
            continue;
        bool again = l->items[i].mended;
        l->items[i].mended = false;
        return again;
    }
    l->count++;
    if (l->listed == DAMAGE_LISTED_MAX ||
        mem_grow(&l->items, &l->cap, l->listed + 1, sizeof *l->items))
        return true;
    struct damage *d = &l->items[l->listed++];
    *d = (struct damage){.ref = *ref, .block = block};
    part_name_format(ref, mark, name);
    snprintf(d->file, sizeof d->file, "%s/%s", source, name);
    snprintf(d->reason, sizeof d->reason, "%.*s", (int)sizeof d->reason - 1, why->message);
    return true;
}

void damage_mend(struct damage_list *l, const struct part_ref *ref)
{
    for (size_t i = 0; i < l->listed; i++)
        if (part_same(&l->items[i].ref, ref))
            l->items[i].mended = true;
}

bool damage_is(int code)
{
    return code == ERR_DAMAGED || code == ERR_FOREIGN || code == ERR_IO;
}
