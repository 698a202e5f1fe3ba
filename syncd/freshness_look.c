#include "syncd/freshness_look.h"

#include <stdio.h>
#include <string.h>

#include "conf/conf.h"
#include "snapshot/entry.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/freshness.h"
#include "syncd/session.h"
#include "syncd/upkeep.h"
#include "transport/store.h"

/* So many snapshots are looked at before a worker counts as holding none whole. */
#define LOOKED_AT_MAX 100
/* A part's label and the moments around it: more apart, and times were not those that syncd set. */
#define LABEL_SLACK_US (INT64_C(3600) * US_PER_S)

void freshness_from_nothing(const struct session *s, const char *source, struct freshness *ret)
{
    *ret = (struct freshness){.worker_count = s->worker_count};
    snprintf(ret->source, sizeof ret->source, "%s", source);
    for (size_t i = 0; i < s->worker_count; i++) {
        ret->workers[i].name = s->workers[i].conf->name;
        ret->workers[i].behind = -1;
    }
}

/* ---- one worker's newest state ---- */

struct look {
    struct session *s;
    struct pool pool;
    struct freshness *f;
    int64_t now_us;
    const struct session_worker *w;
    struct freshness_worker *facts;
    bool true_times;
    int64_t best_us; /* 0: none yet */
    struct part_ref best;
    int64_t ahead_us; /* of a whole one that is dated after now; 0: none */
    struct part_ref ahead;
};

static bool is_snapshot(const struct look *k, const struct listed_part *p)
{
    return p->mark == PART_SNAP && epoch_has(&k->s->ruler, k->f->source, &p->ref);
}

static bool is_damaged(const struct look *k, const struct snapshot *s)
{
    char stem[PART_NAME_SIZE];
    if (k->s->catalog &&
        catalog_unproven_has(k->s->catalog, k->f->source, k->w->conf->name, s->ref.id))
        return true;
    for (size_t i = 0; k->s->catalog && i < s->part_count; i++) {
        upkeep_stem(&s->parts[i], stem);
        if (catalog_damage_has(k->s->catalog, k->w->conf->name, k->f->source, stem))
            return true;
    }
    return false;
}

/* When its last part was begun: no later is what it says of itself. */
static int64_t label_us(const struct listed_part *p)
{
    return p->ref.time_s * US_PER_S;
}

/* Whether the files' times are those that syncd set. In a copy that lost them, snapshots claim to
 * have been the source's state long after the next one was begun. (One or the other may, where two
 * lines of snapshots went on side by side.) */
static bool has_true_times(const struct look *k)
{
    const struct listing *l = &k->w->listing;
    const struct listed_part *before = NULL;
    size_t pairs = 0, wrong = 0;
    for (size_t i = 0; i < l->count; i++) {
        if (!is_snapshot(k, &l->parts[i]))
            continue;
        pairs += before != NULL;
        wrong += before && before->mtime_us > label_us(&l->parts[i]) + LABEL_SLACK_US;
        before = &l->parts[i];
    }
    return wrong == 0 || 2 * wrong < pairs;
}

/* The latest moment that the snapshot can be known for; both times have whole seconds. */
static int64_t latest_us(const struct look *k, const struct listed_part *p)
{
    return (k->true_times ? p->mtime_us : label_us(p)) + US_PER_S - 1;
}

/* When the earliest of the snapshots after it was begun, by that one's own clock. */
static int64_t followed_us(const struct look *k, const struct listed_part *p)
{
    const struct listing *l = &k->w->listing;
    int64_t us = INT64_MAX;
    for (size_t i = (size_t)(p - l->parts) + 1; i < l->count; i++)
        if (is_snapshot(k, &l->parts[i]) && part_order(&p->ref, &l->parts[i].ref) < 0)
            us = MIN(us, label_us(&l->parts[i]) + US_PER_S); /* a label has whole seconds */
    return us;
}

/* The last moment at which the snapshot was known to be the source's state. One that is dated after
 * those that followed it was taken when the clock was ahead: it is not newer than they are. */
static int64_t known_us(const struct look *k, const struct listed_part *p, const struct snapshot *s)
{
    const struct freshness_worker *w = k->facts;
    if (w->has_snapshot && w->as_of_us > 0 && memcmp(w->snapshot, p->ref.id, DIGEST_SIZE) == 0)
        return w->as_of_us; /* this leader knows it by itself */
    int64_t as_of_us = s->section.as_of_us;
    bool moves = s->section.complete && p->mtime_us > as_of_us && k->true_times &&
                 p->mtime_us <= k->now_us + FRESHNESS_AHEAD_US;
    return MIN(moves ? p->mtime_us : as_of_us, followed_us(k, p));
}

