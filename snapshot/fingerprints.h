/* The fingerprints of one image's pages, in a file that is gone after a reboot (a tmpfs such as
 * /run/syncd): 8 bytes a page, read and written through a window of 32 KiB, so that memory does not
 * grow with the database. The head says of which state they are: repository, snapshot, image.
 *
 * The invariant that everything rests on: fingerprint[page] is that of the copy of the page in the
 * newest part, among the parts that the next snapshot will list, that holds it; 0: no such part, or
 * not known. A fingerprint of 0 never counts as equal. */
#ifndef SYNCD_SNAPSHOT_FINGERPRINTS_H
#define SYNCD_SNAPSHOT_FINGERPRINTS_H

#include "snapshot/part.h"

struct err;
struct fingerprints;

struct fingerprints_head {
    uint8_t repository[REPO_ID_SIZE];
    uint8_t snapshot[DIGEST_SIZE];
    uint64_t image;
};

/* A working table in `dir`, for one run: a copy of the kept table when that has exactly the head
 * `of` (*ret_known true), else empty (*ret_known false). Nothing that is kept is changed before
 * fingerprints_keep. A kept table that is damaged counts as absent. */
int fingerprints_begin(const char *dir, const struct fingerprints_head *of,
                       struct fingerprints **ret, bool *ret_known, struct err *e);

/* 0 past the end. */
int fingerprints_get(struct fingerprints *t, uint64_t page, uint64_t *ret, struct err *e);
int fingerprints_set(struct fingerprints *t, uint64_t page, uint64_t value, struct err *e);

/* Gives memory and descriptor back until the next call; for a source of a thousand databases. */
int fingerprints_rest(struct fingerprints *t, struct err *e);

/* Whether anything was set since it was begun or last rested. */
bool fingerprints_touched(const struct fingerprints *t);

/* Keeps the first page_count fingerprints as the table of `head`, and closes. */
int fingerprints_keep(struct fingerprints *t, const struct fingerprints_head *head,
                      uint64_t page_count, struct err *e);

/* Throws the working table away. NULL is fine. */
void fingerprints_drop(struct fingerprints *t);

#endif
