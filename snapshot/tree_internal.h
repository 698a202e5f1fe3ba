/* Shared by tree.c (beginning and end), tree_scan.c, tree_database.c, tree_take.c (the second walk)
 * and tree_entry.c (what becomes of one entry). */
#ifndef SYNCD_SNAPSHOT_TREE_INTERNAL_H
#define SYNCD_SNAPSHOT_TREE_INTERNAL_H

#include "snapshot/id_table.h"
#include "snapshot/plan.h"
#include "snapshot/steady.h"
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
    uid_t uid;
    bool given_up; /* failed in this run or in the attempt before: err */
    struct err err;
    bool has_entry, is_same, done; /* taken or recognised; as in the parent; emitted */
    bool is_carried;               /* given up: entry.image is the parent's */
    struct entry entry;
};

#define TREE_MEMBER_PATH (ENTRY_PATH_MAX + 64)

/* A LevelDB folder: its files are taken as one state (tree_leveldb.c). */
struct tree_leveldb {
    char *path;
    bool given_up; /* failed in this run: err */
    struct err err;
    int64_t as_of_us;
};

/* One of its files: a table, a log, the manifest or CURRENT. */
struct tree_member {
    uint32_t folder; /* in tree.leveldbs */
    uint32_t round;  /* of the cut that saw it last */
    char name[32];
    bool had;         /* the parent has an entry of it, at before_at in o.parent */
    bool taken, same; /* its entry is at `at` in tree.member_entries; it is the parent's */
    bool done;        /* emitted */
    uint64_t before_at, at;
    ino_t inode; /* how it looked just before it was read, with: */
    off_t size;
    int64_t mtime_ns, ctime_ns;
};

struct tree_named;

struct tree {
    struct source_options o;
    struct tree_roots roots;
    struct plan *plan;
    struct source_run own_run; /* the run's, and `named` */
    const struct source_run *run;
    struct tree_named *named;
    bool audit, changed;
    uint64_t before_at; /* of the parent's entry in hand, in o.parent */
    size_t database_count, database_cap, next_database;
    struct tree_database *databases; /* ascending by path */
    size_t leveldb_count, leveldb_cap;
    struct tree_leveldb *leveldbs; /* ascending by path */
    size_t member_count, member_cap, members_sorted, next_member;
    struct tree_member *members; /* the first members_sorted: ascending by path */
    struct spool *member_entries;
    int64_t began_us;
    struct spool *out;      /* the new entries, ascending */
    struct spool *vanished; /* the parent's that are not there any more */
    struct id_table *links; /* (device, inode) of files with several names -> place in `out` */
    struct id_table *linked_before; /* path -> place in o.parent, of the parent's such files */
    size_t parent_entries;          /* of what is covered still */
    size_t vanished_count;
    struct steady steady; /* from_us 0: not asked yet */
    bool keep_vanished;   /* all of them; else only those that are waiting for confirmation */
    size_t special_count;
    struct source_totals totals;
};

/* ---- tree_database.c ---- */

struct tree_database *tree_find_database(const struct tree *t, const char *path);
/* One that is not given up, if there is one. */
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

/* ---- tree_leveldb.c ---- */

/* Remembers the folder when it is one of LevelDB's. */
int tree_leveldb_look(struct tree *t, const struct tree_item *item, struct err *e);
struct tree_leveldb *tree_leveldb_find(const struct tree *t, const char *path);
/* The folder that the file is a member of, by its name; NULL: it is a file like others. */
struct tree_leveldb *tree_leveldb_of(const struct tree *t, const char *path);
/* Remembers a member that the scan has met; `before` (or NULL) is the entry in hand. */
int tree_leveldb_note(struct tree *t, const struct tree_leveldb *l, const struct tree_item *item,
                      const struct entry *before, struct err *e);
/* Takes all folders, each as one state, or gives it up. An error is the run's. */
int tree_take_leveldbs(struct tree *t, struct err *e);
/* The path of the first member that is taken and not emitted yet, in *ret; NULL: there is none. */
const char *tree_leveldb_pending(struct tree *t, char ret[static TREE_MEMBER_PATH]);
/* Whether the path is a member that was taken. */
bool tree_leveldb_has(const struct tree *t, const char *path);
/* What becomes of a path that is a member by its name: what was taken, or (given up) what the
 * parent had, or nothing, when it came after the cut. */
int tree_leveldb_emit(struct tree *t, const struct tree_leveldb *l, const char *path,
                      struct entry *before, struct err *e);
void tree_leveldb_reset(struct tree *t); /* for another attempt */
void tree_leveldb_free(struct tree *t);

/* ---- tree_entry.c ---- */

/* Adds the entry to the new list. */
int tree_emit(struct tree *t, const struct entry *entry, uint64_t *ret_at, struct err *e);
int tree_emit_fresh(struct tree *t, const struct entry *entry, int64_t as_of_us, uint64_t *ret_at,
                    struct err *e);
int tree_emit_same(struct tree *t, struct entry *before, uint64_t *ret_at, struct err *e);
/* What was taken before the walk, sorts before the path (NULL: all that is left) and was not met.
 */
int tree_emit_pending(struct tree *t, const char *before_path, struct err *e);
/* Something in the snapshot is as old as that. */
void tree_note_as_of(struct tree *t, int64_t as_of_us);
/* Says that an unchanged look was wrong. */
void tree_alarm(const struct tree *t, const char *path);
int tree_emit_database(struct tree *t, struct tree_database *d, struct entry *before,
                       struct err *e);
/* Notes the failure and carries the parent's entry over, if there is one. */
int tree_fail(struct tree *t, const char *path, const struct err *why, struct entry *before,
              struct err *e);
/* Notes the failure of what the parent has no entry of: that it is not in the snapshot was last
 * true then, and as old as that is the source. */
int tree_fail_new(struct tree *t, const char *path, const struct err *why, struct err *e);
int tree_note_failed(struct tree *t, const char *path, const struct err *cause, struct err *e);
int tree_carry(struct tree *t, struct entry *before, const char *reason, struct err *e);
/* The parent had it, and it is not there. */
int tree_vanish(struct tree *t, struct entry *before, struct err *e);
/* Decides about what vanished. */
int tree_judge_vanished(struct tree *t, struct err *e);
/* Remembers where the parent's file with several names lies. */
int tree_note_linked(struct tree *t, const struct entry *before, struct err *e);

/* ---- tree_named.c ---- */

/* For one attempt: files that databases name are noted from now on, by own_run.named. */
int tree_named_begin(struct tree *t, struct err *e);
/* After the walk: those that the new list lacks are told of; what was not there from the first is
 * an entry that failed. */
int tree_named_check(struct tree *t, struct err *e);
void tree_named_free(struct tree_named *n); /* NULL is fine */

void tree_notice(const struct tree *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
