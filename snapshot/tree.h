/* The tree source: files and folders with the databases that live in them, as one snapshot.
 *
 *   tree_open -> tree_scan (a walk of stats: what changed? which files are databases?)
 *             -> tree_take_databases (while files wait) -> tree_take_files (the second walk)
 *             -> tree_write (the entry list)
 *
 * The parent's entries are read beside the walks from a spool, the new ones are written to another
 * one, so that memory does not grow with the tree. An entry that cannot be taken is carried over
 * from the parent with its own as_of and the reason, and costs nothing but itself. DESIGN 4. */
#ifndef SYNCD_SNAPSHOT_TREE_H
#define SYNCD_SNAPSHOT_TREE_H

#include "snapshot/source.h"
#include "snapshot/spool.h"

struct content_writer;
struct err;
struct plan;
struct tree;

int tree_open(const struct source_options *o, struct tree **ret, struct err *e);
void tree_close(struct tree *t); /* NULL is fine */

/* Compares the tree with the parent by stat alone, and finds the databases by their headers. Must
 * come before any connection of SQLite is open: closing a file drops its locks. */
int tree_scan(struct tree *t, struct plan *plan, struct err *e);
bool tree_is_unchanged(const struct tree *t); /* since the parent, whose entries are all fresh */

/* From here on `run` and the plan (prepared) are used. `audit`: what looks unchanged is read all
 * the same, and a notice says when the look was wrong. */
int tree_begin(struct tree *t, const struct source_run *run, struct plan *plan, bool audit,
               struct err *e);

/* Takes all databases, then LevelDB folders, each as one state. A database that fails is given up
 * for this run; *ret_again: its state in the parent can only be carried over by a new run without
 * this one's parts (plan_is_mixed): abort, make a new plan without leftovers, and call tree_begin
 * again. ERR: the run itself cannot go on. */
int tree_take_databases(struct tree *t, bool *ret_again, struct err *e);

/* Everything else. */
int tree_take_files(struct tree *t, struct err *e);

const struct source_totals *tree_totals(const struct tree *t);

/* Whether the audit found everything as it was in the parent. */
bool tree_is_as_before(const struct tree *t);

/* Writes the entry list; `config` (may be NULL) is an entry of the run itself, and comes last. */
int tree_write(struct tree *t, const struct entry *config, struct content_writer *to,
               struct err *e);

/* The images that the snapshot holds; the caller frees. */
int tree_images(const struct tree *t, struct entry_image **ret, size_t *ret_count, struct err *e);

#endif
