#include "restore/page_writer.h"

#include <errno.h>

#include "snapshot/entry.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define STRETCH_SHIFT 23 /* 8 MiB: some hundred ms of an SD card, and long enough to be in one */

static unsigned pages_shift(const struct page_writer *w)
{
    return STRETCH_SHIFT - w->page_shift;
}

int page_writer_begin(int fd, const struct entry *entry, uint64_t skip_page,
                      struct page_writer *ret, struct err *e)
{
    struct page_writer w = {.fd = fd,
                            .page_shift = entry->image.page_shift,
                            .path = entry->path,
                            .page_count = entry->image.page_count};
    *ret = w;
    if (fd < 0)
        return 0;
    if (io_ftruncate(fd, entry_size(entry)) < 0)
        return err_sys(e, errno, w.path, "cannot make room for %s", w.path);
    uint64_t stretch = UINT64_C(1) << pages_shift(&w);
    w.stretch_count = (size_t)((w.page_count + stretch - 1) >> pages_shift(&w));
    w.missing = mem_alloc(MAX(w.stretch_count, (size_t)1), sizeof *w.missing);
    if (!w.missing)
        return err_nomem(e);
    for (size_t i = 0; i < w.stretch_count; i++)
        atomic_init(&w.missing[i], (unsigned)MIN(stretch, w.page_count - i * stretch));
    if (skip_page < w.page_count)
        atomic_fetch_sub(&w.missing[skip_page >> pages_shift(&w)], 1);
    *ret = w;
    return 0;
}

int page_writer_put(struct page_writer *w, uint64_t page, const void *data, size_t count,
                    struct err *e)
{
    if (w->fd < 0)
        return 0;
    if (io_pwrite_all(w->fd, data, count << w->page_shift, page << w->page_shift) < 0)
        return err_sys(e, errno, w->path, "cannot write the restored %s", w->path);
    for (uint64_t end = page + count, next; page < end; page = next) {
        size_t stretch = (size_t)(page >> pages_shift(w));
        next = MIN(end, (uint64_t)(stretch + 1) << pages_shift(w));
        if (atomic_fetch_sub(&w->missing[stretch], (unsigned)(next - page)) == next - page)
            io_write_back(w->fd, (uint64_t)stretch << STRETCH_SHIFT, 1u << STRETCH_SHIFT);
    }
    return 0;
}

void page_writer_end(struct page_writer *w)
{
    free(w->missing);
    w->missing = NULL;
}
