#include "snapshot/plan.h"

#include <string.h>

#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

#define SEQUENCE_REAL_MAX (UINT64_C(1) << 48) /* a part a millisecond for 8,900 years */

/* A bad sector or a lost permission on a worker is damage, too: the part is passed over and what
 * it held is shipped again. */
static int as_damage(int rc, struct err *e)
{
    if (rc == ERR_IO || rc == ERR_PERMISSION)
        rc = e->code = ERR_DAMAGED;
    return rc;
}

int plan_part(struct plan *p, const struct part_ref *ref, const struct part_file **ret,
              struct err *e)
{
    return as_damage(pool_part(p->o.pool, ref, ret, e), e);
}

/* ---- the parent ---- */

/* The listings of both workers as one, newest last, each part once. */
static int union_of_listings(const struct pool *pool, struct listing *ret, struct err *e)
{
    size_t at[POOL_STORES_MAX] = {0};
    for (;;) {
        const struct listed_part *best = NULL;
        for (size_t i = 0; i < pool->store_count; i++) {
            const struct listing *l = pool->at[i].listing;
            if (at[i] < l->count && (!best || part_order(&l->parts[at[i]].ref, &best->ref) < 0))
                best = &l->parts[at[i]];
        }
        if (!best)
            return 0;
        struct listed_part one = *best;
        for (size_t i = 0; i < pool->store_count; i++) {
            const struct listing *l = pool->at[i].listing;
            while (at[i] < l->count && part_same(&l->parts[at[i]].ref, &one.ref)) {
                if (l->parts[at[i]].mark < one.mark)
                    one.mark = l->parts[at[i]].mark;
                at[i]++;
            }
        }
        if (mem_grow(&ret->parts, &ret->cap, ret->count + 1, sizeof *ret->parts))
            return err_nomem(e);
        ret->parts[ret->count++] = one;
    }
}

/* Ours by the catalog, or vouched for by both workers alike. */
static bool is_trusted(const struct plan_options *o, const struct part_ref *ref)
{
    return o->is_ours(o->arg, ref) || (o->pool->store_count > 1 && pool_holders(o->pool, ref) > 1);
}

static bool is_usable(const struct plan_options *o, const struct part_ref *ref)
{
    for (size_t i = 0; i < o->pool->store_count; i++)
        if (listing_holds(o->pool->at[i].listing, ref) &&
            !(o->is_damaged && o->is_damaged(o->arg, o->pool->at[i].store, ref)))
            return true;
    return false;
}

/* Whether some worker that answers has everything that the snapshot needs. */
static bool is_whole_somewhere(const struct pool *pool, const struct snapshot *s)
{
    for (size_t i = 0; i < pool->store_count; i++)
        if (listing_holds_all(pool->at[i].listing, s->parts, s->part_count))
            return true;
    return false;
}

static int note_used(struct plan *p, const struct part_run *run, bool pinned, struct err *e)
{
    struct part_ref key = {.epoch = run->epoch, .sequence = run->sequence};
    size_t at = p->used_count;
    while (at > 0) {
        struct plan_used *u = &p->used[at - 1];
        int order =
            part_order(&(struct part_ref){.epoch = u->epoch, .sequence = u->sequence}, &key);
        if (order == 0) {
            u->chunks += run->count;
            u->pinned |= pinned;
            return 0;
        }
        if (order < 0)
            break;
        at--;
    }
    if (p->used_count >= PART_LISTED_MAX)
        return err_set(e, ERR_DAMAGED, NULL, "the parent's entries lie in too many parts");
    if (mem_grow(&p->used, &p->used_cap, p->used_count + 1, sizeof *p->used))
        return err_nomem(e);
    memmove(&p->used[at + 1], &p->used[at], (p->used_count - at) * sizeof *p->used);
    p->used[at] = (struct plan_used){run->epoch, run->sequence, run->count, pinned};
    p->used_count++;
    return 0;
}

static int note_entry(struct plan *p, const struct entry *entry, struct err *e)
{
    struct run_reader r;
    struct part_run run;
    int rc;
    run_read(&r, &entry->runs);
    while ((rc = run_next(&r, &run, e)) == 1) {
        rc = note_used(p, &run, entry->carried != NULL, e);
        if (rc)
            break;
    }
    return rc;
}