static int look_at(struct look *k, const struct listed_part *p, struct err *e)
{
    OWN_SNAPSHOT struct snapshot s = {0};
    struct err own = ERR_INIT;
    struct part_ref ref = p->ref;
    ref.size_bytes = 0; /* each worker's own */
    int rc = pool_snapshot(&k->pool, &ref, &s, &own);
    if (rc == ERR_NOMEM || rc == ERR_CANCELLED) {
        *e = own;
        return rc;
    }
    if (rc || !listing_holds_all(&k->w->listing, s.parts, s.part_count) || is_damaged(k, &s))
        return 0;
    int64_t t_us = known_us(k, p, &s);
    bool ahead = t_us > k->now_us + FRESHNESS_AHEAD_US;
    if (ahead && k->ahead_us == 0) {
        k->ahead_us = t_us;
        k->ahead = p->ref;
    } else if (!ahead && t_us > k->best_us) {
        k->best_us = t_us;
        k->best = p->ref;
    }
    return 0;
}

/* The snapshot that the catalog names first; then by their times, as long as a later one could be
 * better than the best so far. */
static const struct listed_part *next_to_look_at(const struct look *k, bool *seen)
{
    const struct listing *l = &k->w->listing;
    const struct listed_part *next = NULL;
    for (size_t i = 0; i < l->count; i++) {
        const struct listed_part *p = &l->parts[i];
        if (seen[i] || !is_snapshot(k, p))
            continue;
        bool named =
            k->facts->has_snapshot && memcmp(k->facts->snapshot, p->ref.id, DIGEST_SIZE) == 0;
        if (named) {
            next = p;
            break;
        }
        if (latest_us(k, p) > k->best_us && (!next || latest_us(k, p) >= latest_us(k, next)))
            next = p;
    }
    if (next)
        seen[next - l->parts] = true;
    return next;
}

static int find_newest(struct look *k, struct err *e)
{
    size_t n = k->w->listing.count;
    OWN_MEM bool *seen = mem_alloc(n ? n : 1, sizeof *seen);
    const struct listed_part *p;
    int rc = 0;
    if (!seen)
        return err_nomem(e);
    for (int looked = 0; rc == 0 && looked < LOOKED_AT_MAX; looked++) {
        if (!(p = next_to_look_at(k, seen)))
            break;
        rc = look_at(k, p, e);
    }
    return rc;
}

static void conclude(struct look *k)
{
    struct freshness_worker *w = k->facts;
    const struct part_ref *ref = k->best_us ? &k->best : &k->ahead;
    bool had = w->lost || w->as_of_us > 0 || k->w->listing.count > 0;
    int64_t had_us = w->as_of_us;
    w->as_of_us = k->best_us ? k->best_us : k->ahead_us;
    w->has_snapshot = w->as_of_us > 0;
    w->lost = had && !w->has_snapshot;
    w->had_us = w->lost ? had_us : 0;
    if (w->has_snapshot)
        memcpy(w->snapshot, ref->id, sizeof w->snapshot);
    else if (w->lost)
        snprintf(w->error, sizeof w->error, "%s holds no whole snapshot of %s", w->name,
                 k->f->source);
}

/* ---- the rest of what a worker shows ---- */

/* A worker that does not answer may still hold what the catalog knows; one that does, and has no
 * repository of ours, does not. */
static void take_absence(const struct session_worker *w, struct freshness_worker *facts)
{
    bool silent = w->err.code == ERR_CONNECT || w->err.code == ERR_TIMEOUT;
    snprintf(facts->error, sizeof facts->error, "%s", w->err.message);
    if (!silent) {
        facts->had_us = facts->as_of_us;
        facts->as_of_us = 0;
    }
    facts->lost |= facts->as_of_us == 0;
}

/* Only the leader writes on a worker. */
static bool leads(const struct session *s, const struct session_worker *w)
{
    return s->has_token && w->epoch.number && memcmp(w->epoch.token, s->token, TOKEN_SIZE) == 0;
}

static void compare_clocks(const struct session *s, const struct session_worker *w,
                           struct freshness_worker *facts)
{
    int64_t theirs_us, ahead_us;
    if (!leads(s, w) || store_clock(w->store, &theirs_us, &ahead_us, NULL))
        return;
    facts->clock_apart = ahead_us > FRESHNESS_CLOCK_US || ahead_us < -FRESHNESS_CLOCK_US;
    if (facts->clock_apart)
        snprintf(facts->error, sizeof facts->error,
                 "the clocks of %s and of this machine are more than a day apart", facts->name);
}

/* Files of the other worker that this one lacks. */
static void count_behind(const struct session *s, struct freshness *f)
{
    for (size_t i = 0; i < s->worker_count; i++) {
        bool all_asked = session_attached(s) == s->worker_count;
        f->workers[i].behind = all_asked ? 0 : -1;
        for (size_t o = 0; all_asked && o < s->worker_count; o++) {
            const struct listing *other = &s->workers[o].listing;
            for (size_t k = 0; o != i && k < other->count; k++)
                f->workers[i].behind +=
                    other->parts[k].mark <= PART_PACK &&
                    !listing_holds(&s->workers[i].listing, &other->parts[k].ref);
        }
    }
}

