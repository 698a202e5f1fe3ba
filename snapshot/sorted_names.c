#include "snapshot/sorted_names.h"

#include <errno.h>
#include <string.h>

#include "snapshot/spool.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define WINDOW 4096u /* bytes of a run in memory while merging */

/* A sorted run in the file: names with their NULs. */
struct run {
    uint64_t at, end; /* of what is not in the window yet */
    struct buf window;
    size_t taken;
};

struct sorted_names {
    char *dir;
    size_t count;
    /* In memory: the names back to back, and where each begins. */
    struct buf text;
    size_t start_count, start_cap, next;
    uint32_t *starts;
    /* In the file. */
    int fd;
    uint64_t written;
    size_t run_count, run_cap;
    struct run *runs;
    struct run *best; /* whose first name is the next; NULL: none */
};

int sorted_names_new(const char *dir, struct sorted_names **ret, struct err *e)
{
    struct sorted_names *n = mem_alloc(1, sizeof *n);
    if (n)
        n->dir = strdup(dir);
    if (!n || !n->dir) {
        free(n);
        return err_nomem(e);
    }
    n->fd = -1;
    *ret = n;
    return 0;
}

void sorted_names_free(struct sorted_names *n)
{
    if (!n)
        return;
    for (size_t i = 0; i < n->run_count; i++)
        buf_free(&n->runs[i].window);
    mem_closep(&n->fd);
    buf_free(&n->text);
    free(n->starts);
    free(n->runs);
    free(n->dir);
    free(n);
}

static int compare_starts(const void *a, const void *b, void *text)
{
    return strcmp((const char *)text + *(const uint32_t *)a,
                  (const char *)text + *(const uint32_t *)b);
}

static void sort_memory(struct sorted_names *n)
{
    if (n->start_count)
        qsort_r(n->starts, n->start_count, sizeof *n->starts, compare_starts, n->text.data);
}

static int cannot_use(const char *doing, struct err *e)
{
    return err_sys(e, errno ? errno : EIO, NULL, "cannot %s a folder's names", doing);
}

/* What is in memory becomes a run in the file. */
static int spill(struct sorted_names *n, struct err *e)
{
    OWN_BUF struct buf sorted = BUF_INIT;
    if (n->fd < 0) {
        int rc = spool_file(n->dir, &n->fd, e);
        if (rc)
            return rc;
    }
    sort_memory(n);
    for (size_t i = 0; i < n->start_count; i++) {
        const char *name = (const char *)n->text.data + n->starts[i];
        buf_put(&sorted, name, strlen(name) + 1);
    }
    if (sorted.bad || mem_grow(&n->runs, &n->run_cap, n->run_count + 1, sizeof *n->runs))
        return err_nomem(e);
    if (io_pwrite_all(n->fd, sorted.data, sorted.len, n->written) < 0)
        return cannot_use("store", e);
    n->runs[n->run_count++] = (struct run){.at = n->written, .end = n->written + sorted.len};
    n->written += sorted.len;
    n->start_count = 0;
    buf_reset(&n->text);
    return 0;
}

int sorted_names_add(struct sorted_names *n, const char *name, struct err *e)
{
    size_t len = strlen(name) + 1;
    int rc = 0;
    if (n->text.len + len + (n->start_count + 1) * sizeof *n->starts > SORTED_NAMES_BYTES)
        rc = spill(n, e);
    if (rc)
        return rc;
    if (mem_grow(&n->starts, &n->start_cap, n->start_count + 1, sizeof *n->starts))
        return err_nomem(e);
    n->starts[n->start_count++] = (uint32_t)n->text.len;
    buf_put(&n->text, name, len);
    n->count++;
    return n->text.bad ? err_nomem(e) : 0;
}

/* Makes a whole name part of the run's window, unless the run is at its end. */
static int fill(struct sorted_names *n, struct run *r, struct err *e)
{
    size_t left = r->window.len - r->taken;
    if (left && memchr(r->window.data + r->taken, 0, left))
        return 0;
    if (left)
        memmove(r->window.data, r->window.data + r->taken, left);
    r->taken = 0;
    r->window.len = left;
    size_t more = (size_t)MIN(r->end - r->at, (uint64_t)WINDOW);
    uint8_t *to = buf_extend(&r->window, more);
    if (!to)
        return err_nomem(e);
    errno = 0;
    if (io_pread_full(n->fd, to, more, r->at) != (ssize_t)more)
        return cannot_use("read", e);
    r->at += more;
    return 0;
}

static const char *head_of(const struct run *r)
{
    return r->window.len > r->taken ? (const char *)r->window.data + r->taken : NULL;
}

static void choose_best(struct sorted_names *n)
{
    n->best = NULL;
    for (size_t i = 0; i < n->run_count; i++) {
        const char *name = head_of(&n->runs[i]);
        if (name && (!n->best || strcmp(name, head_of(n->best)) < 0))
            n->best = &n->runs[i];
    }
}

int sorted_names_sort(struct sorted_names *n, struct err *e)
{
    n->next = 0;
    if (n->run_count == 0) {
        sort_memory(n);
        return 0;
    }
    int rc = n->start_count ? spill(n, e) : 0;
    buf_free(&n->text);
    free(TAKE_PTR(n->starts));
    n->start_cap = 0;
    for (size_t i = 0; rc == 0 && i < n->run_count; i++)
        rc = fill(n, &n->runs[i], e);
    if (rc == 0)
        choose_best(n);
    return rc;
}

size_t sorted_names_count(const struct sorted_names *n)
{
    return n->count;
}

const char *sorted_names_peek(const struct sorted_names *n)
{
    if (n->run_count)
        return n->best ? head_of(n->best) : NULL;
    return n->next < n->start_count ? (const char *)n->text.data + n->starts[n->next] : NULL;
}

int sorted_names_take(struct sorted_names *n, struct err *e)
{
    if (!n->run_count) {
        n->next++;
        return 0;
    }
    n->best->taken += strlen(head_of(n->best)) + 1;
    int rc = fill(n, n->best, e);
    if (rc == 0)
        choose_best(n);
    return rc;
}