/* All go to the spool; in memory stays what is needed by its name. */
static int keep_entry(void *arg, struct entry *entry, struct err *e)
{
    struct plan *p = arg;
    int rc = p->o.entries ? spool_add(p->o.entries, entry, NULL, e) : 0;
    if (rc == 0)
        rc = note_entry(p, entry, e);
    p->has_wanted |= p->o.lost && plan_lost_has(p->o.lost, entry->path);
    p->size_bytes += entry->type == ENTRY_CONFIG ? 0 : entry_size(entry);
    if (rc || (entry->type != ENTRY_IMAGE && entry->type != ENTRY_CONFIG))
        return rc;
    if (mem_grow(&p->entries, &p->entry_cap, p->entry_count + 1, sizeof *p->entries))
        return err_nomem(e);
    p->entries[p->entry_count++] = *entry;
    *entry = (struct entry){0};
    return 0;
}

static int read_entries(struct plan *p, const struct snapshot *s, struct err *e)
{
    OWN_BLOCK_READER struct block_reader *r = NULL;
    int rc = block_reader_new(&r, e);
    for (size_t i = 0; rc == 0 && i < s->section.run_count; i++)
        rc = note_used(p, &s->section.runs[i], false, e);
    return rc ? rc : pool_entries(p->o.pool, s, r, keep_entry, p, e);
}

static void drop_entries(struct plan *p)
{
    for (size_t i = 0; i < p->entry_count; i++)
        entry_free(&p->entries[i]);
    p->entry_count = p->used_count = 0;
    p->size_bytes = 0;
    p->has_wanted = false;
    if (p->o.entries)
        spool_empty(p->o.entries);
}

/* What an overruled leader wrote is never built on, also when that was this machine. */
static bool is_history(const struct plan *p, const struct part_ref *ref)
{
    return epoch_has(p->o.pool->ruler, p->o.pool->source, ref);
}

/* Every part can be read, as far as is known without its blocks. */
static int check_parts(struct plan *p, const struct snapshot *s, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < s->part_count; i++) {
        const struct part_file *f;
        if (is_usable(&p->o, &s->parts[i]))
            rc = plan_part(p, &s->parts[i], &f, e);
        else
            rc = ERR_DAMAGED;
    }
    return rc;
}

/* Reads the snapshot and its entries. ERR_NOT_FOUND: it is none to build on. */
static int try_parent(struct plan *p, const struct listed_part *part, bool wanted,
                      struct snapshot *s, struct err *e)
{
    struct part_ref ref = part->ref;
    if (part->mark != PART_SNAP || !is_history(p, &ref) || !is_trusted(&p->o, &ref))
        return ERR_NOT_FOUND;
    ref.size_bytes = 0; /* each worker's own */
    int rc = pool_snapshot(p->o.pool, &ref, s, e);
    if (rc == 0 && !is_whole_somewhere(p->o.pool, s))
        rc = ERR_NOT_FOUND;
    if (rc == 0)
        rc = read_entries(p, s, e);
    if (rc == 0 && wanted)
        rc = p->has_wanted ? check_parts(p, s, e) : ERR_NOT_FOUND;
    return as_damage(rc, e);
}

/* The newest snapshot whose parts are all on a worker that answers. A damaged one is passed over.
 * `wanted`: it is to have, whole, what could not be carried over from the first choice. */
static int choose_parent(struct plan *p, const struct listing *all, bool wanted, struct err *e)
{
    for (size_t i = all->count; i > 0; i--) {
        OWN_SNAPSHOT struct snapshot s = {0};
        int rc = try_parent(p, &all->parts[i - 1], wanted, &s, e);
        if (rc)
            drop_entries(p);
        if (rc == ERR_DAMAGED || rc == ERR_NOT_FOUND || rc == ERR_FOREIGN)
            continue;
        if (rc)
            return rc;
        p->parent = s;
        s = (struct snapshot){0};
        p->has_parent = true;
        return 0;
    }
    return 0;
}

const struct entry *plan_entry(const struct plan *p, const char *path)
{
    for (size_t i = 0; i < p->entry_count; i++)
        if (strcmp(p->entries[i].path, path) == 0)
            return &p->entries[i];
    return NULL;
}

/* ---- the list ---- */

