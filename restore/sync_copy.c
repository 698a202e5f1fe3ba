/* One part to one worker: into tmp/ first, every byte checked on the way, and only then under its
 * name. A bad file steps aside as .bad and goes last, so that a cut leaves at most one leftover. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "restore/part_copies.h"
#include "restore/sync_internal.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

struct copy {
    struct sync *s;
    struct kept_part *part;
    size_t to;
    size_t count;
    size_t from[PART_COPIES_MAX]; /* which store each copy of `source` is on */
    bool damaged[POOL_STORES_MAX];
    struct part_copies *source;
    char tmp[SOURCE_NAME_SIZE + 32];
    struct store_file *file;
    bool made;          /* the file in tmp/ exists */
    bool target_failed; /* the error is the target's, not that of a copy */
};

static void note_damage(void *arg, size_t copy, int64_t block, const struct err *e)
{
    struct copy *c = arg;
    size_t at = c->from[copy];
    c->damaged[at] = c->s->found_damage = true;
    kept_note_damage(&c->s->kept, c->part, at, block, e);
}

static struct part_copies_options options_for(struct copy *c)
{
    struct part_copies_options o = {.repository = c->s->p->kept.repository,
                                    .source = c->s->p->kept.source,
                                    .ref = c->part->ref,
                                    .count = c->count,
                                    .damaged = note_damage,
                                    .arg = c,
                                    .cancel = c->s->p->kept.cancel};
    /* verify may have found that the content is wrong: then right digests do not clear it. */
    for (size_t i = 0; i < POOL_STORES_MAX; i++)
        o.content |= c->part->at[i].damaged;
    for (size_t i = 0; i < c->count; i++) {
        o.copies[i].store = sync_store(c->s, c->from[i]);
        o.copies[i].mark = c->part->at[c->from[i]].mark;
    }
    return o;
}

/* ---- writing ---- */

static int begin_file(struct copy *c, struct err *e)
{
    struct store *store = sync_store(c->s, c->to);
    uint8_t random[8];
    char hex[2 * sizeof random + 1];
    io_random(random, sizeof random);
    hex_encode(random, sizeof random, hex);
    snprintf(c->tmp, sizeof c->tmp, "tmp/%s-%s", c->s->p->kept.source, hex);
    int rc = store_create(store, c->tmp, &c->file, e);
    if (rc == ERR_NOT_FOUND && store_make_dir(store, "tmp", e) == 0)
        rc = store_create(store, c->tmp, &c->file, e);
    c->made = rc == 0;
    return rc;
}

static int write_piece(void *arg, const uint8_t *p, size_t n, struct err *e)
{
    struct copy *c = arg;
    int rc = store_write(c->file, p, n, e);
    c->target_failed = rc != 0;
    if (rc == 0 && c->s->p->copied)
        c->s->p->copied(c->s->p->kept.arg, sync_store(c->s, c->to), n);
    return rc;
}

