#include "restore/verify.h"

#include <inttypes.h>
#include <string.h>

#include "restore/part_copies.h"
#include "restore/verify_internal.h"
#include "snapshot/part_reader.h"
#include "syncd/base/clock.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

static struct store *store_at(const struct verify *v, size_t at)
{
    return v->p->kept.at[at].store;
}

int verify_cancelled(const struct verify *v, struct err *e)
{
    if (!v->p->kept.cancel || !atomic_load(v->p->kept.cancel))
        return 0;
    return err_set(e, ERR_CANCELLED, v->p->kept.source, "stopped; what was read stays known");
}

int verify_settle(struct verify *v, size_t at, int rc, const struct err *own, struct err *e)
{
    struct err *err = &v->result->workers[at].err;
    if (rc == 0 || damage_is(rc) || rc == ERR_NOT_FOUND)
        return 0;
    if (verify_cancelled(v, e))
        return ERR_CANCELLED;
    if (rc == ERR_NOMEM) {
        *e = *own;
        return rc;
    }
    v->kept.gone[at] |= rc == ERR_CONNECT || rc == ERR_TIMEOUT || rc == ERR_CANCELLED;
    if (err->code == 0)
        *err = *own;
    return 0;
}

/* ---- metadata ---- */

static int check_metadata(struct verify *v, struct kept_part *part, size_t at, struct err *e)
{
    struct part_file *f = NULL;
    struct err own = ERR_INIT;
    int rc = part_open(store_at(v, at), v->p->kept.source, &part->ref, part->at[at].mark,
                       v->p->kept.repository->id, &f, &own);
    part_close(f);
    v->result->workers[at].files += rc == 0;
    if (damage_is(rc))
        kept_note_damage(&v->kept, part, at, DAMAGE_NO_BLOCK, &own);
    return verify_settle(v, at, rc, &own, e);
}

/* Copies known to be damaged from before are looked at as if they were not, and then read. */
static int check_all_metadata(struct verify *v, size_t at, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < v->kept.count && !v->kept.gone[at]; i++) {
        struct kept_part *part = &v->kept.parts[i];
        v->must_read[i] = kept_has_copy(part, at) && part->at[at].damaged;
        rc = verify_cancelled(v, e);
        if (rc == 0 && part->wanted && kept_has_copy(part, at))
            rc = check_metadata(v, part, at, e);
    }
    return rc;
}

/* ---- blocks ---- */

struct reading {
    struct verify *v;
    struct kept_part *part;
    size_t at[PART_COPIES_MAX]; /* which worker each copy is on */
    bool damaged, in_block;     /* in_block: its metadata is whole */
    bool count;                 /* for progress */
};

static void note_block(void *arg, size_t copy, int64_t block, const struct err *e)
{
    struct reading *r = arg;
    r->damaged = true;
    r->in_block |= block != DAMAGE_NO_BLOCK;
    kept_note_damage(&r->v->kept, r->part, r->at[copy], block, e);
}

static int count_bytes(void *arg, const uint8_t *p, size_t n, struct err *e)
{
    struct reading *r = arg;
    (void)p;
    (void)e;
    r->v->result->workers[r->at[0]].bytes += n;
    if (r->v->p->read)
        r->v->p->read(r->v->p->kept.arg, store_at(r->v, r->at[0]), n);
    return 0;
}

/* Reads the part from the copies on `count` workers, r->at; *ret_failed is the one that an error
 * other than damage is of. */
static int read_copies(struct reading *r, size_t count, bool go_on, size_t *ret_failed,
                       struct err *e)
{
    struct verify *v = r->v;
    struct part_copies *c = NULL;
    struct part_copies_options o = {.repository = v->p->kept.repository,
                                    .source = v->p->kept.source,
                                    .ref = r->part->ref,
                                    .count = count,
                                    .content = true,
                                    .go_on = go_on,
                                    .damaged = note_block,
                                    .arg = r,
                                    .cancel = v->p->kept.cancel};
    for (size_t i = 0; i < count; i++) {
        o.copies[i].store = store_at(v, r->at[i]);
        o.copies[i].mark = r->part->at[r->at[i]].mark;
    }
    int rc = part_copies_open(&o, &c, ret_failed, e);
    if (rc == 0)
        rc = part_copies_read(c, r->count ? count_bytes : NULL, r, ret_failed, e);
    part_copies_close(c);
    return rc;
}

static int read_part(struct verify *v, size_t index, size_t at, struct err *e)
{
    struct kept_part *part = &v->kept.parts[index];
    struct reading r = {.v = v, .part = part, .at = {at}, .count = true};
    struct err own = ERR_INIT;
    size_t failed;
    int rc = read_copies(&r, 1, true, &failed, &own);
    v->result->workers[at].files -= r.in_block && v->result->workers[at].files > 0;
    if (rc == 0 && !r.damaged) {
        if (part->at[at].damaged)
            kept_note_mended(&v->kept, part, at);
        if (v->p->verified)
            v->p->verified(v->p->kept.arg, store_at(v, at), &part->ref, clock_now_us());
    }
    return verify_settle(v, at, rc, &own, e);
}

/* A part on the way to be chosen for reading. */
struct turn {
    int64_t verified_at_us;
    size_t index; /* in kept.parts, and so by age of the part */
};