static int add_listed(struct plan *p, size_t *cap, const struct part_ref *ref, struct err *e)
{
    if (mem_grow(&p->listed, cap, p->listed_count + 1, sizeof *p->listed))
        return err_nomem(e);
    p->listed[p->listed_count++] = *ref;
    return 0;
}

/* The parent's parts, but lost and rotten ones, and newer complete packs that a cut run left. */
static int make_list(struct plan *p, const struct listing *all, struct err *e)
{
    size_t cap = 0;
    int rc = 0;
    p->as_parent = p->has_parent;
    for (size_t i = 0; rc == 0 && i < p->parent.part_count; i++) {
        if (is_usable(&p->o, &p->parent.parts[i]))
            rc = add_listed(p, &cap, &p->parent.parts[i], e);
        else
            p->as_parent = false;
    }
    for (size_t i = 0; rc == 0 && !p->o.no_leftovers && i < all->count; i++) {
        const struct part_ref *ref = &all->parts[i].ref;
        if (all->parts[i].mark == PART_BAD || !is_usable(&p->o, ref) || !is_history(p, ref) ||
            !p->o.is_ours(p->o.arg, ref) ||
            (p->listed_count && part_order(ref, &p->listed[p->listed_count - 1]) <= 0) ||
            (p->has_parent && part_order(ref, &p->parent.ref) <= 0))
            continue;
        rc = add_listed(p, &cap, ref, e);
        p->as_parent = false;
    }
    return rc;
}

/* ---- fingerprints ---- */

static struct plan_image *find_image(struct plan *p, uint64_t id)
{
    for (size_t i = 0; i < p->image_count; i++)
        if (p->images[i].id == id)
            return &p->images[i];
    return NULL;
}

static int add_image(struct plan *p, uint64_t id, struct plan_image **ret, bool *ret_kept,
                     struct err *e)
{
    struct fingerprints_head head = {.image = id};
    memcpy(head.repository, p->o.pool->repository->id, REPO_ID_SIZE);
    memcpy(head.snapshot, p->parent.ref.id, DIGEST_SIZE);
    if (p->image_count >= PLAN_IMAGES_MAX)
        return err_set(e, ERR_LIMIT, NULL, "more than %d databases in one source", PLAN_IMAGES_MAX);
    if (mem_grow(&p->images, &p->image_cap, p->image_count + 1, sizeof *p->images))
        return err_nomem(e);
    struct plan_image *m = &p->images[p->image_count];
    int rc = fingerprints_begin(p->o.fingerprint_dir, &head, &m->table, ret_kept, e);
    if (rc)
        return rc;
    m->id = id;
    m->known = false;
    for (size_t i = 0; i < p->entry_count; i++)
        m->known |= p->entries[i].type == ENTRY_IMAGE && p->entries[i].image.id == id;
    p->image_count++;
    *ret = m;
    return 0;
}

static int set_from_part(const struct part_meta *meta, uint64_t image, struct fingerprints *table,
                         struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < meta->block_count; i++) {
        if (meta->blocks[i].kind != BLOCK_PAGES || meta->blocks[i].image != image)
            continue;
        struct block_walk w = block_walk_begin(&meta->blocks[i]);
        while (rc == 0 && block_walk_next(&w))
            rc = fingerprints_set(table, w.page, w.fingerprint, e);
    }
    return rc;
}

/* Rebuilds a table from the chunk lists of the listed parts from `first` on, oldest first. *ret_bad
 * is the part at which it failed. */
static int rebuild(struct plan *p, struct plan_image *m, size_t first, size_t *ret_bad,
                   struct err *e)
{
    for (size_t i = first; i < p->listed_count; i++) {
        const struct part_file *f;
        *ret_bad = i;
        int rc = plan_part(p, &p->listed[i], &f, e);
        if (rc == 0)
            rc = set_from_part(f->meta, m->id, m->table, e);
        if (rc)
            return rc;
    }
    return 0;
}

/* How many of the listed parts, from the oldest, are exactly the parent's parts. */
static size_t parent_prefix(const struct plan *p)
{
    size_t n = 0;
    while (n < p->parent.part_count && n < p->listed_count &&
           part_same(&p->parent.parts[n], &p->listed[n]))
        n++;
    return n == p->parent.part_count ? n : 0;
}

