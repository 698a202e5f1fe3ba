/* Which parts of a source are wanted on each worker, and how each worker holds them now.
 *
 * Wanted is every snapshot that any worker holds and that is kept, and every part that such a
 * snapshot lists. Sync brings that about; verify looks whether it is so. */
#ifndef SYNCD_RESTORE_KEPT_H
#define SYNCD_RESTORE_KEPT_H

#include <stdatomic.h>

#include "restore/damage.h"
#include "snapshot/pool.h"
#include "syncd/base/err.h"

struct kept_params {
    const struct repository *repository;
    const char *source;
    size_t store_count; /* workers that answer: 1 or 2 */
    struct {
        struct store *store;
        const struct listing *listing; /* fresh */
    } at[POOL_STORES_MAX];
    /* A snapshot that the caller has just made. It is wanted although it may only be a .pack yet:
     * its worker lacked parts that it lists, and the one that had them failed. NULL: none. */
    const struct part_ref *fresh;
    /* Retention over the union of the workers: whether this snapshot is kept. NULL: all are. */
    bool (*keep)(void *arg, const struct part_ref *snapshot);
    /* Whether this worker's copy is known to be damaged, from an earlier run. NULL: none is. */
    bool (*is_damaged)(void *arg, const struct store *s, const struct part_ref *ref);
    /* A copy was found to be damaged: is_damaged should say so from now on. Once for each block, or
     * for the file as a whole. May be NULL. */
    void (*damaged)(void *arg, const struct store *s, const struct part_ref *ref,
                    const struct err *e);
    /* A copy was replaced by a good one, or found whole after all. May be NULL. */
    void (*mended)(void *arg, const struct store *s, const struct part_ref *ref);
    void *arg;
    const atomic_bool *cancel; /* set by a signal; may be NULL */
};

/* One worker's copy of a part. */
struct kept_copy {
    enum part_mark mark; /* of the copy that counts; PART_BAD: there is none that may be read */
    bool others;         /* it is there under further marks too, .bad included */
    bool damaged;
    uint64_t size_bytes;
    int64_t mtime_us;
};

struct kept_part {
    struct part_ref ref; /* size_bytes: the right one, 0 when nothing readable tells it */
    bool wanted;
    bool snapshot;    /* wanted as a snapshot */
    bool unreadable;  /* ... but no worker has its metadata whole */
    bool disputed;    /* snapshots gave it different sizes */
    int64_t mtime_us; /* of a .snap: the latest on any worker */
    struct kept_copy at[POOL_STORES_MAX];
};

struct kept {
    const struct kept_params *p;
    size_t count, cap;
    struct kept_part *parts; /* ascending by (epoch, sequence), id, time */
    size_t snapshots;        /* that are kept, the unreadable ones included */
    size_t newer; /* ... and those of a newer syncd's format, of which nothing is wanted */
    bool gone[POOL_STORES_MAX];
    struct err gone_err[POOL_STORES_MAX];        /* why */
    struct damage_list damaged[POOL_STORES_MAX]; /* what was found on each, in this run */
};

/* Reads the metadata of every kept snapshot, from whoever has it whole. `p` must outlive *ret,
 * which is the caller's in any case, to be given to kept_free. Errors: ERR_CANCELLED, ERR_NOMEM,
 * ERR_LIMIT, and the store's when no worker answers any more. */
int kept_read(const struct kept_params *p, struct kept *ret, struct err *e);
void kept_free(struct kept *k);
#define OWN_KEPT __attribute__((cleanup(kept_free)))

/* The part with this identity and time label, or NULL. */
struct kept_part *kept_find(const struct kept *k, const struct part_ref *ref);

/* Store `at` holds it: readable, with the right size, not known to be damaged. */
bool kept_holds(const struct kept_part *part, size_t at);

/* Store `at` has a copy with the right size, which may be damaged here and there. */
bool kept_has_copy(const struct kept_part *part, size_t at);

/* Everything that the snapshot's metadata lists is held by store `at`, with the sizes it gives. */
bool kept_holds_all(const struct kept *k, const struct snapshot_section *section, size_t at);

/* How many wanted parts the store does not hold. */
size_t kept_lacking(const struct kept *k, size_t at);

/* Books what was found on a copy: in `damaged`, in the part, and by the caller's function. */
void kept_note_damage(struct kept *k, struct kept_part *part, size_t at, int64_t block,
                      const struct err *why);
void kept_note_mended(struct kept *k, struct kept_part *part, size_t at);

/* From the listings alone, without reading anything: whether both workers hold the same files under
 * fitting marks with the same sizes, nothing known damaged. True when there is only one. (Parts
 * that no worker holds any more are not seen.) */
int kept_looks_equal(const struct kept_params *p, bool *ret_equal, struct err *e);

#endif