int freshness_look(struct session *s, struct freshness *f, struct err *e)
{
    struct look k = {.s = s, .f = f, .now_us = clock_now_us()};
    int rc = 0;
    session_pool(s, f->source, &k.pool);
    for (size_t i = 0; rc == 0 && i < s->worker_count; i++) {
        k.w = &s->workers[i];
        k.facts = &f->workers[i];
        k.best_us = k.ahead_us = 0;
        if (!k.w->store) {
            take_absence(k.w, k.facts);
            continue;
        }
        k.true_times = has_true_times(&k);
        rc = find_newest(&k, e);
        if (rc == 0)
            conclude(&k);
    }
    pool_close(&k.pool);
    for (size_t i = 0; rc == 0 && i < s->worker_count; i++)
        if (s->workers[i].store)
            compare_clocks(s, &s->workers[i], &f->workers[i]);
    count_behind(s, f);
    return rc;
}

/* ---- inside the newest snapshot ---- */

struct inside {
    struct freshness *f;
    struct pool *pool;
    const struct snapshot *snapshot;
    struct entry config; /* type ENTRY_CONFIG when there is one */
    struct buf text;
    uint64_t size_bytes;
};

static int take_entry(void *arg, struct entry *entry, struct err *e)
{
    struct inside *n = arg;
    (void)e;
    n->size_bytes += entry_size(entry);
    if (entry->type == ENTRY_CONFIG && n->config.type != ENTRY_CONFIG) {
        n->config = *entry;
        *entry = (struct entry){0};
    }
    return 0;
}

static int take_text(void *arg, const uint8_t id[static CHUNK_ID_SIZE], const struct part_run *at,
                     const uint8_t *p, size_t n, struct err *e)
{
    struct inside *inside = arg;
    (void)id;
    (void)at;
    if (inside->text.len + n > CONF_FILE_LIMIT)
        return err_set(e, ERR_LIMIT, NULL, "the snapshot's config is too large");
    buf_put(&inside->text, p, n);
    return inside->text.bad ? err_nomem(e) : 0;
}

static void take_max_age(struct inside *n)
{
    struct conf *conf = NULL;
    if (conf_parse("syncd.conf", (const char *)n->text.data, n->text.len, &conf, NULL, NULL))
        return;
    const struct conf_source *source = conf_find_source(conf, n->f->source);
    if (source)
        n->f->max_age_s = source->max_age_s;
    conf_free(conf);
}

static int read_inside(struct inside *n, struct err *e)
{
    OWN_BLOCK_READER struct block_reader *r = NULL;
    int rc = block_reader_new(&r, e);
    if (rc == 0)
        rc = pool_entries(n->pool, n->snapshot, r, take_entry, n, e);
    if (rc)
        return rc;
    n->f->size_bytes = n->size_bytes;
    if (n->f->max_age_s || n->config.type != ENTRY_CONFIG)
        return 0;
    OWN_MEM struct part_run *runs = NULL;
    struct content c = {.refs = n->snapshot->parts, .ref_count = n->snapshot->part_count};
    rc = run_list_array(&n->config.runs, CONF_FILE_LIMIT, &runs, &c.run_count, e);
    c.runs = runs;
    if (rc == 0)
        rc = pool_content(n->pool, &c, r, take_text, n, e);
    if (rc == 0)
        take_max_age(n);
    return rc;
}

static const struct listed_part *find_id(const struct session *s, const uint8_t *id)
{
    for (size_t i = 0; i < s->worker_count; i++)
        for (size_t k = 0; s->workers[i].store && k < s->workers[i].listing.count; k++)
            if (memcmp(s->workers[i].listing.parts[k].ref.id, id, DIGEST_SIZE) == 0)
                return &s->workers[i].listing.parts[k];
    return NULL;
}

int freshness_look_inside(struct session *s, struct freshness *f, struct err *e)
{
    const struct freshness_worker *best = &f->workers[f->best];
    const struct listed_part *p =
        f->worker_count && best->has_snapshot ? find_id(s, best->snapshot) : NULL;
    struct pool pool;
    struct err own = ERR_INIT;
    OWN_SNAPSHOT struct snapshot snapshot = {0};
    struct inside n = {.f = f, .pool = &pool, .snapshot = &snapshot};
    if (!p)
        return 0;
    struct part_ref ref = p->ref;
    ref.size_bytes = 0;
    session_pool(s, f->source, &pool);
    int rc = pool_snapshot(&pool, &ref, &snapshot, &own);
    if (rc == 0)
        rc = read_inside(&n, &own);
    pool_close(&pool);
    entry_free(&n.config);
    buf_free(&n.text);
    if (rc != ERR_NOMEM && rc != ERR_CANCELLED)
        return 0;
    *e = own;
    return rc;
}
