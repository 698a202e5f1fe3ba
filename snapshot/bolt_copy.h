/* Copying a live bolt database without its lock, which its owner holds, and waits for only a second
 * when it starts: the newest meta T is read, what T reaches is walked and checked, then handed over
 * in ascending order, then the metas are read once more. The copy counts only when the newest is
 * still T, byte for byte, and the file still the same: until the commit after T is complete, nobody
 * writes to what T reaches; one commit later somebody may (bolt_file.h).
 *
 * Nothing is written or locked. Memory: the reader's 1 MiB, 256 KiB, and two bits per page. */
#ifndef SYNCD_SNAPSHOT_BOLT_COPY_H
#define SYNCD_SNAPSHOT_BOLT_COPY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "snapshot/bolt_file.h"

struct err;

/* A file for bolt_open(). Borrows fd and path, which must outlive the input. */
struct bolt_local {
    int fd;
    const char *path;
};
int bolt_local_input(struct bolt_local *file, struct bolt_input *ret, struct err *e);

struct bolt_copied {
    struct bolt_meta meta; /* T: both metas of the copy */
    uint64_t pages;        /* of the copy */
    uint64_t reachable_pages, free_pages;
    uint64_t lost_pages; /* neither: the owner's leak; zeroed like free ones */
};

struct bolt_copy {
    const char *path;
    int fd;

    /* Called once when T has been walked, before any page; NULL: not asked. `plan` is what
     * bolt_copy() will give when it succeeds. */
    int (*begin)(void *arg, const struct bolt_copied *plan, struct err *e);
    /* Every page of the copy, ascending: metas that both say T, what T reaches, and zeros. The
     * longer it takes, the smaller the chance that the copy counts. */
    int (*page)(void *arg, uint64_t page, const uint8_t *bytes, struct err *e);
    void *arg;

    /* Go on to the last page although T has been overtaken: the answer is ERR_CHANGED all the same,
     * but what was handed over is nearly right, and the next try finds it shipped and the file in
     * the page cache. Otherwise an overtaken copy ends within 8 MiB. */
    bool to_the_end;
};

/* One try. ERR_CHANGED: the owner committed, or the file was grown or replaced meanwhile: nothing
 * that was handed over counts; try again (a replaced file must be opened again; ret_replaced, which
 * may be NULL, says so). ERR_DAMAGED: T was not overtaken, the database itself is damaged.
 * ERR_UNSUPPORTED, ERR_IO, ERR_NOMEM; what a callback answers is passed on. */
int bolt_copy(const struct bolt_copy *copy, struct bolt_copied *ret, bool *ret_replaced,
              struct err *e);

/* Reads the file once in order, so that a try after it is not held up by a slow disk.
 * ERR_CANCELLED when *cancel (may be NULL) became true. */
int bolt_copy_warm(int fd, const char *path, const atomic_bool *cancel, struct err *e);

#endif
