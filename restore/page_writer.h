/* Pages into the file that an image is put together in, from several threads. The disk begins as
 * soon as a stretch of the file is whole, so that the fsync at the end has little left to wait for;
 * pages that lie scattered wait until those between them are there, and go to the disk in one. */
#ifndef SYNCD_RESTORE_PAGE_WRITER_H
#define SYNCD_RESTORE_PAGE_WRITER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct entry;
struct err;

struct page_writer {
    int fd; /* -1: nothing is written */
    uint8_t page_shift;
    const char *path; /* of the entry, for messages */
    uint64_t page_count;
    size_t stretch_count;
    atomic_uint *missing; /* pages that each stretch of the file still lacks */
};

/* Gives the file its size. `skip_page` never comes (UINT64_MAX: there is none). fd stays the
 * caller's, path the entry's. ERR_NO_SPACE, ERR_IO, ERR_NOMEM. */
int page_writer_begin(int fd, const struct entry *entry, uint64_t skip_page,
                      struct page_writer *ret, struct err *e);

/* Writes pages that are neighbours; each page is to be given once. Any thread. ERR_NO_SPACE,
 * ERR_IO. */
int page_writer_put(struct page_writer *w, uint64_t page, const void *data, size_t count,
                    struct err *e);

void page_writer_end(struct page_writer *w);

#endif
