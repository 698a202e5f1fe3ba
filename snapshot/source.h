/* What a source gets from the run that it is part of, what a run asks of each kind of source, and
 * the consumer that every database image goes through, whatever its kind. */
#ifndef SYNCD_SNAPSHOT_SOURCE_H
#define SYNCD_SNAPSHOT_SOURCE_H

#include <stdatomic.h>

#include "snapshot/entry.h"
#include "snapshot/fingerprints.h"
#include "snapshot/pipeline.h"
#include "snapshot/repository.h"
#include "syncd/base/err.h"

struct held_pages;

/* Where a source tells of files that a database names as its own. */
struct source_named {
    int (*tell)(void *arg, const char *database, const char *path, struct err *e);
    void *arg;
};

struct source_run {
    struct pipeline *pipeline;
    const struct repository *repository;
    /* The fingerprints of an image, as of what the snapshot will list; *ret_known false: a full
     * pass. The table stays the run's. */
    int (*open_table)(void *arg, uint64_t image, struct fingerprints **ret, bool *ret_known,
                      struct err *e);
    void (*read)(void *arg, uint64_t bytes);  /* progress; may be NULL */
    void (*total)(void *arg, uint64_t bytes); /* what a pass will read; may be NULL */
    void (*notice)(void *arg,
                   const char *text); /* something that the user should know; may be NULL */
    void *arg;
    const atomic_bool *cancel;        /* may be NULL */
    const struct source_named *named; /* may be NULL */
};

/* ---- kinds of sources ---- */

struct conf_source;
struct content_writer;
struct plan;
struct spool;

#define SOURCE_FAILED_LISTED 1000 /* more are only counted */

struct source_failed {
    char *path, *reason, *hint; /* "": none */
    bool lost;                  /* the parent had it, the new snapshot has no state of it */
};

/* What is known at the end. */
struct source_totals {
    size_t fresh; /* entries that were taken now */
    size_t same;  /* ... that were recognised as unchanged */
    size_t carried, gone;
    uint64_t size_bytes;
    int64_t as_of_us;          /* of the oldest state in it; 0: nothing is in it */
    int64_t first_us, last_us; /* as_of of the databases that were taken: their skew */
    size_t failed_count;       /* all that failed */
    size_t failed_listed, failed_cap;
    struct source_failed *failed;
    struct err first; /* why the first one failed */
};

struct source_options {
    const struct conf_source *source;
    const char *own_dir;  /* never part of a source; may be NULL */
    const char *dir;      /* for temporary files, a tmpfs */
    struct spool *parent; /* the parent's entries */
    bool has_parent;
    const atomic_bool *cancel; /* may be NULL */
};

/* One kind: open -> look -> take -> write, and close in any case. A kind is asked for what follows
 * a step only when that step has succeeded. */
struct source_ops {
    int (*open)(const struct source_options *o, void **ret, struct err *e);
    /* Compares with the parent, without reading what is in it. */
    int (*look)(void *s, struct plan *plan, struct err *e);
    bool (*is_unchanged)(const void *s); /* since the parent, which is complete */
    /* From here on `run` and the plan (prepared) are used. `audit`: what looks unchanged is read
     * all the same. *ret_again: only a new run without leftovers can go on (tree.h). */
    int (*take)(void *s, const struct source_run *run, struct plan *plan, bool audit,
                bool *ret_again, struct err *e);
    const struct source_totals *(*totals)(const void *s);
    bool (*is_as_before)(const void *s); /* the audit found everything as it was in the parent */
    /* Writes the entry list, but for its end; `config` (may be NULL) is an entry of the run itself.
     */
    int (*write)(void *s, const struct entry *config, struct content_writer *to, struct err *e);
    /* The images that the snapshot holds; the caller frees. */
    int (*images)(const void *s, struct entry_image **ret, size_t *ret_count, struct err *e);
    void (*close)(void *s); /* NULL is fine */
};

extern const struct source_ops tree_source_ops, postgres_source_ops;

/* ---- database images ---- */

/* One database image in the making. */
struct image {
    const struct source_run *run;
    struct entry_image of; /* id, kind and page_shift given; count and sum of the last whole pass */
    struct fingerprints *table;
    bool known; /* the table was there: an increment */
    uint64_t page_seed;
    uint64_t skip_page; /* SQLite's lock page, never counted; UINT64_MAX: none */
    uint64_t pass_sum, pass_pages, pass_shipped;
    struct held_pages *aside; /* not NULL: what changed goes there instead of the pipeline */
};

/* Prepares an image and its table. */
int image_open(const struct source_run *run, const char *path, enum image_kind kind,
               uint8_t page_shift, struct image *ret, struct err *e);

void image_begin_pass(struct image *m);

/* One page of the pass: hashed, and shipped when its fingerprint is not the known one. ERR_BUSY in
 * a hold (pipeline.h, held_pages.h): the page was not taken. */
int image_page(struct image *m, uint64_t page, const void *data, struct err *e);

/* The pass saw the whole image: its count and sum become the entry's. */
void image_end_pass(struct image *m, uint64_t page_count);

#endif