static int compare_turns(const void *x, const void *y)
{
    const struct turn *a = x, *b = y;
    if (a->verified_at_us != b->verified_at_us)
        return a->verified_at_us < b->verified_at_us ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

/* Those that must be read come first, and then the longest unread ones; ret->count of them are to
 * be read. */
struct turns {
    struct turn *items;
    size_t count;
    uint64_t bytes;
};

static int choose_turns(struct verify *v, size_t at, struct turns *ret, struct err *e)
{
    size_t all = 0;
    uint64_t bytes = 0, chosen = 0;
    ret->items = mem_alloc(v->kept.count, sizeof *ret->items);
    if (!ret->items && v->kept.count)
        return err_nomem(e);
    for (size_t i = 0; i < v->kept.count; i++) {
        const struct kept_part *part = &v->kept.parts[i];
        if (!part->wanted || !kept_has_copy(part, at))
            continue;
        int64_t when_us =
            v->p->verified_at ? v->p->verified_at(v->p->kept.arg, store_at(v, at), &part->ref) : 0;
        ret->items[all++] = (struct turn){v->must_read[i] ? INT64_MIN : when_us, i};
        bytes += part->ref.size_bytes;
    }
    if (all)
        qsort(ret->items, all, sizeof *ret->items, compare_turns);
    /* Rounded up: a small repository is read, too. */
    uint64_t want =
        bytes / 100 * v->p->read_percent + (bytes % 100 * v->p->read_percent + 99) / 100;
    for (; ret->count < all; ret->count++) {
        const struct turn *t = &ret->items[ret->count];
        if (!v->must_read[t->index] && chosen >= want)
            break;
        chosen += v->kept.parts[t->index].ref.size_bytes;
    }
    ret->bytes = chosen;
    return 0;
}

static int read_blocks(struct verify *v, size_t at, struct err *e)
{
    struct turns turns = {0};
    int rc = choose_turns(v, at, &turns, e);
    if (rc == 0 && v->p->total)
        v->p->total(v->p->kept.arg, store_at(v, at), turns.bytes);
    for (size_t i = 0; rc == 0 && i < turns.count && !v->kept.gone[at]; i++) {
        rc = verify_cancelled(v, e);
        if (rc == 0)
            rc = read_part(v, turns.items[i].index, at, e);
    }
    free(turns.items);
    return rc;
}

/* ---- can it be mended? ---- */

/* Reads what the workers have of a part that is damaged on one of them: is there every byte between
 * them? A part that is only missing on one is believed to be whole on the other, as far as that one
 * was verified. */
static int try_to_mend(struct verify *v, struct kept_part *part, bool *ret, struct err *e)
{
    struct reading r = {.v = v, .part = part};
    struct err own = ERR_INIT;
    size_t count = 0, failed = 0, missing = 0, held = 0;
    for (size_t i = 0; i < v->p->kept.store_count; i++) {
        missing += part->at[i].mark == PART_BAD;
        held += kept_holds(part, i);
        if (kept_has_copy(part, i) && !v->kept.gone[i])
            r.at[count++] = i;
    }
    *ret = held && missing;
    if (*ret || count == 0)
        return 0;
    int rc = read_copies(&r, count, false, &failed, &own);
    *ret = rc == 0;
    return failed < count ? verify_settle(v, r.at[failed], rc, &own, e) : 0;
}

static int look_for_mending(struct verify *v, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < v->kept.count; i++) {
        struct kept_part *part = &v->kept.parts[i];
        bool bad = false, mendable = false;
        for (size_t at = 0; at < v->p->kept.store_count; at++)
            bad |= part->wanted && !kept_holds(part, at);
        if (!bad)
            continue;
        rc = verify_cancelled(v, e);
        if (rc == 0)
            rc = try_to_mend(v, part, &mendable, e);
        v->result->mendable += mendable;
        v->result->unmendable += !mendable;
    }
    return rc;
}

/* ---- all ---- */

static int check_worker(struct verify *v, size_t at, struct err *e)
{
    for (size_t i = 0; i < v->kept.count; i++) {
        const struct kept_part *part = &v->kept.parts[i];
        v->result->workers[at].missing += part->wanted && part->at[at].mark == PART_BAD;
    }
    int rc = check_all_metadata(v, at, e);
    if (rc == 0)
        rc = verify_entries(v, at, e);
    return rc ? rc : read_blocks(v, at, e);
}

static int run(struct verify *v, struct err *e)
{
    size_t workers = v->p->kept.store_count;
    int rc = kept_read(&v->p->kept, &v->kept, e);
    for (size_t i = 0; i < workers; i++)
        if (v->kept.gone[i])
            v->result->workers[i].err = v->kept.gone_err[i];
    v->must_read = mem_alloc(v->kept.count, sizeof *v->must_read);
    if (rc == 0 && !v->must_read && v->kept.count)
        rc = err_nomem(e);
    for (size_t i = 0; rc == 0 && i < workers; i++)
        if (!v->kept.gone[i])
            rc = check_worker(v, i, e);
    return rc ? rc : look_for_mending(v, e);
}

int verify_source(const struct verify_params *p, struct verify_result *ret, struct err *e)
{
    struct verify v = {.p = p, .result = ret};
    *ret = (struct verify_result){0};
    int rc = run(&v, e);
    ret->snapshots = v.kept.snapshots;
    ret->newer = v.kept.newer;
    for (size_t i = 0; i < p->kept.store_count; i++) {
        ret->workers[i].damaged = v.kept.damaged[i];
        v.kept.damaged[i] = (struct damage_list){0};
    }
    free(v.must_read);
    kept_free(&v.kept);
    return rc;
}

void verify_result_free(struct verify_result *r)
{
    for (size_t i = 0; i < POOL_STORES_MAX; i++)
        damage_list_free(&r->workers[i].damaged);
}
