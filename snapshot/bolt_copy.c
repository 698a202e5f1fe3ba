#include "snapshot/bolt_copy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define READ_BYTES (256u << 10)
#define LOOK_EVERY_BYTES (8u << 20) /* at the metas, so that a lost try ends soon */

/* Where nothing is; of the largest page size. */
static const uint8_t zeros[BOLT_PAGE_SIZE_MAX];

static int local_read(void *arg, uint64_t offset, void *p, size_t n, struct err *e)
{
    const struct bolt_local *f = arg;
    ssize_t got = io_pread_full(f->fd, p, n, offset);
    if (got < 0)
        return err_sys(e, errno, f->path, "cannot read");
    if ((size_t)got < n)
        return err_set(e, ERR_DAMAGED, f->path, "the file ends at byte %llu, while it is read",
                       (unsigned long long)offset + (size_t)got);
    return 0;
}

int bolt_local_input(struct bolt_local *file, struct bolt_input *ret, struct err *e)
{
    struct stat st;
    if (fstat(file->fd, &st) < 0)
        return err_sys(e, errno, file->path, "cannot stat");
    *ret = (struct bolt_input){
        .read = local_read, .arg = file, .size_bytes = (uint64_t)st.st_size, .name = file->path};
    return 0;
}

struct attempt {
    const struct bolt_copy *copy;
    struct bolt_reader *reader;
    uint64_t size_bytes;
    struct bolt_copied plan;
    struct bolt_map reachable;
    bool replaced;
};

/* ERR_CHANGED when T is not the newest state any more. */
static int still_newest(struct attempt *a, struct err *e)
{
    struct bolt_meta now;
    int rc = bolt_read_meta(a->reader, &now, e);
    if (rc)
        return rc;
    if (bolt_meta_same(&now, &a->plan.meta))
        return 0;
    return err_set(e, ERR_CHANGED, a->copy->path,
                   "its owner committed (%llu after %llu) while it was read",
                   (unsigned long long)now.txid, (unsigned long long)a->plan.meta.txid);
}

/* The same of the file under that name. The metas come last: they must be read after the pages. */
static int still_same(struct attempt *a, struct err *e)
{
    struct stat open_file, named = {0};
    const char *path = a->copy->path;
    if (fstat(a->copy->fd, &open_file) < 0)
        return err_sys(e, errno, path, "cannot stat");
    if (stat(path, &named) < 0 && errno != ENOENT)
        return err_sys(e, errno, path, "cannot stat");
    if (open_file.st_nlink == 0 || named.st_dev != open_file.st_dev ||
        named.st_ino != open_file.st_ino) {
        a->replaced = true;
        return err_set(e, ERR_CHANGED, path, "was replaced while it was read");
    }
    if ((uint64_t)open_file.st_size != a->size_bytes)
        return err_set(e, ERR_CHANGED, path, "changed its size while it was read");
    return still_newest(a, e);
}

static int hand_over(struct attempt *a, uint64_t page, uint64_t pages, const uint8_t *bytes,
                     struct err *e)
{
    for (uint64_t i = 0; i < pages; i++) {
        const uint8_t *p = bytes ? bytes + i * a->plan.meta.page_size : zeros;
        int rc = a->copy->page(a->copy->arg, page + i, p, e);
        if (rc)
            return rc;
    }
    return 0;
}

static int hand_over_metas(struct attempt *a, uint8_t *buffer, struct err *e)
{
    for (unsigned slot = 0; slot < 2; slot++) {
        bolt_encode_meta(&a->plan.meta, slot, buffer);
        int rc = hand_over(a, slot, 1, buffer, e);
        if (rc)
            return rc;
    }
    return 0;
}

static int hand_over_pages(struct attempt *a, uint8_t *buffer, struct err *e)
{
    uint32_t size = a->plan.meta.page_size;
    uint64_t at = 2, run, since_look = 0;
    struct bolt_local file = {.fd = a->copy->fd, .path = a->copy->path};
    int rc = hand_over_metas(a, buffer, e);
    while (rc == 0 && at < a->plan.pages) {
        uint64_t next = bolt_map_next(&a->reachable, at, READ_BYTES / size, &run);
        rc = hand_over(a, at, next - at, NULL, e);
        if (rc == 0 && run)
            rc = local_read(&file, next * size, buffer, (size_t)run * size, e);
        if (rc == 0)
            rc = hand_over(a, next, run, buffer, e);
        at = next + run;
        since_look += run * size;
        if (rc == 0 && since_look >= LOOK_EVERY_BYTES && !a->copy->to_the_end) {
            rc = still_newest(a, e);
            since_look = 0;
        }
    }
    return rc;
}

static int walk(struct attempt *a, struct err *e)
{
    struct bolt_walked walked;
    int rc = bolt_walk(a->reader, &a->plan.meta, NULL, NULL, &walked, e);
    if (rc)
        return rc;
    bolt_map_free(&walked.free);
    a->reachable = walked.reachable;
    a->plan.pages = walked.reachable.pages;
    a->plan.reachable_pages = walked.reachable_pages;
    a->plan.free_pages = walked.free_pages;
    a->plan.lost_pages = walked.lost_pages;
    return a->copy->to_the_end ? 0 : still_newest(a, e);
}

static int attempt(struct attempt *a, struct err *e)
{
    OWN_MEM uint8_t *buffer = malloc(READ_BYTES);
    if (!buffer)
        return err_nomem(e);
    int rc = bolt_read_meta(a->reader, &a->plan.meta, e);
    if (rc == 0)
        rc = walk(a, e);
    if (rc == 0 && a->copy->begin)
        rc = a->copy->begin(a->copy->arg, &a->plan, e);
    if (rc == 0)
        rc = hand_over_pages(a, buffer, e);
    if (rc && rc != ERR_DAMAGED)
        return rc;
    /* Damage counts only in a state that nobody was writing over. */
    struct err why = ERR_INIT;
    int same = still_same(a, &why);
    if (same) {
        if (e)
            *e = why;
        return same;
    }
    return rc;
}

int bolt_copy(const struct bolt_copy *copy, struct bolt_copied *ret, bool *ret_replaced,
              struct err *e)
{
    struct bolt_local file = {.fd = copy->fd, .path = copy->path};
    struct attempt a = {.copy = copy};
    struct bolt_input input;
    OWN_BOLT struct bolt_reader *reader = NULL;
    if (ret_replaced)
        *ret_replaced = false;
    int rc = bolt_local_input(&file, &input, e);
    if (rc == 0)
        rc = bolt_open(&input, &reader, e);
    if (rc)
        return rc;
    a.reader = reader;
    a.size_bytes = input.size_bytes;
    rc = attempt(&a, e);
    bolt_map_free(&a.reachable);
    if (rc == 0)
        *ret = a.plan;
    if (ret_replaced)
        *ret_replaced = a.replaced;
    return rc;
}

int bolt_copy_warm(int fd, const char *path, const atomic_bool *cancel, struct err *e)
{
    OWN_MEM uint8_t *buffer = malloc(READ_BYTES);
    uint64_t at = 0;
    ssize_t got;
    if (!buffer)
        return err_nomem(e);
    do {
        if (cancel && atomic_load(cancel))
            return err_set(e, ERR_CANCELLED, path, "stopped while reading");
        got = io_pread_full(fd, buffer, READ_BYTES, at);
        if (got < 0)
            return err_sys(e, errno, path, "cannot read");
        at += (uint64_t)got;
    } while (got == READ_BYTES);
    return 0;
}