/* A missing file is fine: an earlier run removed it. */
static int remove_file(struct store *store, const char *path, struct err *e)
{
    int rc = store_remove(store, path, e);
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

/* The new file is whole and durable in tmp/: only now may the old one lose its name. */
static int set_aside(struct copy *c, enum part_mark mark, struct err *e)
{
    struct store *store = sync_store(c->s, c->to);
    struct sync_path old = sync_path(c->s, &c->part->ref, mark);
    struct sync_path bad = sync_path(c->s, &c->part->ref, PART_BAD);
    int rc = remove_file(store, bad.s, e);
    if (rc == 0)
        rc = store_rename(store, old.s, bad.s, e);
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

/* A snapshot gets its own mark where all that it lists is; a mark that it had is never taken from
 * it here, for it may be the only one. */
static enum part_mark final_mark(const struct copy *c, const struct part_meta *meta)
{
    const struct kept_part *part = c->part;
    bool had_it = part->at[c->to].mark == PART_SNAP;
    bool complete =
        part->snapshot && meta->has_snapshot && kept_holds_all(&c->s->kept, &meta->snapshot, c->to);
    return had_it || complete ? PART_SNAP : PART_PACK;
}

static int publish(struct copy *c, enum part_mark mark, int64_t mtime_us, struct err *e)
{
    struct store *store = sync_store(c->s, c->to);
    struct kept_copy *old = &c->part->at[c->to];
    struct sync_path to = sync_path(c->s, &c->part->ref, mark);
    bool set_aside_any = old->mark != PART_BAD;
    int rc = sync_may_change(c->s, c->to, 0, e);
    if (rc == 0 && set_aside_any) {
        rc = store_sync(c->file, e);
        if (rc == 0)
            rc = set_aside(c, old->mark, e);
    }
    if (rc == 0)
        rc = store_publish(c->file, c->tmp, to.s, mtime_us, e);
    if (rc ==
        ERR_EXISTS) { /* another copy, or another sync's in the meantime: ours is known good */
        rc = set_aside(c, mark, e);
        if (rc == 0)
            rc = store_publish(c->file, c->tmp, to.s, mtime_us, e);
        set_aside_any = true;
    }
    if (rc == ERR_NOT_FOUND && store_make_dir(store, c->s->p->kept.source, e) == 0)
        rc = store_publish(c->file, c->tmp, to.s, mtime_us, e);
    if (rc)
        return rc;
    c->made = false;
    rc = store_close_file(TAKE_PTR(c->file), e);
    if (rc == 0 && (set_aside_any || old->others))
        rc = remove_file(store, sync_path(c->s, &c->part->ref, PART_BAD).s, e);
    return rc;
}

static void book(struct copy *c, enum part_mark mark, int64_t mtime_us)
{
    struct sync_worker_result *result = &c->s->result->workers[c->to];
    struct kept_copy *copy = &c->part->at[c->to];
    bool was_bad = copy->mark != PART_BAD;
    result->files++;
    result->bytes += c->part->ref.size_bytes;
    result->mended += was_bad;
    copy->mark = mark;
    copy->size_bytes = c->part->ref.size_bytes;
    copy->mtime_us = mtime_us;
    if (was_bad || copy->damaged)
        kept_note_mended(&c->s->kept, c->part, c->to);
}

static int write_whole(struct copy *c, size_t *failed, struct err *e)
{
    enum part_mark mark = final_mark(c, part_copies_meta(c->source));
    int64_t mtime_us = mark == PART_SNAP ? c->part->mtime_us : -1;
    int rc = sync_may_change(c->s, c->to, c->part->ref.size_bytes, e);
    if (rc == 0)
        rc = begin_file(c, e);
    c->target_failed = rc != 0;
    if (rc == 0)
        rc = part_copies_read(c->source, write_piece, c, failed, e);
    if (rc == 0) {
        rc = publish(c, mark, mtime_us, e);
        c->target_failed = rc != 0;
    }
    if (rc == 0)
        book(c, mark, mtime_us);
    return rc;
}

/* What is unfinished goes; when that cannot be done it is left for prune. */
static void discard(struct copy *c)
{
    struct store *store = sync_store(c->s, c->to);
    store_close_file(TAKE_PTR(c->file), NULL);
    if (c->made && !c->s->kept.gone[c->to])
        store_remove(store, c->tmp, NULL);
    part_copies_close(TAKE_PTR(c->source));
}

/* ---- one part ---- */

/* The other's copy first; the worker's own, when it has the right size, for single blocks. */
static void choose_sources(struct copy *c)
{
    const struct kept *k = &c->s->kept;
    size_t other = 1 - c->to;
    if (k->p->store_count == 2 && !k->gone[other] && kept_has_copy(c->part, other))
        c->from[c->count++] = other;
    if (kept_has_copy(c->part, c->to))
        c->from[c->count++] = c->to;
}

/* Copies that were marked as damaged but gave every byte are whole after all. */
static void clear_marks(struct copy *c)
{
    for (size_t i = 0; i < c->count; i++) {
        size_t at = c->from[i];
        bool was_read = i == 0; /* the further ones only where the first failed */
        if (was_read && at != c->to && c->part->at[at].damaged && !c->damaged[at])
            kept_note_mended(&c->s->kept, c->part, at);
    }
}

/* Books an error where it belongs; what is left is one that ends the sync. */
static int settle_error(struct copy *c, int rc, size_t failed, const struct err *own, struct err *e)
{
    if (sync_is_cancelled(c->s))
        return sync_cancelled(c->s, e);
    if (rc == ERR_NOMEM) {
        *e = *own;
        return rc;
    }
    if (c->target_failed)
        sync_book_error(c->s, c->to, own, true);
    else if (failed < c->count)
        sync_book_error(c->s, c->from[failed], own, false);
    return 0; /* else damage, which was told, or a file that is gone */
}

/* Only its own copy is at hand: is it really damaged? */
static int check_own(struct copy *c, size_t *failed, struct err *e)
{
    int rc = part_copies_read(c->source, NULL, NULL, failed, e);
    if (rc == 0 && !c->damaged[c->to])
        kept_note_mended(&c->s->kept, c->part, c->to);
    return rc;
}

int sync_copy(struct sync *s, struct kept_part *part, size_t to, struct err *e)
{
    struct copy c = {.s = s, .part = part, .to = to};
    struct err own = ERR_INIT;
    choose_sources(&c);
    if (c.count == 0)
        return 0;
    int rc = s->p->turn ? s->p->turn(s->p->kept.arg, e) : 0;
    if (rc)
        return rc;
    size_t failed = c.count;
    struct part_copies_options o = options_for(&c);
    rc = part_copies_open(&o, &c.source, &failed, &own);
    if (rc == 0 && c.from[0] != to)
        rc = write_whole(&c, &failed, &own);
    else if (rc == 0)
        rc = check_own(&c, &failed, &own);
    if (rc == 0)
        clear_marks(&c);
    else
        rc = settle_error(&c, rc, failed, &own, e);
    discard(&c);
    return rc;
}

/* ---- leftovers ---- */

static int remove_other(struct sync *s, struct kept_part *part, size_t at, enum part_mark mark,
                        struct err *e)
{
    struct sync_path path = sync_path(s, &part->ref, mark);
    struct store_stat st;
    int rc = store_stat(sync_store(s, at), path.s, &st, e);
    if (rc == 0)
        rc = sync_may_change(s, at, 0, e);
    if (rc == 0)
        rc = store_remove(sync_store(s, at), path.s, e);
    s->result->workers[at].removed += rc == 0;
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

int sync_remove_others(struct sync *s, struct kept_part *part, size_t at, struct err *e)
{
    struct copy c = {.s = s, .part = part, .to = at, .count = 1, .from = {at}};
    struct part_copies_options o = options_for(&c);
    int rc = part_copies_open(&o, &c.source, NULL, e);
    if (rc == 0)
        rc = part_copies_read(c.source, NULL, NULL, NULL, e);
    part_copies_close(c.source);
    if (rc)
        return damage_is(rc) ? 0 : rc; /* damage was told: the next round copies it anew */
    for (enum part_mark mark = PART_SNAP; rc == 0 && mark <= PART_BAD; mark++)
        if (mark != part->at[at].mark)
            rc = remove_other(s, part, at, mark, e);
    part->at[at].others = rc != 0;
    return rc;
}
