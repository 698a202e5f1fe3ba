#include "snapshot/fingerprints.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define WINDOW 4096u /* fingerprints */
#define WINDOW_BYTES (WINDOW * sizeof(uint64_t))
#define HEAD_SIZE (8 + REPO_ID_SIZE + DIGEST_SIZE + 8 + 8)

static const char magic[8] = "syncdfp1";

struct fingerprints {
    char *dir;
    char *path; /* of the working file */
    int fd;
    uint64_t first; /* page of window[0] */
    bool loaded, dirty, touched;
    uint64_t *window; /* NULL while it rests, as fd is -1 */
};

static char *table_path(const char *dir, uint64_t image, const char *suffix)
{
    char *path = NULL;
    return asprintf(&path, "%s/%016" PRIx64 "%s", dir, image, suffix) < 0 ? NULL : path;
}

void fingerprints_drop(struct fingerprints *t)
{
    if (!t)
        return;
    if (t->path)
        io_unlink(t->path);
    if (t->fd >= 0)
        io_close(t->fd);
    free(t->path);
    free(t->dir);
    free(t->window);
    free(t);
}

static void dropp(struct fingerprints **t)
{
    fingerprints_drop(*t);
}

static void head_encode(const struct fingerprints_head *h, uint64_t pages, uint8_t *ret)
{
    memcpy(ret, magic, 8);
    memcpy(ret + 8, h->repository, REPO_ID_SIZE);
    memcpy(ret + 24, h->snapshot, DIGEST_SIZE);
    le64_put(ret + 56, h->image);
    le64_put(ret + 64, pages);
}

/* Copies the kept table into the working file when it is of the state asked for. */
static bool copy_kept(struct fingerprints *t, const struct fingerprints_head *of)
{
    OWN_MEM char *path = table_path(t->dir, of->image, ".fp");
    OWN_FD int fd = path ? io_open(path, O_RDONLY | O_NOFOLLOW, 0) : -1;
    uint8_t head[HEAD_SIZE], want[HEAD_SIZE];
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || io_pread_full(fd, head, sizeof head, 0) != HEAD_SIZE)
        return false;
    uint64_t pages = le64_get(head + 64);
    head_encode(of, pages, want);
    if (memcmp(head, want, sizeof head) != 0 || pages > INT64_MAX / 16 ||
        (uint64_t)st.st_size != HEAD_SIZE + 8 * pages)
        return false;
    for (uint64_t at = 0; at < 8 * pages; at += WINDOW_BYTES) {
        size_t n = (size_t)MIN(8 * pages - at, (uint64_t)WINDOW_BYTES);
        if (io_pread_full(fd, t->window, n, HEAD_SIZE + at) != (ssize_t)n ||
            io_pwrite_all(t->fd, t->window, n, HEAD_SIZE + at) < 0)
            return false;
    }
    return true;
}

int fingerprints_begin(const char *dir, const struct fingerprints_head *of,
                       struct fingerprints **ret, bool *ret_known, struct err *e)
{
    CLEANUP(dropp) struct fingerprints *t = mem_alloc(1, sizeof *t);
    if (!t)
        return err_nomem(e);
    t->fd = -1;
    t->dir = strdup(dir);
    t->path = table_path(dir, of->image, ".new");
    t->window = mem_alloc(WINDOW, sizeof *t->window);
    if (!t->dir || !t->path || !t->window)
        return err_nomem(e);
    t->fd = io_open(t->path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
    if (t->fd < 0)
        return err_sys(e, errno, t->path, "cannot create %s", t->path);
    *ret_known = copy_kept(t, of);
    if (!*ret_known && io_ftruncate(t->fd, 0) < 0)
        return err_sys(e, errno, t->path, "cannot empty %s", t->path);
    *ret = TAKE_PTR(t);
    return 0;
}

static int flush_window(struct fingerprints *t, struct err *e)
{
    if (!t->dirty)
        return 0;
    if (io_pwrite_all(t->fd, t->window, WINDOW_BYTES, HEAD_SIZE + 8 * t->first) < 0)
        return err_sys(e, errno, t->path, "cannot write %s", t->path);
    t->dirty = false;
    return 0;
}

static int wake(struct fingerprints *t, struct err *e)
{
    if (!t->window)
        t->window = mem_alloc(WINDOW, sizeof *t->window);
    if (!t->window)
        return err_nomem(e);
    if (t->fd < 0)
        t->fd = io_open(t->path, O_RDWR | O_NOFOLLOW, 0);
    return t->fd < 0 ? err_sys(e, errno, t->path, "cannot open %s", t->path) : 0;
}

int fingerprints_rest(struct fingerprints *t, struct err *e)
{
    int rc = flush_window(t, e);
    if (rc)
        return rc;
    free(TAKE_PTR(t->window));
    mem_closep(&t->fd);
    t->loaded = t->touched = false;
    return 0;
}

bool fingerprints_touched(const struct fingerprints *t)
{
    return t->touched;
}

static int move_window(struct fingerprints *t, uint64_t page, struct err *e)
{
    uint64_t first = page - page % WINDOW;
    if (t->loaded && t->first == first)
        return 0;
    int rc = wake(t, e);
    if (rc == 0)
        rc = flush_window(t, e);
    if (rc)
        return rc;
    memset(t->window, 0, WINDOW_BYTES);
    if (io_pread_full(t->fd, t->window, WINDOW_BYTES, HEAD_SIZE + 8 * first) < 0)
        return err_sys(e, errno, t->path, "cannot read %s", t->path);
    t->first = first;
    t->loaded = true;
    return 0;
}

int fingerprints_get(struct fingerprints *t, uint64_t page, uint64_t *ret, struct err *e)
{
    int rc = move_window(t, page, e);
    if (rc == 0)
        *ret = t->window[page - t->first];
    return rc;
}

int fingerprints_set(struct fingerprints *t, uint64_t page, uint64_t value, struct err *e)
{
    int rc = move_window(t, page, e);
    if (rc == 0 && t->window[page - t->first] != value) {
        t->window[page - t->first] = value;
        t->dirty = t->touched = true;
    }
    return rc;
}

int fingerprints_keep(struct fingerprints *t, const struct fingerprints_head *head,
                      uint64_t page_count, struct err *e)
{
    uint8_t raw[HEAD_SIZE];
    OWN_MEM char *path = table_path(t->dir, head->image, ".fp");
    int rc = path ? wake(t, e) : err_nomem(e);
    if (rc == 0)
        rc = flush_window(t, e);
    head_encode(head, page_count, raw);
    if (rc == 0 &&
        (io_pwrite_all(t->fd, raw, sizeof raw, 0) < 0 ||
         io_ftruncate(t->fd, HEAD_SIZE + 8 * page_count) < 0 || io_rename(t->path, path) < 0))
        rc = err_sys(e, errno, t->path, "cannot keep the fingerprints in %s", t->path);
    if (rc == 0) {
        free(t->path);
        t->path = NULL;
    }
    fingerprints_drop(t);
    return rc;
}
