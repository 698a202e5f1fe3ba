#include "snapshot/run_list.h"

#include <errno.h>
#include <string.h>

#include "snapshot/spool.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define RUN_BYTES_MAX 40u /* four numbers */

/* ---- files ---- */

struct shared_file *shared_file_new(int fd)
{
    struct shared_file *f = mem_alloc(1, sizeof *f);
    if (f)
        *f = (struct shared_file){.refs = 1, .fd = fd};
    else
        mem_closep(&fd);
    return f;
}

struct shared_file *shared_file_ref(struct shared_file *f)
{
    f->refs++;
    return f;
}

void shared_file_unref(struct shared_file *f)
{
    if (!f || --f->refs > 0)
        return;
    mem_closep(&f->fd);
    free(f);
}

static int cannot(const char *doing, struct err *e)
{
    return err_sys(e, errno ? errno : EIO, NULL, "cannot %s a temporary list of runs", doing);
}

/* ---- one list ---- */

void run_list_free(struct run_list *l)
{
    free(l->data);
    shared_file_unref(l->file);
    *l = (struct run_list){0};
}

int run_list_copy(const struct run_list *from, struct run_list *ret, struct err *e)
{
    struct run_list to = *from;
    if (from->file) {
        shared_file_ref(from->file);
    } else if (from->len) {
        to.data = malloc((size_t)from->len);
        if (!to.data)
            return err_nomem(e);
        memcpy(to.data, from->data, (size_t)from->len);
    }
    *ret = to;
    return 0;
}

static uint64_t varint_bytes(uint64_t v)
{
    uint64_t n = 1;
    for (; v >= 128; v /= 128)
        n++;
    return n;
}

uint64_t run_list_bytes(const struct run_list *l)
{
    return varint_bytes(l->count) + l->len;
}

int run_list_read(const struct run_list *l, uint64_t from, uint8_t *to, size_t n, struct err *e)
{
    errno = 0;
    if (!l->file)
        memcpy(to, l->data + from, n);
    else if (io_pread_full(l->file->fd, to, n, l->at + from) != (ssize_t)n)
        return cannot("read", e);
    return 0;
}

/* ---- reading ---- */

void run_read(struct run_reader *r, const struct run_list *l)
{
    r->list = l;
    r->taken = 0;
    r->at = r->filled = 0;
}

static bool take_run(struct cursor *c, struct part_run *ret)
{
    uint64_t epoch = cursor_varint(c), sequence = cursor_varint(c);
    uint64_t first = cursor_varint(c), n = cursor_varint(c);
    if (c->bad || epoch > UINT32_MAX || first > PART_ITEMS_MAX || n > PART_ITEMS_MAX || !n)
        return false;
    *ret = (struct part_run){(uint32_t)epoch, sequence, (uint32_t)first, (uint32_t)n};
    return true;
}

static int refill(struct run_reader *r, struct err *e)
{
    size_t left = r->filled - r->at;
    uint64_t have = r->taken + left;
    size_t more = (size_t)MIN(r->list->len - have, (uint64_t)(sizeof r->window - left));
    memmove(r->window, r->window + r->at, left);
    r->at = 0;
    r->filled = left + more;
    return more ? run_list_read(r->list, have, r->window + left, more, e) : 0;
}

int run_next(struct run_reader *r, struct part_run *ret, struct err *e)
{
    if (r->taken >= r->list->len)
        return 0;
    int rc = r->filled - r->at < RUN_BYTES_MAX ? refill(r, e) : 0;
    if (rc)
        return rc;
    struct cursor c = cursor_of(r->window + r->at, r->filled - r->at);
    if (!take_run(&c, ret))
        return err_set(e, ERR_DAMAGED, NULL, "the list of an entry's runs is damaged");
    size_t used = r->filled - r->at - cursor_left(&c);
    r->at += used;
    r->taken += used;
    return 1;
}

/* Every run is well formed, and there are as many as the count says. */
static int check(const struct run_list *l, struct err *e)
{
    struct run_reader r;
    struct part_run run;
    uint64_t count = 0;
    int rc;
    run_read(&r, l);
    while ((rc = run_next(&r, &run, e)) == 1)
        count++;
    if (rc == 0 && count != l->count)
        rc = err_set(e, ERR_DAMAGED, NULL, "the list of an entry's runs is damaged: its count");
    return rc;
}

bool run_list_decode(struct cursor *c, struct run_list *ret)
{
    struct run_list l = {.count = cursor_varint(c), .len = cursor_left(c)};
    const uint8_t *p = cursor_take(c, (size_t)l.len);
    if (c->bad)
        return false;
    if (l.len && !(l.data = malloc((size_t)l.len)))
        return false;
    if (l.len)
        memcpy(l.data, p, (size_t)l.len);
    if (check(&l, NULL)) {
        run_list_free(&l);
        return false;
    }
    *ret = l;
    return true;
}

