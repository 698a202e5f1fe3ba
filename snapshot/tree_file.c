#include "snapshot/tree_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/attributes.h"
#include "snapshot/bolt_file.h"
#include "snapshot/content.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define READ_BYTES 65536u
#define TRIES_MAX 3
#define HOLES_MAX 16384u /* of one file; what lies in further ones is stored as zeros */
#define HEAD_BYTES 24u

/* Small enough that a change in a config or a blob ships little, large enough that a chunk's 18
 * bytes of metadata do not count. */
static const struct chunker_sizes file_chunks = {.min = 2048, .average = 8192, .max = 65536};

/* A bolt database goes on with its second meta when the first is damaged. Few files have a length
 * that one of those has. */
static bool is_bolt(int fd, const struct stat *st, const uint8_t *head, size_t n)
{
    if (bolt_sniff(head, n))
        return true;
    if (st->st_size < (off_t)(2 * BOLT_PAGE_SIZE_MIN) || st->st_size % BOLT_PAGE_SIZE_MIN)
        return false;
    OWN_MEM uint8_t *more = malloc(BOLT_SNIFF_BYTES);
    ssize_t got = more ? io_pread_full(fd, more, BOLT_SNIFF_BYTES, 0) : -1;
    return got > 0 && bolt_sniff(more, (size_t)got);
}

static bool is_database(int fd, const struct stat *st, enum image_kind *ret_kind)
{
    uint8_t head[HEAD_BYTES];
    ssize_t n = io_pread_full(fd, head, sizeof head, 0);
    if (n >= 16 && memcmp(head, "SQLite format 3", 16) == 0)
        *ret_kind = IMAGE_SQLITE;
    else if (n > 0 && is_bolt(fd, st, head, (size_t)n))
        *ret_kind = IMAGE_BOLT;
    else
        return false;
    return true;
}

bool tree_file_is_database(const struct tree_item *item, enum image_kind *ret_kind)
{
    struct stat st;
    OWN_FD int fd = io_openat_source(item->dir_fd, item->name);
    return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && is_database(fd, &st, ret_kind);
}

/* One attempt. */
struct reading {
    struct tree_file *f;
    int fd;
    struct stat st;
    struct content_writer w;
    struct run_list runs; /* once it has ended */
    struct buf holes;
    size_t hole_count;
    uint8_t *buffer;
};

static int changed(const struct reading *r, struct err *e)
{
    const char *path = r->f->item->path;
    err_set(e, ERR_CHANGED, path, "%s changes faster than it can be read", path);
    return err_hint(e, "If it need not be kept, name it in the source's exclude.");
}

static int read_data(struct reading *r, uint64_t from, uint64_t to, struct err *e)
{
    const struct source_run *run = r->f->run;
    int rc = 0;
    for (uint64_t at = from; rc == 0 && at < to;) {
        size_t n = (size_t)MIN(to - at, (uint64_t)READ_BYTES);
        ssize_t got = io_pread_full(r->fd, r->buffer, n, at);
        if (got < 0)
            return err_sys(e, errno, r->f->item->path, "cannot read %s", r->f->item->path);
        if ((size_t)got < n)
            return changed(r, e); /* it shrank */
        if (run->cancel && atomic_load(run->cancel))
            return err_set(e, ERR_CANCELLED, r->f->item->path, "stopped");
        rc = content_write(&r->w, r->buffer, n, e);
        if (run->read)
            run->read(run->arg, n);
        at += n;
    }
    return rc;
}

static void add_hole(struct reading *r, uint64_t from, uint64_t to)
{
    buf_put_varint(&r->holes, from);
    buf_put_varint(&r->holes, to - from);
    r->hole_count++;
}

/* Data and holes as the file system tells them apart. Where it cannot, all is data. */
static int read_sparse(struct reading *r, uint64_t size, struct err *e)
{
    uint64_t at = 0;
    int rc = 0;
    while (rc == 0 && at < size && r->hole_count < HOLES_MAX) {
        off_t data = lseek(r->fd, (off_t)at, SEEK_DATA);
        if (data < 0 && errno != ENXIO)
            break;
        uint64_t begin = data < 0 ? size : MIN((uint64_t)data, size);
        if (begin > at)
            add_hole(r, at, begin);
        if (begin >= size)
            return 0;
        off_t hole = lseek(r->fd, (off_t)begin, SEEK_HOLE);
        uint64_t end = hole < 0 ? size : MIN((uint64_t)hole, size);
        rc = end > begin ? read_data(r, begin, end, e) : changed(r, e);
        at = end;
    }
    return rc ? rc : read_data(r, at, size, e);
}

