/* Shared by tree.c (beginning and end), tree_scan.c, tree_database.c, tree_take.c (the second walk)
 * and tree_entry.c (what becomes of one entry). */
#ifndef SYNCD_SNAPSHOT_TREE_INTERNAL_H
#define SYNCD_SNAPSHOT_TREE_INTERNAL_H

#include "snapshot/id_table.h"
#include "snapshot/plan.h"
#include "snapshot/tree.h"
#include "snapshot/tree_roots.h"
#include "snapshot/tree_walk.h"
#include "syncd/base/err.h"

#define MISSING_CONFIRMED_US (INT64_C(3600) * 1000000) /* DESIGN 4: a second run an hour later */

/* A database that the scan found. */
struct tree_database {
    char *path;
    enum image_kind kind;
    dev_t dev;
    ino_t inode;
    bool given_up; /* failed in this run or in the attempt before: err */
    struct err err;
    bool has_entry, is_same, done; /* taken or recognised; as in the parent; emitted */
    bool is_carried;               /* given up: entry.image is the parent's */
    struct entry entry;
};

struct tree {
    struct source_options o;
    struct tree_roots roots;
    struct plan *plan;
    const struct source_run *run;
    bool audit, changed;
    uint64_t before_at; /* of the parent's entry in hand, in o.parent */
    size_t database_count, database_cap, next_database;
    struct tree_database *databases; /* ascending by path */
    int64_t began_us;
    struct spool *out;      /* the new entries, ascending */
    struct spool *vanished; /* the parent's that are not there any more */
    struct id_table *links; /* (device, inode) of files with several names -> place in `out` */
    struct id_table *linked_before; /* path -> place in o.parent, of the parent's such files */
    size_t parent_entries;          /* of what is covered still */
    size_t vanished_count;
    bool keep_vanished; /* all of them; else only those that are waiting for confirmation */
    size_t special_count;
    struct source_totals totals;
};

/* ---- tree_database.c ---- */

struct tree_database *tree_find_database(const struct tree *t, const char *path);
struct tree_database *tree_find_inode(const struct tree *t, const struct stat *st);
/* Adds one, in its place; pointers to others end. */
int tree_add_database(struct tree *t, const struct tree_item *item, enum image_kind kind,
                      struct tree_database **ret, struct err *e);
/* Whether the path is a -wal, -shm or -journal of a database. */
bool tree_is_sidecar(const struct tree *t, const char *path);
/* Takes it, or gives it up. An error is the run's. */
int tree_take_database(struct tree *t, struct tree_database *d, struct err *e);
/* Whether the database looks as it did when the parent's entry was taken. */
bool tree_database_looks_same(const char *path, const struct entry *before);

/* ---- tree_entry.c ---- */

/* Adds the entry to the new list. */
int tree_emit(struct tree *t, const struct entry *entry, uint64_t *ret_at, struct err *e);
int tree_emit_fresh(struct tree *t, const struct entry *entry, int64_t as_of_us, uint64_t *ret_at,
                    struct err *e);
int tree_emit_same(struct tree *t, struct entry *before, uint64_t *ret_at, struct err *e);
/* Databases that sort before the path (NULL: all that are left) and were not met by the walk. */
int tree_emit_databases(struct tree *t, const char *before_path, struct err *e);
int tree_emit_database(struct tree *t, struct tree_database *d, struct entry *before,
                       struct err *e);
/* Notes the failure and carries the parent's entry over, if there is one. */
int tree_fail(struct tree *t, const char *path, const struct err *why, struct entry *before,
              struct err *e);
int tree_note_failed(struct tree *t, const char *path, const char *reason, const struct err *why,
                     struct err *e);
int tree_carry(struct tree *t, struct entry *before, const char *reason, struct err *e);
/* The parent had it, and it is not there. */
int tree_vanish(struct tree *t, struct entry *before, struct err *e);
/* Decides about what vanished. */
int tree_judge_vanished(struct tree *t, struct err *e);
/* Remembers where the parent's file with several names lies. */
int tree_note_linked(struct tree *t, const struct entry *before, struct err *e);

void tree_notice(const struct tree *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
