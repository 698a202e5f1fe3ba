#include "snapshot/plan_claims.h"

#include <stdlib.h>

#include "syncd/base/err.h"
#include "syncd/base/mem.h"

int plan_claims_begin(const struct plan *p, struct plan_claims *ret, struct err *e)
{
    ret->count = 0;
    ret->images = mem_alloc(p->entry_count, sizeof *ret->images);
    if (!ret->images)
        return err_nomem(e);
    for (size_t i = 0; i < p->entry_count; i++) {
        uint64_t pages = p->entries[i].image.page_count;
        struct plan_claimed *to = &ret->images[ret->count];
        if (p->entries[i].type != ENTRY_IMAGE)
            continue;
        to->entry = &p->entries[i];
        to->bits = pages / 8 < SIZE_MAX ? mem_alloc((size_t)(pages / 8 + 1), 1) : NULL;
        if (!to->bits)
            return err_nomem(e);
        ret->count++;
    }
    return 0;
}

void plan_claims_free(struct plan_claims *c)
{
    for (size_t i = 0; i < c->count; i++)
        free(c->images[i].bits);
    free(c->images);
    *c = (struct plan_claims){0};
}

uint64_t plan_claim(struct plan_claims *c, const struct part_block *b, const struct entry **ret_of)
{
    struct plan_claimed *m = NULL;
    uint64_t live = 0;
    for (size_t i = 0; b->kind == BLOCK_PAGES && !m && i < c->count; i++)
        if (c->images[i].entry->image.id == b->image)
            m = &c->images[i];
    if (!m)
        return 0;
    struct block_walk w = block_walk_begin(b);
    while (block_walk_next(&w)) {
        uint8_t bit = (uint8_t)(1u << (w.page % 8));
        if (w.page >= m->entry->image.page_count || m->bits[w.page / 8] & bit)
            continue;
        m->bits[w.page / 8] |= bit;
        live++;
    }
    *ret_of = m->entry;
    return live;
}