int run_list_at(struct shared_file *f, uint64_t at, uint64_t len, struct run_list *ret,
                struct err *e)
{
    uint8_t head[10];
    size_t n = (size_t)MIN(len, (uint64_t)sizeof head);
    errno = 0;
    if (io_pread_full(f->fd, head, n, at) != (ssize_t)n)
        return cannot("read", e);
    struct cursor c = cursor_of(head, n);
    struct run_list l = {.count = cursor_varint(&c), .file = f};
    uint64_t skip = n - cursor_left(&c);
    if (c.bad)
        return err_set(e, ERR_DAMAGED, NULL, "the list of an entry's runs is damaged");
    l.at = at + skip;
    l.len = len - skip;
    int rc = check(&l, e);
    if (rc)
        return rc;
    shared_file_ref(f);
    *ret = l;
    return 0;
}

int run_list_array(const struct run_list *l, size_t most, struct part_run **ret, size_t *ret_count,
                   struct err *e)
{
    struct run_reader r;
    size_t count = 0;
    int rc = 1;
    if (l->count > most)
        return err_set(e, ERR_DAMAGED, NULL, "content lies in too many pieces");
    OWN_MEM struct part_run *runs = mem_alloc((size_t)l->count, sizeof *runs);
    if (!runs)
        return err_nomem(e);
    run_read(&r, l);
    while (count < l->count && (rc = run_next(&r, &runs[count], e)) == 1)
        count++;
    if (rc < 0)
        return rc;
    *ret_count = count;
    *ret = TAKE_PTR(runs);
    return 0;
}

bool run_list_same(const struct run_list *a, const struct run_list *b)
{
    uint8_t x[4096], y[4096];
    if (a->count != b->count || a->len != b->len)
        return false;
    for (uint64_t at = 0, n; at < a->len; at += n) {
        n = MIN(a->len - at, (uint64_t)sizeof x);
        if (run_list_read(a, at, x, (size_t)n, NULL) || run_list_read(b, at, y, (size_t)n, NULL) ||
            memcmp(x, y, (size_t)n) != 0)
            return false;
    }
    return true;
}

/* ---- writing ---- */

static void put_last(struct run_writer *w)
{
    if (!w->last.count)
        return;
    buf_put_varint(&w->pending, w->last.epoch);
    buf_put_varint(&w->pending, w->last.sequence);
    buf_put_varint(&w->pending, w->last.first_chunk);
    buf_put_varint(&w->pending, w->last.count);
    w->list.count++;
    w->last = (struct part_run){0};
}

static int flush(struct run_writer *w, struct err *e)
{
    int fd = -1;
    if (!w->list.file) {
        int rc = spool_file(NULL, &fd, e);
        if (rc)
            return rc;
        w->list.file = shared_file_new(fd);
        if (!w->list.file)
            return err_nomem(e);
    }
    if (io_pwrite_all(w->list.file->fd, w->pending.data, w->pending.len, w->list.len) < 0)
        return cannot("write", e);
    w->list.len += w->pending.len;
    buf_reset(&w->pending);
    return 0;
}

int run_add(struct run_writer *w, const struct part_run *one, struct err *e)
{
    struct part_run *last = &w->last;
    if (last->count && last->epoch == one->epoch && last->sequence == one->sequence &&
        last->first_chunk + last->count == one->first_chunk) {
        last->count += one->count;
        return 0;
    }
    put_last(w);
    *last = *one;
    if (w->pending.bad)
        return err_nomem(e);
    return w->pending.len >= RUN_LIST_IN_MEMORY ? flush(w, e) : 0;
}

int run_end(struct run_writer *w, struct run_list *ret, struct err *e)
{
    put_last(w);
    if (w->pending.bad)
        return err_nomem(e);
    int rc = w->list.file && w->pending.len ? flush(w, e) : 0;
    if (rc)
        return rc;
    *ret = w->list;
    if (!ret->file) {
        ret->data = TAKE_PTR(w->pending.data);
        ret->len = w->pending.len;
    }
    w->list = (struct run_list){0};
    run_writer_free(w);
    return 0;
}

void run_writer_free(struct run_writer *w)
{
    run_list_free(&w->list);
    buf_free(&w->pending);
    w->last = (struct part_run){0};
}

uint64_t run_writer_bytes(const struct run_writer *w)
{
    return w->list.len + w->pending.len;
}
