#include "snapshot/held_pages.h"

#include <errno.h>
#include <string.h>

#include "snapshot/pipeline.h"
#include "snapshot/spool.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define HEAD 16u /* page number, fingerprint */

struct held_pages {
    int fd;
    uint64_t image, count;
    uint8_t page_shift;
    uint8_t record[]; /* HEAD and a page */
};

int held_pages_new(uint64_t image, uint8_t page_shift, struct held_pages **ret, struct err *e)
{
    struct held_pages *h = malloc(sizeof *h + HEAD + ((size_t)1 << page_shift));
    if (!h)
        return err_nomem(e);
    *h = (struct held_pages){.fd = -1, .image = image, .page_shift = page_shift};
    int rc = spool_file(NULL, &h->fd, e);
    if (rc) {
        held_pages_free(h);
        return rc;
    }
    *ret = h;
    return 0;
}

void held_pages_free(struct held_pages *h)
{
    if (!h)
        return;
    mem_closep(&h->fd);
    free(h);
}

static size_t record_size(const struct held_pages *h)
{
    return HEAD + ((size_t)1 << h->page_shift);
}

int held_pages_add(struct held_pages *h, uint64_t page, uint64_t fingerprint, const void *data,
                   struct err *e)
{
    size_t n = record_size(h);
    if ((h->count + 1) << h->page_shift > HELD_PAGES_MAX)
        return err_set(e, ERR_BUSY, NULL, "more changed than can be kept while nothing may wait");
    le64_put(h->record, page);
    le64_put(h->record + 8, fingerprint);
    memcpy(h->record + HEAD, data, n - HEAD);
    if (io_pwrite_all(h->fd, h->record, n, h->count * n) < 0)
        return err_sys(e, errno, NULL, "cannot keep a page in memory");
    h->count++;
    return 0;
}

uint64_t held_pages_bytes(const struct held_pages *h)
{
    return h->count << h->page_shift;
}

int held_pages_ship(struct held_pages *h, struct pipeline *to, struct err *e)
{
    size_t n = record_size(h);
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < h->count; i++) {
        errno = EIO;
        if (io_pread_full(h->fd, h->record, n, i * n) != (ssize_t)n)
            return err_sys(e, errno, NULL, "cannot read a page that was kept in memory");
        rc = pipeline_page(to, h->image, h->page_shift, le64_get(h->record),
                           le64_get(h->record + 8), h->record + HEAD, e);
    }
    h->count = 0;
    return rc ? rc : io_ftruncate(h->fd, 0) < 0 ? err_sys(e, errno, NULL, "cannot free memory") : 0;
}
