/* What a run builds on: its parent, the parts that its snapshot will list, and the fingerprints
 * that follow from them. DESIGN 4 to 6.
 *
 * One mechanism serves the ordinary increment, a list that has grown too long, a part that is
 * missing or rotten, and packs left by a cut run: choose the list, then the fingerprints are those
 * of the newest listed part that holds each page. What is in no listed part is shipped again. */
#ifndef SYNCD_SNAPSHOT_PLAN_H
#define SYNCD_SNAPSHOT_PLAN_H

#include "snapshot/chunk_table.h"
#include "snapshot/entry.h"
#include "snapshot/fingerprints.h"
#include "snapshot/pool.h"
#include "snapshot/spool.h"

struct err;

#define PLAN_LISTED_MAX 128
#define PLAN_DROP 64
#define PLAN_IMAGES_MAX 4096
#define PLAN_LOST_MAX 64

/* Entries that failed and whose state in the parent could not be carried over. */
struct plan_lost {
    size_t count; /* more than PLAN_LOST_MAX are not noted */
    char *paths[PLAN_LOST_MAX];
};

struct plan_options {
    struct pool *pool;
    const char *fingerprint_dir;
    struct spool *entries; /* empty: all of the parent's go here */
    bool no_leftovers;     /* packs that a cut run left are not listed */
    bool keep_list;        /* the list is not shortened */
    /* plan_carry notes here what it must refuse. What is there when the plan is made failed in an
     * earlier plan of this run: the parent is then the newest snapshot that has one of them and is
     * whole, if there is one. May be NULL. */
    struct plan_lost *lost;
    /* Whether this leader itself published the part (the catalog knows); what only a worker says of
     * itself is not built on. */
    bool (*is_ours)(void *arg, const struct part_ref *ref);
    /* Whether this worker's copy is known to be damaged; may be NULL. */
    bool (*is_damaged)(void *arg, const struct store *s, const struct part_ref *ref);
    void *arg;
};

struct plan_image {
    uint64_t id, page_count;
    struct fingerprints *table;
    bool known;
    bool later;   /* packs of a cut run hold pages of it */
    bool shipped; /* this run shipped pages of it */
    bool lost;    /* a part that its state in the parent needs is missing or damaged */
};

/* How much of a part the parent's entries still refer to by runs. */
struct plan_used {
    uint32_t epoch;
    uint64_t sequence, chunks;
    bool pinned; /* by an entry that is carried over: it cannot be read again */
};

struct plan {
    struct plan_options o;
    uint32_t epoch;
    bool has_parent, has_wanted; /* has_wanted: the parent's entries name one of o.lost */
    struct snapshot parent;
    size_t entry_count, entry_cap;
    struct entry *entries; /* the parent's databases and its config; all are in o.entries */
    uint64_t size_bytes;   /* of the parent's entries */
    size_t used_count, used_cap;
    struct plan_used *used; /* ascending */
    size_t listed_count;
    struct part_ref *listed; /* what the new snapshot will list before the parts of its own run */
    size_t left_off_count;   /* usable parts of the parent's that are not listed, for brevity */
    struct part_ref *left_off;
    bool as_parent;      /* exactly the parent's parts: its kept fingerprints hold */
    bool consolidates;   /* left parts off to keep the list short */
    bool wants_left_off; /* an entry that is to be carried over needs one of those */
    uint64_t next_sequence;
    struct chunk_table *chunks; /* after plan_prepare */
    size_t image_count, image_cap;
    struct plan_image *images;
};

/* Chooses parent and list, reads the parent's entries. `epoch` is the ruling one; next_sequence is
 * at least min_sequence. A worker without any snapshot is no error: has_parent is false then. */
int plan_make(const struct plan_options *o, uint32_t epoch, uint64_t min_sequence, struct plan *ret,
              struct err *e);
/* Before pages are shipped: shortens a list that has grown too long, and makes the tables of the
 * parent's images. A listed part that turns out to be unreadable is left off. */
int plan_prepare(struct plan *p, struct err *e);

void plan_free(struct plan *p); /* drops tables that were not kept */

/* The parent's entry of a database (or the config) at this path, or NULL. */
const struct entry *plan_entry(const struct plan *p, const char *path);

/* Whether all parts that the entry's content lies in will be listed. */
bool plan_lists(const struct plan *p, const struct entry *entry);

/* Whether everything that the parent's entry needs is at hand, so that it can be carried over. When
 * some of it was left off for brevity, that is noted in wants_left_off: the run has to begin again
 * with keep_list. False, and noted in o.lost: a part that it needs is lost, or (an image) pages of
 * a later state lie in listed parts or were shipped in this run. */
bool plan_carry(struct plan *p, const struct entry *entry);

/* Finds the images that need a part which will not be listed; others can still be carried over. */
int plan_find_lost(struct plan *p, struct err *e);

bool plan_lost_has(const struct plan_lost *l, const char *path);
void plan_lost_free(struct plan_lost *l);

/* A database failed after some of its pages were shipped or found in packs of a cut run. Its state
 * in the parent can only be carried over by a new run without these parts. */
bool plan_is_mixed(const struct plan *p, uint64_t image);

/* The table of an image, for source_run.open_table. */
int plan_table(struct plan *p, uint64_t image, struct fingerprints **ret, bool *ret_known,
               struct err *e);

/* pool_part, but what a worker has and cannot read is ERR_DAMAGED. */
int plan_part(struct plan *p, const struct part_ref *ref, const struct part_file **ret,
              struct err *e);

/* Gives back what tables hold in memory, until they are used again. */
int plan_rest(struct plan *p, struct err *e);

/* plan_consolidate.c: when one part more would be too many, leaves off the PLAN_DROP listed parts
 * with the fewest pages still in use, and some that are mostly dead weight. ERR_DAMAGED: *ret_bad
 * is the part that cannot be read. */
int plan_consolidate(struct plan *p, size_t *ret_bad, struct err *e);

/* After the snapshot is stored: the tables are kept as those of its images. Failure costs time in
 * the next run, nothing else. */
int plan_keep_tables(struct plan *p, const struct part_ref *snapshot,
                     const struct entry_image *images, size_t count, struct err *e);

#endif
