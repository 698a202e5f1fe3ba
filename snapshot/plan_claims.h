/* Which listed part each page of the parent's images is in use from: the newest that holds it. One
 * bit a page. */
#ifndef SYNCD_SNAPSHOT_PLAN_CLAIMS_H
#define SYNCD_SNAPSHOT_PLAN_CLAIMS_H

#include "snapshot/plan.h"

struct plan_claims {
    size_t count;
    struct plan_claimed {
        const struct entry *entry; /* the plan's */
        uint8_t *bits;             /* the page was in a newer part */
    } * images;
};

/* ERR_NOMEM; what is made goes with plan_claims_free all the same. */
int plan_claims_begin(const struct plan *p, struct plan_claims *ret, struct err *e);
void plan_claims_free(struct plan_claims *c);

/* Parts are to come newest first. How many of the block's pages are in use from it; *ret_of is the
 * image that they are of when there are some. */
uint64_t plan_claim(struct plan_claims *c, const struct part_block *b, const struct entry **ret_of);

#endif
