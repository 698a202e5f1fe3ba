/* Shared by in_place.c (the run), in_place_journal.c and in_place_swap.c (one entry). */
#ifndef SYNCD_RESTORE_IN_PLACE_INTERNAL_H
#define SYNCD_RESTORE_IN_PLACE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;
struct err;

#define IN_PLACE_FOLDER ".syncd-restore"

enum in_place_kind {
    IN_PLACE_DIR = 'd',
    IN_PLACE_FILE = 'f',
    IN_PLACE_SQLITE = 's',
    IN_PLACE_BOLT = 'b'
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

#endif