static int make_table(struct plan *p, uint64_t image, size_t *ret_bad, struct err *e)
{
    struct plan_image *m = NULL;
    bool kept = false;
    int rc = add_image(p, image, &m, &kept, e);
    size_t covered = rc == 0 && kept ? parent_prefix(p) : 0;
    if (rc == 0 && kept && covered == 0) {
        /* The kept table speaks of parts that are not listed any more: start from nothing. */
        struct fingerprints_head none = {.image = image};
        fingerprints_drop(TAKE_PTR(m->table));
        rc = fingerprints_begin(p->o.fingerprint_dir, &none, &m->table, &kept, e);
    }
    return rc ? rc : rebuild(p, m, covered, ret_bad, e);
}

int plan_table(struct plan *p, uint64_t image, struct fingerprints **ret, bool *ret_known,
               struct err *e)
{
    struct plan_image *m = find_image(p, image);
    bool kept;
    /* One that plan_prepare did not meet is in no listed part that counts: nothing is known of it.
     */
    int rc = m ? 0 : add_image(p, image, &m, &kept, e);
    if (rc)
        return rc;
    *ret = m->table;
    *ret_known = m->known;
    return 0;
}

int plan_rest(struct plan *p, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < p->image_count; i++) {
        p->images[i].shipped |= fingerprints_touched(p->images[i].table);
        rc = fingerprints_rest(p->images[i].table, e);
    }
    return rc;
}

static void drop_tables(struct plan *p)
{
    for (size_t i = 0; i < p->image_count; i++)
        fingerprints_drop(p->images[i].table);
    p->image_count = 0;
}

/* Images that the parent has no entry for, but a cut run has begun to ship. */
static int tables_of_leftovers(struct plan *p, size_t *ret_bad, struct err *e)
{
    int rc = 0;
    for (size_t i = parent_prefix(p); rc == 0 && i < p->listed_count; i++) {
        const struct part_file *f;
        uint64_t before = 0;
        *ret_bad = i;
        rc = plan_part(p, &p->listed[i], &f, e);
        for (size_t k = 0; rc == 0 && k < f->meta->block_count; k++) {
            uint64_t image = f->meta->blocks[k].image;
            if (f->meta->blocks[k].kind != BLOCK_PAGES || image == before)
                continue;
            before = image;
            if (!find_image(p, image) && (rc = make_table(p, image, ret_bad, e)) == 0)
                rc = plan_part(p, &p->listed[i], &f, e);
            struct plan_image *m = find_image(p, image);
            if (m && p->has_parent && part_order(&p->listed[i], &p->parent.ref) > 0)
                m->later = true;
        }
    }
    return rc;
}

static void index_chunks(struct plan *p, const struct part_ref *ref, const struct part_meta *meta)
{
    for (size_t i = 0; i < meta->block_count; i++) {
        const struct part_block *b = &meta->blocks[i];
        struct block_walk w = block_walk_begin(b);
        while (b->kind == BLOCK_CHUNKS && block_walk_next(&w)) {
            struct part_run at = {ref->epoch, ref->sequence, b->first_chunk + w.index, 1};
            chunk_table_add(p->chunks, w.chunk_id, &at);
        }
    }
}

/* Opens the table of chunks and brings in what it does not know yet. */
static int prepare_chunks(struct plan *p, size_t *ret_bad, struct err *e)
{
    struct chunk_table_head head = {0};
    bool known = false;
    memcpy(head.repository, p->o.pool->repository->id, REPO_ID_SIZE);
    memcpy(head.snapshot, p->parent.ref.id, DIGEST_SIZE);
    int rc = chunk_table_open(p->o.fingerprint_dir, &head, &p->chunks, &known, e);
    if (rc)
        return rc;
    p->next_sequence = MAX(p->next_sequence, chunk_table_highest(p->chunks) + 1);
    chunk_table_count_on(p->chunks, p->listed, p->listed_count, p->epoch, p->next_sequence);
    for (size_t i = 0; rc == 0 && i < p->listed_count; i++) {
        const struct part_file *f;
        *ret_bad = i;
        if (known && p->has_parent && part_order(&p->listed[i], &p->parent.ref) <= 0)
            continue;
        rc = plan_part(p, &p->listed[i], &f, e);
        if (rc == 0)
            index_chunks(p, &p->listed[i], f->meta);
    }
    return rc;
}

