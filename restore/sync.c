#include "restore/sync.h"

#include <stdio.h>
#include <string.h>

#include "restore/sync_internal.h"
#include "snapshot/part_reader.h"
#include "syncd/base/clock.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

/* A second round mends what the first has found to be damaged while it copied. */
#define ROUNDS 2

struct store *sync_store(const struct sync *s, size_t at)
{
    return s->p->kept.at[at].store;
}

struct sync_path sync_path(const struct sync *s, const struct part_ref *ref, enum part_mark mark)
{
    struct sync_path path;
    char name[PART_NAME_SIZE];
    part_name_format(ref, mark, name);
    snprintf(path.s, sizeof path.s, "%s/%s", s->p->kept.source, name);
    return path;
}

void sync_book_error(struct sync *s, size_t at, const struct err *why, bool stop)
{
    struct err *err = &s->result->workers[at].err;
    bool lost = why->code == ERR_CONNECT || why->code == ERR_TIMEOUT || why->code == ERR_CANCELLED;
    s->kept.gone[at] |= lost;
    s->stopped[at] |= stop || lost;
    if (err->code == 0)
        *err = *why;
}

bool sync_is_cancelled(const struct sync *s)
{
    return s->p->kept.cancel && atomic_load(s->p->kept.cancel);
}

int sync_cancelled(const struct sync *s, struct err *e)
{
    return err_set(e, ERR_CANCELLED, s->p->kept.source,
                   "stopped; what was copied stays, and the next sync goes on from there");
}

int sync_may_change(const struct sync *s, size_t at, uint64_t add_bytes, struct err *e)
{
    if (!s->p->may_change)
        return 0;
    return s->p->may_change(s->p->kept.arg, sync_store(s, at), add_bytes, e);
}

/* ---- marks ---- */

static int rename_to(struct sync *s, struct kept_part *part, size_t at, enum part_mark mark,
                     int64_t mtime_us, struct err *e)
{
    struct store *store = sync_store(s, at);
    struct sync_path from = sync_path(s, &part->ref, part->at[at].mark);
    struct sync_path to = sync_path(s, &part->ref, mark);
    struct store_file *f = NULL;
    int rc = sync_may_change(s, at, 0, e);
    if (rc == 0)
        rc = store_open(store, from.s, &f, e);
    if (rc == 0 && mtime_us >= 0)
        rc = store_set_mtime(store, from.s, mtime_us, e);
    if (rc == 0 && part->at[at].mark != mark)
        rc = store_rename(store, from.s, to.s, e);
    if (rc == 0)
        rc = store_sync_name(f, to.s, e);
    store_close_file(f, NULL); /* opened to be read: closing cannot lose anything */
    if (rc == 0) {
        s->result->workers[at].renamed += part->at[at].mark != mark;
        part->at[at].mark = mark;
        part->at[at].mtime_us = MAX(part->at[at].mtime_us, mtime_us);
    }
    return rc;
}

/* Whether the worker holds all that the snapshot needs, by the snapshot's own metadata. */
static int is_complete(struct sync *s, struct kept_part *part, size_t at, bool *ret, struct err *e)
{
    struct part_file *f = NULL;
    int rc = part_open(sync_store(s, at), s->p->kept.source, &part->ref, part->at[at].mark,
                       s->p->kept.repository->id, &f, e);
    if (rc == 0)
        *ret = f->meta->has_snapshot && kept_holds_all(&s->kept, &f->meta->snapshot, at);
    part_close(f);
    return rc;
}

/* SFTP knows whole seconds only. */
static bool is_older(int64_t a_us, int64_t b_us)
{
    return a_us / US_PER_S < b_us / US_PER_S;
}

/* A copy that is held gets the mark and the time that it should have. */
static int settle_mark(struct sync *s, struct kept_part *part, size_t at, struct err *e)
{
    struct kept_copy *copy = &part->at[at];
    bool complete = false;
    int rc = 0;
    if (part->snapshot && (copy->mark != PART_SNAP || is_older(copy->mtime_us, part->mtime_us)))
        rc = is_complete(s, part, at, &complete, e);
    if (rc == 0 && complete)
        return rename_to(s, part, at, PART_SNAP, part->mtime_us, e);
    if (rc == 0 && copy->mark == PART_DEL)
        return rename_to(s, part, at, PART_PACK, -1, e);
    return rc;
}

/* ---- one worker ---- */

static bool can_get(const struct kept_part *part, size_t to)
{
    return kept_has_copy(part, 1 - to);
}

