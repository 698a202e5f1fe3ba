#include "syncd/upkeep.h"

#include <inttypes.h>
#include <string.h>

#include "syncd/base/clock.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/keeping.h"
#include "syncd/lock.h"
#include "syncd/progress.h"
#include "syncd/session.h"
#include "syncd/signals.h"
#include "transport/store.h"

void upkeep_free(struct upkeep *u)
{
    history_free(&u->history);
    free(u->keeping);
    u->keeping = NULL;
    u->decided = false;
}

void upkeep_stem(const struct part_ref *ref, char ret[static PART_NAME_SIZE])
{
    part_name_format(ref, PART_SNAP, ret);
    *strrchr(ret, '.') = '\0';
}

bool upkeep_is_damaged(void *arg, const struct store *s, const struct part_ref *ref)
{
    struct upkeep *u = arg;
    char stem[PART_NAME_SIZE];
    upkeep_stem(ref, stem);
    return catalog_damage_has(u->s->catalog, s->name, u->source, stem);
}

void upkeep_damaged(void *arg, const struct store *s, const struct part_ref *ref,
                    const struct err *e)
{
    struct upkeep *u = arg;
    struct err failed = ERR_INIT;
    char stem[PART_NAME_SIZE];
    upkeep_stem(ref, stem);
    if (!u->lists_damage)
        log_msg(LOG_LEVEL_WARNING, "%s: %s", s->name, e->message);
    if (catalog_damage_add(u->s->catalog, s->name, u->source, stem, clock_now_us(), &failed))
        log_err(LOG_LEVEL_WARNING, &failed);
}

static void on_mended(void *arg, const struct store *s, const struct part_ref *ref)
{
    struct upkeep *u = arg;
    struct err failed = ERR_INIT;
    char stem[PART_NAME_SIZE];
    upkeep_stem(ref, stem);
    if (catalog_damage_clear(u->s->catalog, s->name, u->source, stem, &failed))
        log_err(LOG_LEVEL_WARNING, &failed);
}

static size_t index_of(const struct upkeep *u, const struct store *s)
{
    for (size_t i = 0; i < u->s->worker_count; i++)
        if (u->s->workers[i].store == s)
            return i;
    return 0;
}

static int on_may_change(void *arg, struct store *s, uint64_t add_bytes, struct err *e)
{
    struct upkeep *u = arg;
    const struct session_worker *w = &u->s->workers[index_of(u, s)];
    int rc = session_still_leads(u->s, w, s, e);
    return rc ? rc : session_check_room(w, s, add_bytes, e);
}

/* A backup that waits for the source goes first. */
static int on_turn(void *arg, struct err *e)
{
    struct upkeep *u = arg;
    struct lock_options o = {
        .state_dir = u->s->conf->state_dir, .source = u->source, .what = "sync", .wait = true};
    if (!u->lock)
        return 0;
    lock_release(u->lock);
    u->lock = NULL;
    return lock_take(&o, &u->lock, e);
}

static void on_copied(void *arg, const struct store *to, uint64_t bytes)
{
    struct upkeep *u = arg;
    progress_add(u->progress, bytes);
    progress_worker_add(u->progress, index_of(u, to), bytes);
}

static bool on_keep(void *arg, const struct part_ref *snapshot)
{
    struct upkeep *u = arg;
    const struct history_snapshot *h = history_find(&u->history, snapshot);
    return !h || h->wanted;
}

void upkeep_kept(struct upkeep *u, struct kept_params *ret)
{
    *ret = (struct kept_params){.repository = &u->s->repository,
                                .source = u->source,
                                .fresh = u->fresh,
                                .keep = u->decided ? on_keep : NULL,
                                .is_damaged = upkeep_is_damaged,
                                .damaged = upkeep_damaged,
                                .mended = on_mended,
                                .arg = u,
                                .cancel = signals_cancel_flag()};
    for (size_t i = 0; i < u->s->worker_count; i++) {
        if (!u->s->workers[i].store)
            continue;
        u->session_index[ret->store_count] = i;
        ret->at[ret->store_count].store = u->s->workers[i].store;
        ret->at[ret->store_count++].listing = &u->s->workers[i].listing;
    }
}

static bool on_is_ours(void *arg, const struct part_ref *ref)
{
    struct upkeep *u = arg;
    return catalog_part_is_ours(u->s->catalog, u->source, ref->epoch, ref->sequence, ref->id);
}

static bool on_is_history(void *arg, const struct part_ref *ref)
{
    struct upkeep *u = arg;
    return epoch_has(&u->s->ruler, u->source, ref);
}

bool upkeep_is_tight(const struct upkeep *u, size_t worker)
{
    const struct session_worker *w = &u->s->workers[worker];
    struct err e = ERR_INIT;
    return session_check_room(w, w->store, PART_TARGET_BYTES, &e) == ERR_NO_SPACE;
}

int upkeep_decide(struct upkeep *u, struct err *e)
{
    const struct conf_source *source = conf_find_source(u->s->conf, u->source);
    struct kept_params kept;
    if (!source)
        return err_set(e, ERR_CONFIG, u->source, "%s names no source '%s'", u->s->conf->file,
                       u->source);
    upkeep_free(u);
    upkeep_kept(u, &kept);
    int rc = history_read(&kept, &u->history, e);
    struct keeping_params p = {.keep = &source->keep,
                               .now_us = clock_now_us(),
                               .store_count = kept.store_count,
                               .is_ours = on_is_ours,
                               .is_history = on_is_history,
                               .arg = u};
    for (size_t at = 0; rc == 0 && at < kept.store_count; at++)
        p.tight[at] = upkeep_is_tight(u, u->session_index[at]);
    if (rc == 0)
        rc = keeping_decide(&p, &u->history, &u->keeping, e);
    u->decided = rc == 0;
    return rc;
}

int upkeep_sync(struct upkeep *u, struct upkeep_sync *ret, struct err *e)
{
    struct sync_params p = {.may_change = on_may_change, .turn = on_turn, .copied = on_copied};
    *ret = (struct upkeep_sync){0};
    int rc = session_list(u->s, u->source, e);
    if (rc == 0)
        rc = upkeep_decide(u, e);
    if (rc && rc != ERR_CONNECT) /* then there is nobody to bring anything to */
        return rc;
    upkeep_kept(u, &p.kept);
    rc = sync_source(&p, &ret->result, e);
    for (size_t i = 0; i < p.kept.store_count; i++)
        ret->workers[u->session_index[i]] = &ret->result.workers[i];
    return rc;
}

int upkeep_newer(const char *source, uint64_t count, const char *what, struct err *e)
{
    err_set(e, ERR_VERSION, source,
            "source %s: %" PRIu64 " %s written by a newer syncd; this one is older than the "
            "repository and %s",
            source, count, count == 1 ? "snapshot was" : "snapshots were", what);
    return err_hint(e, "Update syncd on this machine; nothing is wrong with the repository.");
}

void upkeep_sync_free(struct upkeep_sync *r)
{
    sync_result_free(&r->result);
    *r = (struct upkeep_sync){0};
}