static int prepare_once(struct plan *p, size_t *ret_bad, struct err *e)
{
    int rc = plan_consolidate(p, ret_bad, e);
    if (rc == 0)
        rc = prepare_chunks(p, ret_bad, e);
    for (size_t i = 0; rc == 0 && i < p->entry_count; i++)
        if (p->entries[i].type == ENTRY_IMAGE && !find_image(p, p->entries[i].image.id))
            rc = make_table(p, p->entries[i].image.id, ret_bad, e);
    if (rc == 0 && !p->as_parent)
        rc = tables_of_leftovers(p, ret_bad, e);
    return rc ? rc : plan_rest(p, e);
}

static void forget_shipped(struct plan *p)
{
    for (size_t i = 0; i < p->image_count; i++)
        p->images[i].shipped = false; /* it was only the table that was filled */
}

int plan_prepare(struct plan *p, struct err *e)
{
    for (;;) {
        size_t bad = p->listed_count;
        int rc = prepare_once(p, &bad, e);
        if (rc == 0) {
            forget_shipped(p);
            return plan_find_lost(p, e);
        }
        if ((rc != ERR_DAMAGED && rc != ERR_NOT_FOUND && rc != ERR_FOREIGN) ||
            bad >= p->listed_count)
            return rc;
        /* A part that nobody can read is left off: what only it held is shipped again. */
        drop_tables(p);
        chunk_table_close(TAKE_PTR(p->chunks));
        memmove(&p->listed[bad], &p->listed[bad + 1],
                (p->listed_count - bad - 1) * sizeof *p->listed);
        p->listed_count--;
        p->as_parent = false;
    }
}

int plan_keep_tables(struct plan *p, const struct part_ref *snapshot,
                     const struct entry_image *images, size_t count, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct plan_image *m = find_image(p, images[i].id);
        struct fingerprints_head head = {.image = images[i].id};
        if (!m || !m->table)
            continue;
        memcpy(head.repository, p->o.pool->repository->id, REPO_ID_SIZE);
        memcpy(head.snapshot, snapshot->id, DIGEST_SIZE);
        rc = fingerprints_keep(TAKE_PTR(m->table), &head, images[i].page_count, e);
    }
    struct chunk_table_head state = {0};
    memcpy(state.repository, p->o.pool->repository->id, REPO_ID_SIZE);
    memcpy(state.snapshot, snapshot->id, DIGEST_SIZE);
    if (rc == 0 && p->chunks)
        rc = chunk_table_keep(TAKE_PTR(p->chunks), &state, e);
    return rc;
}

/* ---- making and ending ---- */

/* After all that was used, also by a leader whose catalog is lost. A part that only a worker's word
 * stands for counts no further than real ones get: else a name made up there would lead past the
 * last sequence that a name can have. */
static uint64_t sequence_after(const struct plan_options *o, const struct listing *all,
                               uint32_t epoch, uint64_t min_sequence)
{
    uint64_t next = min_sequence ? min_sequence : 1;
    for (size_t i = 0; i < all->count; i++) {
        const struct part_ref *ref = &all->parts[i].ref;
        if (ref->epoch == epoch && ref->sequence >= next &&
            (ref->sequence < SEQUENCE_REAL_MAX || is_trusted(o, ref)))
            next = ref->sequence + 1;
    }
    return next;
}

int plan_make(const struct plan_options *o, uint32_t epoch, uint64_t min_sequence, struct plan *ret,
              struct err *e)
{
    struct plan p = {.o = *o, .epoch = epoch};
    OWN_LISTING struct listing all = {0};
    int rc = union_of_listings(o->pool, &all, e);
    if (rc == 0 && o->lost && o->lost->count)
        rc = choose_parent(&p, &all, true, e);
    if (rc == 0 && !p.has_parent)
        rc = choose_parent(&p, &all, false, e);
    if (rc == 0)
        rc = make_list(&p, &all, e);
    p.next_sequence = sequence_after(o, &all, epoch, min_sequence);
    if (rc) {
        plan_free(&p);
        return rc;
    }
    *ret = p;
    return 0;
}

void plan_free(struct plan *p)
{
    drop_entries(p);
    drop_tables(p);
    chunk_table_close(p->chunks);
    free(p->entries);
    free(p->used);
    free(p->images);
    free(p->listed);
    free(p->left_off);
    snapshot_free(&p->parent);
    *p = (struct plan){0};
}