static int settle(struct sync *s, struct kept_part *part, size_t at, struct err *e)
{
    struct err own = ERR_INIT;
    int rc = part->at[at].others ? sync_remove_others(s, part, at, &own) : 0;
    if (rc == 0 && kept_holds(part, at))
        rc = settle_mark(s, part, at, &own);
    if (damage_is(rc)) {
        kept_note_damage(&s->kept, part, at, DAMAGE_NO_BLOCK, &own);
        s->found_damage = true;
        return 0;
    }
    if (rc == ERR_NOMEM) {
        *e = own;
        return rc;
    }
    if (rc && rc != ERR_NOT_FOUND) /* gone or renamed since the listing: the next run sees it */
        sync_book_error(s, at, &own, true);
    return 0;
}

static int fill_worker(struct sync *s, size_t at, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < s->kept.count && !s->stopped[at]; i++) {
        struct kept_part *part = &s->kept.parts[i];
        if (!part->wanted)
            continue;
        if (sync_is_cancelled(s))
            return sync_cancelled(s, e);
        if (!kept_holds(part, at))
            rc = sync_copy(s, part, at, e);
        if (rc == 0 && kept_holds(part, at))
            rc = settle(s, part, at, e);
    }
    return rc;
}

struct work {
    uint64_t files, bytes;
};

static struct work work_for(const struct sync *s, size_t to)
{
    struct work w = {0};
    for (size_t i = 0; s->p->kept.store_count == 2 && i < s->kept.count; i++) {
        const struct kept_part *part = &s->kept.parts[i];
        if (!part->wanted || kept_holds(part, to) || !can_get(part, to))
            continue;
        w.files++;
        w.bytes += part->ref.size_bytes;
    }
    return w;
}

/* The worker that needs less goes first: it need not wait for hours while the other is filled. */
static int run_round(struct sync *s, struct err *e)
{
    struct work work[POOL_STORES_MAX] = {0};
    size_t count = s->p->kept.store_count;
    for (size_t i = 0; i < count; i++) {
        work[i] = work_for(s, i);
        if (s->p->total)
            s->p->total(s->p->kept.arg, sync_store(s, i), work[i].files, work[i].bytes);
    }
    size_t first = count == 2 && work[1].bytes < work[0].bytes;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = fill_worker(s, (first + i) % count, e);
    return rc;
}

/* What an earlier run has found is listed, too, so that it can be seen to be mended. */
static void list_known_damage(struct sync *s)
{
    for (size_t i = 0; i < s->kept.count; i++) {
        struct kept_part *part = &s->kept.parts[i];
        for (size_t at = 0; part->wanted && at < s->p->kept.store_count; at++) {
            struct err e = ERR_INIT;
            if (!part->at[at].damaged)
                continue;
            err_set(&e, ERR_DAMAGED, NULL, "found to be damaged in an earlier run");
            damage_add(&s->kept.damaged[at], s->p->kept.source, &part->ref, part->at[at].mark,
                       DAMAGE_NO_BLOCK, &e);
        }
    }
}

static int run(struct sync *s, struct err *e)
{
    int rc = kept_read(&s->p->kept, &s->kept, e);
    list_known_damage(s);
    for (size_t i = 0; i < s->p->kept.store_count; i++)
        if (s->kept.gone[i])
            sync_book_error(s, i, &s->kept.gone_err[i], true);
    for (int round = 0; rc == 0 && round < ROUNDS; round++) {
        s->found_damage = false;
        rc = run_round(s, e);
        if (!s->found_damage)
            break;
    }
    return rc;
}

static bool has_fresh(const struct kept *k, size_t at)
{
    const struct kept_part *part = k->p->fresh ? kept_find(k, k->p->fresh) : NULL;
    return part && kept_holds(part, at) && part->at[at].mark == PART_SNAP;
}

int sync_source(const struct sync_params *p, struct sync_result *ret, struct err *e)
{
    struct sync s = {.p = p, .result = ret};
    *ret = (struct sync_result){0};
    int rc = run(&s, e);
    ret->snapshots = s.kept.snapshots;
    ret->newer = s.kept.newer;
    for (size_t i = 0; i < s.kept.count; i++)
        ret->unreadable += s.kept.parts[i].unreadable;
    for (size_t i = 0; i < p->kept.store_count; i++) {
        ret->workers[i].lacking = kept_lacking(&s.kept, i);
        ret->workers[i].has_fresh = rc == 0 && has_fresh(&s.kept, i);
        ret->workers[i].damaged = s.kept.damaged[i];
        s.kept.damaged[i] = (struct damage_list){0};
    }
    kept_free(&s.kept);
    return rc;
}

void sync_result_free(struct sync_result *r)
{
    for (size_t i = 0; i < POOL_STORES_MAX; i++)
        damage_list_free(&r->workers[i].damaged);
}

bool sync_is_complete(const struct sync_result *r)
{
    for (size_t i = 0; i < POOL_STORES_MAX; i++)
        if (r->workers[i].lacking || r->workers[i].err.code)
            return false;
    return true;
}
