#include "restore/prune.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "syncd/base/mem.h"
#include "transport/store.h"

#define UPLOAD_DIGITS 16 /* of what a part is uploaded under */
#define SMALL_DIGITS 32  /* of a small file (store_write_file) */

/* What is known of one file of a listing. */
struct fate {
    bool listed;    /* a snapshot that stays, here or wanted here, needs it */
    bool snapshot;  /* ... and is it: the file keeps its mark .snap */
    bool protected; /* a snapshot that stays and cannot be read may need it */
};

struct worker {
    struct prune *prune;
    size_t at;
    struct store *store;
    const struct listing *listing;
    struct fate *fates; /* as the listing */
    int64_t now_us;
    bool tight;
    bool has_newest;
    struct part_ref newest; /* the newest whole snapshot that stays */
    struct prune_worker_result *result;
};

struct prune {
    const struct prune_params *p;
    struct pool pool;
    struct worker workers[POOL_STORES_MAX];
};

static bool is_cancelled(const struct prune *p)
{
    const atomic_bool *cancel = p->p->kept->cancel;
    return cancel && atomic_load(cancel);
}

static int cancelled(const struct prune *p, struct err *e)
{
    return err_set(e, ERR_CANCELLED, p->p->kept->source,
                   "stopped; the next prune goes on from there");
}

/* ---- what is needed ---- */

static void mark_listed(struct worker *w, const struct part_ref *ref)
{
    const struct listed_part *first = listing_find(w->listing, ref), *c = first;
    for (; c && c < w->listing->parts + w->listing->count && part_same(&c->ref, ref); c++)
        w->fates[c - w->listing->parts].listed = true;
}

static void mark_snapshot(struct worker *w, const struct part_ref *ref)
{
    const struct listed_part *c = listing_find(w->listing, ref);
    if (c && c->mark == PART_SNAP)
        w->fates[c - w->listing->parts].snapshot = true;
}

/* What the snapshot needs cannot be told: everything up to it stays as it is. */
static void protect_up_to(struct worker *w, const struct part_ref *ref)
{
    for (size_t i = 0; i < w->listing->count; i++)
        if (part_order(&w->listing->parts[i].ref, ref) <= 0)
            w->fates[i].protected = true;
}

static bool stays_on(const struct history_snapshot *h, size_t at)
{
    return h->wanted || h->keep[at];
}

static bool stays_anywhere(const struct prune *p, const struct history_snapshot *h)
{
    bool stays = h->wanted;
    for (size_t at = 0; at < p->p->kept->store_count; at++)
        stays |= h->keep[at];
    return stays;
}

static void protect_unread(struct prune *p, const struct history_snapshot *h)
{
    for (size_t at = 0; at < p->p->kept->store_count; at++) {
        mark_listed(&p->workers[at], &h->ref);
        protect_up_to(&p->workers[at], &h->ref);
    }
}

static int mark_parts(struct prune *p, const struct history_snapshot *h, struct err *e)
{
    OWN_SNAPSHOT struct snapshot s = {0};
    if (!h->readable) {
        protect_unread(p, h);
        return 0;
    }
    /* It could be read a moment ago: what fails now is no reason to let anything go. */
    int rc = pool_snapshot(&p->pool, &h->ref, &s, e);
    for (size_t at = 0; rc == 0 && at < p->p->kept->store_count; at++)
        for (size_t i = 0; stays_on(h, at) && i < s.part_count; i++)
            mark_listed(&p->workers[at], &s.parts[i]);
    return rc;
}

static int mark_all(struct prune *p, struct err *e)
{
    const struct history *history = p->p->history;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < history->count; i++) {
        const struct history_snapshot *h = &history->snapshots[i];
        if (is_cancelled(p))
            return cancelled(p, e);
        for (size_t at = 0; at < p->p->kept->store_count; at++) {
            if (!h->keep[at])
                continue;
            mark_snapshot(&p->workers[at], &h->ref);
            if (h->at[at].whole) {
                p->workers[at].newest = h->ref;
                p->workers[at].has_newest = true;
            }
        }
        if (stays_anywhere(p, h))
            rc = mark_parts(p, h, e);
    }
    return rc;
}

/* ---- changes ---- */

struct path {
    char s[SOURCE_NAME_SIZE + 1 + PART_NAME_SIZE];
};

static struct path path_of(const struct worker *w, const struct part_ref *ref, enum part_mark mark)
{
    struct path path;
    char name[PART_NAME_SIZE];
    part_name_format(ref, mark, name);
    snprintf(path.s, sizeof path.s, "%s/%s", w->prune->p->kept->source, name);
    return path;
}

static int may_change(const struct worker *w, struct err *e)
{
    const struct prune_params *p = w->prune->p;
    return p->may_change ? p->may_change(p->kept->arg, w->store, e) : 0;
}

/* Gives the file another mark, durably: a name that comes back after a power cut could be that of a
 * snapshot whose parts are gone. */
