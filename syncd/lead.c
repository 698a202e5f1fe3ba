#include "syncd/lead.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/found.h"
#include "syncd/session.h"
#include "transport/store.h"

static uint32_t next_number(const struct session *s)
{
    uint32_t n = MAX(s->ruler.number, s->own.number);
    for (size_t i = 0; i < s->worker_count; i++)
        if (s->workers[i].store)
            n = MAX(n, s->workers[i].highest_epoch);
    return n + 1;
}

static void make_epoch(const struct session *s, const struct found *found, struct epoch *ret)
{
    *ret = (struct epoch){.number = next_number(s)};
    memcpy(ret->token, s->token, TOKEN_SIZE);
    for (size_t i = 0; i < found->count; i++) {
        const struct found_source *f = &found->sources[i];
        struct epoch_source *at = &ret->sources[ret->source_count];
        if (!f->has_part)
            continue;
        snprintf(at->name, sizeof at->name, "%s", f->name);
        at->epoch = f->last.epoch;
        at->sequence = f->last.sequence;
        ret->source_count++;
    }
}

static int claim_each(struct session *s, size_t *ret_claimed, struct err *e)
{
    int first = 0;
    for (size_t i = 0; i < s->worker_count; i++) {
        struct session_worker *w = &s->workers[i];
        if (!w->store)
            continue;
        if (epoch_claim(w->store, &s->own, &w->err) == 0) {
            w->err = ERR_INIT; /* what a step on the way left in it is none */
            w->epoch = s->own;
            w->highest_epoch = s->own.number;
            (*ret_claimed)++;
        } else if (first == 0) {
            *e = w->err;
            first = w->err.code;
        }
    }
    if (*ret_claimed)
        return 0;
    if (first == ERR_EXISTS) {
        err_set(e, ERR_EXISTS, NULL, "another machine took over at this very moment");
        err_hint(e, "See which one; then, if this is to be the leader, run `syncd adopt` again.");
    }
    return first;
}

int lead_take(struct session *s, const struct found *found, size_t *ret_claimed, struct err *e)
{
    const struct epoch before = s->own;
    *ret_claimed = 0;
    io_random(s->token, sizeof s->token); /* also a copy of this machine's card is to be fenced */
    s->has_token = true;
    make_epoch(s, found, &s->own);
    int rc = session_save_repository(s, e);
    if (rc == 0)
        rc = session_save_token(s, e);
    if (rc == 0)
        rc = session_save_epoch(s, e);
    if (rc)
        return rc;
    rc = claim_each(s, ret_claimed, e);
    if (rc) {
        struct err ignored = ERR_INIT;
        s->own = before; /* without its token it says nothing any more */
        session_save_epoch(s, &ignored);
        return rc;
    }
    session_find_ruler(s);
    s->epoch = s->ruler.number;
    return 0;
}
