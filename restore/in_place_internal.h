/* Shared by in_place.c (the run), in_place_journal.c and in_place_swap.c (one entry). */
#ifndef SYNCD_RESTORE_IN_PLACE_INTERNAL_H
#define SYNCD_RESTORE_IN_PLACE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct entry;
struct err;

#define IN_PLACE_FOLDER ".syncd-restore"

enum in_place_kind {
    IN_PLACE_DIR = 'd',
    IN_PLACE_FILE = 'f',
    IN_PLACE_SQLITE = 's',
    IN_PLACE_BOLT = 'b',
    IN_PLACE_LEVELDB = 'l', /* a folder whose files are one state (snapshot/leveldb.h) */
    IN_PLACE_KEPT = 'k'     /* a file of one that is right already */
};

struct in_place_item {
    char kind; /* enum in_place_kind */
    char *path;
};

struct in_place_list {
    size_t count, cap;
    struct in_place_item *items;
};
void in_place_list_free(struct in_place_list *l);
/* Takes a copy of the path. */
int in_place_list_add(struct in_place_list *l, char kind, const char *path, struct err *e);

/* One run's folder: open while it is worked on. */
struct in_place_folder {
    int fd;      /* <folder>/.syncd-restore/<UTC> */
    char *shown; /* its path, for messages */
};
void in_place_folder_close(struct in_place_folder *f);

/* The journal: written when all new files are there and checked; read by a later run. The folder
 * of a journal must be ours alone, for a planted one would move files by our hand. ERR_NOT_FOUND:
 * there is none. */
int in_place_journal_write(const struct in_place_folder *f, const struct in_place_list *l,
                           struct err *e);
int in_place_journal_read(const struct in_place_folder *f, struct in_place_list *ret,
                          struct err *e);
int in_place_journal_end(const struct in_place_folder *f, struct err *e);
void in_place_journal_drop(const struct in_place_folder *f);

/* Removes the tree below <run>/new; links are removed, not followed. */
int in_place_remove_new(const struct in_place_folder *f, struct err *e);

/* in_place_swap.c. Whether some process has the file open: ERR_BUSY with who, in the hint. 0 for a
 * missing one. */
int in_place_check_free(const char *path, struct err *e);

/* Puts <run>/new/<path> in its place and what was there into <run>/old; done already when there is
 * no new one. May be cut anywhere and called again. */
int in_place_swap(const struct in_place_folder *f, const struct in_place_item *item,
                  bool *ret_replaced, struct err *e);

/* Where <run>/old/<path> goes; folders on the way are made. */
struct place;
int in_place_open_old(const struct in_place_folder *f, const char *path, struct place *ret,
                      struct err *e);
/* Opens the folder itself, through no link. */
int in_place_open_folder(const char *path, int *ret_fd, struct err *e);

/* in_place_leveldb.c. The LevelDB folders of the snapshot, and how much of each is asked for. */
struct in_place_leveldb {
    char *path;
    bool itself, differs;
    size_t members, wanted, there; /* in the snapshot; asked for; of these, there in any state */
    struct in_place_list kept;     /* members that are right already */
};
struct in_place_leveldbs {
    size_t count, cap;
    struct in_place_leveldb *items;
};
void in_place_leveldbs_free(struct in_place_leveldbs *l);
/* Told of each entry, in order, before it is looked at, and of each that is asked for, after. */
int in_place_leveldbs_note(struct in_place_leveldbs *l, const struct entry *n, bool wanted,
                           struct err *e);
int in_place_leveldbs_looked(struct in_place_leveldbs *l, const struct entry *n, bool there,
                             bool equal, struct err *e);
/* When all entries were told of: adds the folders that are not right, with their members that are,
 * to the list, which stays in order. ERR_USAGE: only a part of one is asked for. */
int in_place_leveldbs_list(const struct in_place_leveldbs *l, struct in_place_list *list,
                           struct err *e);

/* What LevelDB would read together with the folder's restored files, but does not
 * belong to them, goes to <run>/old: tables, logs and manifests that the list does not name. May be
 * cut anywhere and called again. */
int in_place_leveldb_sweep(const struct in_place_folder *f, const struct in_place_list *l,
                           const struct in_place_item *item, bool *ret_replaced, struct err *e);
/* Whether a process has the database in this folder open, by its LOCK: as in_place_check_free. */
int in_place_leveldb_check_free(const char *path, struct err *e);

#endif
