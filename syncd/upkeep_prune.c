/* Prune, as far as it needs a session: clocks, space, fencing, and the catalog. */
#include <inttypes.h>
#include <string.h>

#include "syncd/base/clock.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "syncd/upkeep.h"
#include "transport/store.h"

/* How long a look at who leads is good for. */
#define LEADS_SEEN_US (2 * US_PER_S)

static size_t index_of(const struct upkeep *u, const struct store *s)
{
    for (size_t i = 0; i < u->s->worker_count; i++)
        if (u->s->workers[i].store == s)
            return i;
    return 0;
}

/* A machine that somebody else has taken over from must not delete what that one lists. */
static int on_may_change(void *arg, struct store *s, struct err *e)
{
    struct upkeep *u = arg;
    size_t i = index_of(u, s);
    int64_t now_us = clock_mono_us();
    if (u->leads_seen_us[i] && now_us - u->leads_seen_us[i] < LEADS_SEEN_US)
        return 0;
    int rc = session_still_leads(u->s, &u->s->workers[i], s, e);
    if (rc == 0)
        u->leads_seen_us[i] = now_us;
    return rc;
}

static void on_removed(void *arg, const struct store *s, const struct part_ref *ref)
{
    struct upkeep *u = arg;
    struct err e = ERR_INIT;
    char stem[PART_NAME_SIZE];
    upkeep_stem(ref, stem);
    if (catalog_damage_has(u->s->catalog, s->name, u->source, stem) &&
        catalog_damage_clear(u->s->catalog, s->name, u->source, stem, &e))
        log_err(LOG_LEVEL_WARNING, &e);
}

/* The worker's now; an error when its clock and ours are too far apart to judge ages by. */
static int compare_clocks(struct store *s, int64_t *ret_now_us, struct err *e)
{
    char apart[SHOW_SIZE];
    int64_t ahead_us = 0;
    int rc = store_clock(s, ret_now_us, &ahead_us, e);
    if (rc == ERR_NO_SPACE) { /* not even an empty file: then it must be let empty itself */
        *ret_now_us = clock_now_us();
        return 0;
    }
    if (rc || (ahead_us <= UPKEEP_CLOCKS_US && ahead_us >= -UPKEEP_CLOCKS_US))
        return rc;
    show_duration(ahead_us < 0 ? -ahead_us : ahead_us, apart);
    err_set(e, ERR_REFUSED, s->name,
            "%s: its clock and this machine's are %s apart; nothing is pruned there", s->name,
            apart);
    return err_hint(e, "Set the clock of the machine that is wrong (systemd-timesyncd does it).");
}

static bool is_listed(const struct session *s, const struct catalog_part *part)
{
    struct part_ref key = {.epoch = part->epoch, .sequence = part->sequence};
    for (size_t i = 0; i < s->worker_count; i++) {
        const struct listing *l = &s->workers[i].listing;
        size_t low = 0, high = l->count;
        while (low < high) {
            size_t middle = low + (high - low) / 2;
            if (part_order(&l->parts[middle].ref, &key) < 0)
                low = middle + 1;
            else
                high = middle;
        }
        for (; low < l->count && part_order(&l->parts[low].ref, &key) == 0; low++)
            if (memcmp(l->parts[low].ref.id, part->id, DIGEST_SIZE) == 0)
                return true;
    }
    return false;
}

/* Only when every worker was asked: one that is away may hold it. The listings are those from
 * before, so what goes now is forgotten by the next prune. */
static int forget_parts(struct upkeep *u, struct err *e)
{
    struct catalog_part *parts = NULL;
    size_t count = 0, gone = 0;
    if (session_attached(u->s) < u->s->worker_count)
        return 0;
    int rc = catalog_parts(u->s->catalog, u->source, &parts, &count, e);
    for (size_t i = 0; rc == 0 && i < count; i++)
        if (!is_listed(u->s, &parts[i]))
            parts[gone++] = parts[i];
    if (rc == 0 && gone)
        rc = catalog_parts_forget(u->s->catalog, u->source, parts, gone, e);
    free(parts);
    return rc;
}

static int prune(struct upkeep *u, const struct kept_params *kept, bool dry_run,
                 struct prune_result *ret, struct err *e)
{
    struct prune_params p = {.kept = kept,
                             .history = &u->history,
                             .dry_run = dry_run,
                             .may_change = on_may_change,
                             .removed = on_removed};
    struct err refused[POOL_STORES_MAX] = {0};
    uint64_t newer = 0;
    for (size_t i = 0; i < u->history.count; i++)
        newer += u->history.snapshots[i].newer;
    /* What those need is not known; it is told once. */
    if (newer)
        upkeep_newer(u->source, newer, "lets nothing go", &refused[0]);
    for (size_t at = 0; newer == 0 && at < kept->store_count; at++) {
        struct store *s = kept->at[at].store;
        p.at[at].now_us = clock_now_us();
        p.at[at].tight = upkeep_is_tight(u, u->session_index[at]);
        /* A dry run writes nothing, not even a file to see its time. */
        p.at[at].skip = !dry_run && compare_clocks(s, &p.at[at].now_us, &refused[at]) != 0;
    }
    int rc = newer ? 0 : prune_source(&p, ret, e);
    for (size_t at = 0; at < kept->store_count; at++)
        if (refused[at].code)
            ret->workers[at].err = refused[at];
    return rc;
}

int upkeep_prune(struct upkeep *u, bool dry_run, struct upkeep_prune *ret, struct err *e)
{
    struct kept_params kept;
    *ret = (struct upkeep_prune){0};
    upkeep_kept(u, &kept);
    int rc = prune(u, &kept, dry_run, &ret->result, e);
    for (size_t at = 0; at < kept.store_count; at++)
        ret->workers[u->session_index[at]] = &ret->result.workers[at];
    return rc || dry_run ? rc : forget_parts(u, e);
}

bool upkeep_make_room(struct upkeep *u)
{
    struct upkeep_prune result = {0};
    struct err e = ERR_INIT;
    bool made = false;
    int rc = session_list(u->s, u->source, &e);
    if (rc == 0)
        rc = upkeep_decide(u, &e);
    if (rc == 0)
        rc = upkeep_prune(u, false, &result, &e);
    for (size_t i = 0; i < u->s->worker_count; i++) {
        const struct prune_worker_result *r = result.workers[i];
        if (!r || r->removed + r->leftovers == 0)
            continue;
        made = true;
        log_msg(LOG_LEVEL_NOTICE, "%s: short of space; let go of %" PRIu64 " file%s not kept",
                u->s->workers[i].conf->name, r->removed + r->leftovers,
                show_plural(r->removed + r->leftovers));
    }
    if (rc)
        log_err(LOG_LEVEL_WARNING, &e);
    upkeep_free(u);
    return made;
}