static int read_content(struct reading *r, struct err *e)
{
    uint64_t size = (uint64_t)r->st.st_size;
    bool sparse = (uint64_t)r->st.st_blocks * 512 < size && size > 4096;
    int rc = sparse ? read_sparse(r, size, e) : read_data(r, 0, size, e);
    return rc ? rc : content_end(&r->w, &r->runs, e);
}

static bool same_state(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           attributes_ns(&a->st_mtim) == attributes_ns(&b->st_mtim) &&
           attributes_ns(&a->st_ctim) == attributes_ns(&b->st_ctim);
}

/* Everything of the entry but its content. */
static int begin_entry(struct reading *r, struct entry *n, struct err *e)
{
    const struct tree_item *item = r->f->item;
    n->type = ENTRY_FILE;
    n->as_of_us = clock_now_us();
    n->path = strdup(item->path);
    if (!n->path)
        return err_nomem(e);
    int rc = signature_make(&r->st, &n->signature, e);
    if (rc == 0)
        rc = attributes_fill(&r->st, n, e);
    if (rc == 0)
        rc = attributes_read_extended(r->fd, -1, NULL, item->path, &n->xattrs, e);
    return rc;
}

static int end_entry(struct reading *r, struct entry *n, struct err *e)
{
    struct stat after;
    if (fstat(r->fd, &after) < 0)
        return err_sys(e, errno, n->path, "cannot look at %s", n->path);
    bool grown = r->f->grows && after.st_ino == r->st.st_ino && after.st_size >= r->st.st_size;
    if (!grown && !same_state(&r->st, &after))
        return changed(r, e);
    if (r->holes.bad)
        return err_nomem(e);
    n->size = (uint64_t)r->st.st_size;
    n->runs = r->runs;
    r->runs = (struct run_list){0};
    if (r->holes.len) {
        n->holes = (struct entry_bytes){.data = r->holes.data, .len = r->holes.len};
        r->holes = BUF_INIT;
    }
    return 0;
}

/* Encrypted by somebody, its first page gone, or all of it, as a power cut leaves a file: not what
 * is to take the place of its last good state. (An empty file is how SQLite begins one, too; that
 * one fails until something is in it.) */
static int no_database(const struct tree_item *item, off_t size, struct err *e)
{
    if (size == 0)
        err_set(e, ERR_SOURCE, item->path, "%s was a database and is an empty file now",
                item->path);
    else
        err_set(e, ERR_SOURCE, item->path,
                "%s was a database and is none any more: it is encrypted, or its first page is "
                "damaged",
                item->path);
    return err_hint(e,
                    "`syncd restore --path` brings its last good state back. If it is meant to be "
                    "another kind of file, give it another name.");
}

/* 1: it is a database. */
static int open_for_reading(struct reading *r, struct err *e)
{
    const struct tree_item *item = r->f->item;
    enum image_kind kind;
    r->fd = io_openat_source(item->dir_fd, item->name);
    if (r->fd < 0 && errno == ELOOP)
        return changed(r, e);
    if (r->fd < 0)
        return err_sys(e, errno, item->path, "cannot open %s", item->path);
    if (fstat(r->fd, &r->st) < 0)
        return err_sys(e, errno, item->path, "cannot look at %s", item->path);
    if (!S_ISREG(r->st.st_mode))
        return changed(r, e);
    if (is_database(r->fd, &r->st, &kind))
        return 1;
    return r->f->was_database ? no_database(item, r->st.st_size, e) : 0;
}

static int take_once(struct tree_file *f, uint8_t *buffer, struct entry *ret, struct err *e)
{
    struct reading r = {.f = f, .fd = -1, .buffer = buffer};
    struct entry n = {0};
    r.w = (struct content_writer){.pipeline = f->run->pipeline,
                                  .seed = f->run->repository->seed,
                                  .known = f->known,
                                  .sizes = file_chunks};
    int rc = open_for_reading(&r, e);
    if (rc == 0)
        rc = begin_entry(&r, &n, e);
    if (rc == 0)
        rc = read_content(&r, e);
    if (rc == 0)
        rc = end_entry(&r, &n, e);
    f->shipped_bytes += r.w.shipped;
    content_free(&r.w);
    run_list_free(&r.runs);
    buf_free(&r.holes);
    mem_closep(&r.fd);
    if (rc)
        entry_free(&n);
    else
        *ret = n;
    return rc;
}

int tree_file_take(struct tree_file *f, struct entry *ret, struct err *e)
{
    OWN_MEM uint8_t *buffer = malloc(READ_BYTES);
    int rc = buffer ? ERR_CHANGED : err_nomem(e);
    f->shipped_bytes = 0;
    for (int i = 0; rc == ERR_CHANGED && i < TRIES_MAX; i++)
        rc = take_once(f, buffer, ret, e);
    return rc;
}