static int set_mark(struct worker *w, struct listed_part *part, enum part_mark mark, struct err *e)
{
    struct path from = path_of(w, &part->ref, part->mark), to = path_of(w, &part->ref, mark);
    struct store_file *f = NULL;
    int rc = may_change(w, e);
    if (rc == 0)
        rc = store_open(w->store, from.s, &f, e);
    if (rc == 0)
        rc = store_rename(w->store, from.s, to.s, e);
    if (rc == 0)
        rc = store_sync_name(f, to.s, e);
    store_close_file(f, NULL); /* opened to be read: closing cannot lose anything */
    if (rc == 0)
        part->mark = mark;
    return rc;
}

/* The time first: a .del with an old one would go at once. (Never on a .snap, whose time says how
 * fresh it is: that is a .pack by now.) */
static int set_del(struct worker *w, struct listed_part *part, struct err *e)
{
    struct path path = path_of(w, &part->ref, part->mark);
    int rc = may_change(w, e);
    if (rc == 0)
        rc = store_set_mtime(w->store, path.s, w->now_us, e);
    if (rc == 0 && part->mark != PART_DEL)
        rc = set_mark(w, part, PART_DEL, e);
    if (rc == 0)
        part->mtime_us = w->now_us;
    return rc;
}

static int remove_part(struct worker *w, struct listed_part *part, struct err *e)
{
    struct path path = path_of(w, &part->ref, part->mark);
    int rc = may_change(w, e);
    return rc ? rc : store_remove(w->store, path.s, e);
}

/* ---- steps ---- */

/* One step over one file. */
typedef int step_fn(struct worker *w, struct listed_part *part, const struct fate *fate,
                    struct err *e);

static bool is_dry(const struct worker *w)
{
    return w->prune->p->dry_run;
}

static int rescue(struct worker *w, struct listed_part *part, const struct fate *fate,
                  struct err *e)
{
    if (part->mark != PART_DEL || !fate->listed)
        return 0;
    w->result->rescued++;
    return is_dry(w) ? 0 : set_mark(w, part, PART_PACK, e);
}

static int drop(struct worker *w, struct listed_part *part, const struct fate *fate, struct err *e)
{
    if (part->mark != PART_SNAP || fate->snapshot)
        return 0;
    w->result->dropped++;
    if (!is_dry(w))
        return set_mark(w, part, PART_PACK, e);
    part->mark = PART_PACK; /* as the next step would find it */
    return 0;
}

/* A pack that no snapshot could list yet: its run was cut, or the worker lacks what is older. */
static bool serves_next_run(const struct worker *w, const struct listed_part *part)
{
    bool newer = !w->has_newest || part_order(&part->ref, &w->newest) > 0;
    return newer && w->now_us - part->mtime_us < PRUNE_PACKS_US;
}

static int mark_del(struct worker *w, struct listed_part *part, const struct fate *fate,
                    struct err *e)
{
    if (part->mark != PART_PACK || fate->listed || serves_next_run(w, part))
        return 0;
    if (fate->protected) {
        w->result->unread++;
        return 0;
    }
    w->result->marked++;
    w->result->marked_bytes += part->ref.size_bytes;
    if (!is_dry(w))
        return set_del(w, part, e);
    part->mark = PART_DEL;
    part->mtime_us = w->now_us;
    return 0;
}

static bool is_due(const struct worker *w, const struct listed_part *part)
{
    return part->mark == PART_BAD || w->tight || w->now_us - part->mtime_us >= PRUNE_GRACE_US;
}

static int remove_due(struct worker *w, struct listed_part *part, const struct fate *fate,
                      struct err *e)
{
    bool goes = part->mark == PART_DEL || part->mark == PART_BAD;
    if (!goes || fate->listed || fate->protected)
        return 0;
    if (!is_due(w, part)) {
        /* Its time is ahead of the worker's clock, which was wrong then: it starts anew. */
        bool ahead = part->mtime_us - w->now_us > PRUNE_GRACE_US;
        return ahead && !is_dry(w) ? set_del(w, part, e) : 0;
    }
    int rc = is_dry(w) ? 0 : remove_part(w, part, e);
    if (rc)
        return rc;
    w->result->removed++;
    w->result->removed_bytes += part->ref.size_bytes;
    const struct prune_params *p = w->prune->p;
    if (p->removed && !is_dry(w))
        p->removed(p->kept->arg, w->store, &part->ref);
    return 0;
}

/* What is not there any more, or is there under the new mark already, is left to the next prune;
 * *ret_skipped says that some file was. */
static int do_step(struct worker *w, struct listing *files, step_fn *step, bool *ret_skipped,
                   struct err *e)
{
    for (size_t i = 0; i < files->count; i++) {
        struct err own = ERR_INIT;
        if (is_cancelled(w->prune))
            return cancelled(w->prune, e);
        int rc = step(w, &files->parts[i], &w->fates[i], &own);
        if (rc == ERR_NOT_FOUND || rc == ERR_EXISTS) {
            *ret_skipped = true;
        } else if (rc) {
            *e = own;
            return rc;
        }
    }
    return 0;
}

