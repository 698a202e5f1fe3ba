#include "syncd/held.h"

#include <string.h>

#include "syncd/base/err.h"
#include "syncd/base/log.h"
#include "syncd/catalog.h"
#include "syncd/freshness_look.h"
#include "syncd/session.h"

void held_begin(struct session *s, const char *source, struct held *ret)
{
    const struct conf_source *of = conf_find_source(s->conf, source);
    struct err e = ERR_INIT;
    ret->known =
        of && s->catalog && freshness_from_catalog(s->conf, of, s->catalog, &ret->facts, &e) == 0;
    if (e.code)
        log_err(LOG_LEVEL_WARNING, &e);
}

static struct catalog_held of_worker(const struct freshness_worker *w)
{
    struct catalog_held held = {.as_of_us = w->has_snapshot ? w->as_of_us : 0,
                                .has_snapshot = w->has_snapshot};
    memcpy(held.snapshot, w->snapshot, sizeof held.snapshot);
    return held;
}

static bool is_same(const struct catalog_held *a, const struct catalog_held *b)
{
    if (!a->has_snapshot || !b->has_snapshot)
        return a->has_snapshot == b->has_snapshot;
    return a->as_of_us == b->as_of_us && memcmp(a->snapshot, b->snapshot, CATALOG_ID) == 0;
}

void held_learn(struct session *s, const char *source, const struct held *before)
{
    struct freshness now = before->facts;
    struct err e = ERR_INIT;
    int rc = before->known ? freshness_look(s, &now, &e) : 0;
    for (size_t i = 0; before->known && rc == 0 && i < s->worker_count; i++) {
        struct catalog_held was = of_worker(&before->facts.workers[i]);
        struct catalog_held is = of_worker(&now.workers[i]);
        if (s->workers[i].store && !is_same(&was, &is))
            rc = catalog_held_learn(s->catalog, source, now.workers[i].name, &was, &is, &e);
    }
    if (rc && rc != ERR_CANCELLED)
        log_err(LOG_LEVEL_WARNING, &e);
}