/* ---- tmp/ ---- */

static bool is_hex(const char *text, size_t digits)
{
    return strlen(text) == digits && strspn(text, "0123456789abcdef") == digits;
}

/* An upload of this source, or what any command may leave: a small file, a look at the clock. */
static bool is_leftover(const char *source, const char *name)
{
    size_t n = strlen(source);
    if (strncmp(name, source, n) == 0 && name[n] == '-' && is_hex(name + n + 1, UPLOAD_DIGITS))
        return true;
    return is_hex(name, SMALL_DIGITS) ||
           (strncmp(name, "check-", 6) == 0 && is_hex(name + 6, UPLOAD_DIGITS));
}

struct leftovers {
    const struct worker *w;
    size_t count, cap;
    char (*names)[STORE_NAME_MAX + 1];
};

static int note_leftover(void *arg, const char *name, const struct store_stat *st, struct err *e)
{
    struct leftovers *l = arg;
    if (st->kind != STORE_FILE || !is_leftover(l->w->prune->p->kept->source, name) ||
        l->w->now_us - st->mtime_us < PRUNE_GRACE_US)
        return 0;
    if (mem_grow(&l->names, &l->cap, l->count + 1, sizeof *l->names))
        return err_nomem(e);
    snprintf(l->names[l->count++], sizeof *l->names, "%s", name);
    return 0;
}

static int remove_leftovers(struct worker *w, struct err *e)
{
    struct leftovers l = {.w = w};
    int rc = store_list(w->store, "tmp", note_leftover, &l, e);
    for (size_t i = 0; rc == 0 && i < l.count; i++) {
        char path[STORE_PATH_SIZE];
        snprintf(path, sizeof path, "tmp/%s", l.names[i]);
        rc = is_dry(w) ? 0 : may_change(w, e);
        if (rc == 0 && !is_dry(w))
            rc = store_remove(w->store, path, e);
        w->result->leftovers += rc == 0;
        rc = rc == ERR_NOT_FOUND ? 0 : rc;
    }
    free(l.names);
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

/* ---- all of it ---- */

/* The listing itself is the caller's and stays as it was read. */
static int copy_listing(const struct listing *from, struct listing *ret, struct err *e)
{
    ret->parts = mem_alloc(from->count ? from->count : 1, sizeof *from->parts);
    if (!ret->parts)
        return err_nomem(e);
    if (from->count)
        memcpy(ret->parts, from->parts, from->count * sizeof *from->parts);
    ret->count = ret->cap = from->count;
    return 0;
}

static int prune_worker(struct worker *w, struct err *e)
{
    static step_fn *const steps[] = {rescue, drop, mark_del, remove_due};
    OWN_LISTING struct listing files = {0};
    bool skipped = false;
    int rc = copy_listing(w->listing, &files, e);
    for (size_t i = 0; rc == 0 && i < ARRAY_LEN(steps); i++)
        if (steps[i] != remove_due || !skipped)
            rc = do_step(w, &files, steps[i], &skipped, e);
    return rc ? rc : remove_leftovers(w, e);
}

static int prepare(struct prune *p, struct prune_result *ret, struct err *e)
{
    const struct kept_params *k = p->p->kept;
    p->pool = (struct pool){
        .repository = k->repository, .source = k->source, .store_count = k->store_count};
    for (size_t at = 0; at < k->store_count; at++) {
        struct worker *w = &p->workers[at];
        p->pool.at[at].store = k->at[at].store;
        p->pool.at[at].listing = k->at[at].listing;
        *w = (struct worker){.prune = p,
                             .at = at,
                             .store = k->at[at].store,
                             .listing = k->at[at].listing,
                             .now_us = p->p->at[at].now_us,
                             .tight = p->p->at[at].tight,
                             .result = &ret->workers[at]};
        w->fates = mem_alloc(w->listing->count ? w->listing->count : 1, sizeof *w->fates);
        if (!w->fates)
            return err_nomem(e);
    }
    return 0;
}

int prune_source(const struct prune_params *params, struct prune_result *ret, struct err *e)
{
    struct prune p = {.p = params};
    *ret = (struct prune_result){0};
    int rc = prepare(&p, ret, e);
    if (rc == 0)
        rc = mark_all(&p, e);
    pool_close(&p.pool);
    for (size_t at = 0; rc == 0 && at < params->kept->store_count; at++) {
        struct err own = ERR_INIT;
        int failed = params->at[at].skip ? 0 : prune_worker(&p.workers[at], &own);
        if (failed == ERR_NOMEM || (failed && is_cancelled(&p))) {
            rc = failed;
            *e = own;
        } else if (failed) {
            ret->workers[at].err = own;
        }
    }
    for (size_t at = 0; at < POOL_STORES_MAX; at++)
        free(p.workers[at].fates);
    return rc;
}
