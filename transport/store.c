#include "transport/store.h"

#include <stdio.h>
#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "transport/open.h"

#define READ_BYTES (64 * 1024)

bool store_name_ok(const char *name, size_t len)
{
    if (len == 0 || len > STORE_NAME_MAX || memchr(name, '/', len) || memchr(name, '\0', len))
        return false;
    return !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

/* Paths are put together from names that a worker sent, so that no caller can be led out of the
 * repository this is looked at once, here. */
static int check_path(const struct store *s, const char *path, bool root_too, struct err *e)
{
    const char *slash = strchr(path, '/');
    bool ok;
    if (*path == '\0')
        ok = root_too;
    else if (slash)
        ok = store_name_ok(path, (size_t)(slash - path)) &&
             store_name_ok(slash + 1, strlen(slash + 1));
    else
        ok = store_name_ok(path, strlen(path));
    if (ok)
        return 0;
    return err_set(e, ERR_INTERNAL, s->name, "%s: \"%s\" is no path in a repository", s->name,
                   path);
}

int store_list(struct store *s, const char *dir, store_list_fn *fn, void *arg, struct err *e)
{
    int rc = check_path(s, dir, true, e);
    return rc ? rc : s->ops->list(s, dir, fn, arg, e);
}

int store_stat(struct store *s, const char *path, struct store_stat *ret, struct err *e)
{
    int rc = check_path(s, path, true, e);
    return rc ? rc : s->ops->stat(s, path, ret, e);
}

int store_make_dir(struct store *s, const char *path, struct err *e)
{
    int rc = check_path(s, path, false, e);
    return rc ? rc : s->ops->make_dir(s, path, e);
}

int store_remove(struct store *s, const char *path, struct err *e)
{
    int rc = check_path(s, path, false, e);
    return rc ? rc : s->ops->remove(s, path, e);
}

int store_rename(struct store *s, const char *from, const char *to, struct err *e)
{
    int rc = check_path(s, from, false, e);
    if (rc == 0)
        rc = check_path(s, to, false, e);
    return rc ? rc : s->ops->rename(s, from, to, e);
}

int store_set_mtime(struct store *s, const char *path, int64_t mtime_us, struct err *e)
{
    int rc = check_path(s, path, false, e);
    return rc ? rc : s->ops->set_mtime(s, path, mtime_us, e);
}

int store_space(struct store *s, struct store_space *ret, struct err *e)
{
    return s->ops->space(s, ret, e);
}

int store_probe(struct store *s, struct err *e)
{
    return s->ops->probe ? s->ops->probe(s, e) : 0;
}

int store_create(struct store *s, const char *path, struct store_file **ret, struct err *e)
{
    int rc = check_path(s, path, false, e);
    return rc ? rc : s->ops->create(s, path, ret, e);
}

int store_open(struct store *s, const char *path, struct store_file **ret, struct err *e)
{
    int rc = check_path(s, path, false, e);
    return rc ? rc : s->ops->open(s, path, ret, e);
}

int store_write(struct store_file *f, const void *p, size_t n, struct err *e)
{
    return f->store->ops->write(f, p, n, e);
}

int store_read_at(struct store_file *f, uint64_t offset, void *p, size_t n, size_t *ret_n,
                  struct err *e)
{
    return f->store->ops->read_at(f, offset, p, n, ret_n, e);
}

int store_sync(struct store_file *f, struct err *e)
{
    return f->store->ops->sync(f, e);
}

int store_sync_name(struct store_file *f, const char *path, struct err *e)
{
    int rc = check_path(f->store, path, false, e);
    return rc ? rc : f->store->ops->sync_name(f, path, e);
}

int store_publish(struct store_file *f, const char *from, const char *to, int64_t mtime_us,
                  struct err *e)
{
    const struct store_ops *ops = f->store->ops;
    int rc = ops->sync(f, e);
    if (rc == 0 && mtime_us >= 0)
        rc = store_set_mtime(f->store, from, mtime_us, e);
    if (rc == 0)
        rc = store_rename(f->store, from, to, e);
    /* The file's own sync does not make a later name durable: a power cut then loses the name. */
    return rc ? rc : ops->sync_name(f, to, e);
}

int store_close_file(struct store_file *f, struct err *e)
{
    return f ? f->store->ops->close_file(f, e) : 0;
}

void store_close(struct store *s)
{
    if (s)
        s->ops->close(s);
}

static int read_to_end(struct store_file *f, const char *path, size_t limit_bytes, struct buf *ret,
                       struct err *e)
{
    size_t before = ret->len;
    for (;;) {
        uint8_t *at = buf_extend(ret, READ_BYTES);
        if (!at)
            return err_nomem(e);
        size_t got = 0;
        int rc = store_read_at(f, ret->len - READ_BYTES - before, at, READ_BYTES, &got, e);
        ret->len -= READ_BYTES - got;
        if (rc)
            return rc;
        if (ret->len - before > limit_bytes)
            return err_set(e, ERR_LIMIT, f->store->name, "%s: %s is larger than %zu bytes",
                           f->store->name, path, limit_bytes);
        if (got < READ_BYTES)
            return 0;
    }
}

int store_read_file(struct store *s, const char *path, size_t limit_bytes, struct buf *ret,
                    struct err *e)
{
    struct store_file *f;
    size_t before = ret->len;
    int rc = store_open(s, path, &f, e);
    if (rc)
        return rc;
    rc = read_to_end(f, path, limit_bytes, ret, e);
    if (rc)
        ret->len = before;
    store_close_file(f, NULL); /* all was read: what closing might say changes nothing */
    return rc;
}

int store_write_file(struct store *s, const char *path, const void *p, size_t n, struct err *e)
{
    uint8_t random[16];
    char hex[2 * sizeof random + 1], tmp[sizeof "tmp/" + sizeof hex];
    io_random(random, sizeof random);
    hex_encode(random, sizeof random, hex);
    snprintf(tmp, sizeof tmp, "tmp/%s", hex);

    struct store_file *f;
    int rc = store_create(s, tmp, &f, e);
    if (rc == ERR_NOT_FOUND && store_make_dir(s, "tmp", e) == 0)
        rc = store_create(s, tmp, &f, e);
    if (rc)
        return rc;
    rc = store_write(f, p, n, e);
    if (rc == 0)
        rc = store_publish(f, tmp, path, -1, e);
    int closed = store_close_file(f, rc ? NULL : e);
    if (rc)
        store_remove(s, tmp, NULL);
    return rc ? rc : closed;
}

int store_make_root(struct store *s, struct err *e)
{
    return s->ops->make_root(s, e);
}

int store_enrol_key(struct store *s, const char *line, struct err *e)
{
    if (!s->ops->enrol_key)
        return err_set(e, ERR_UNSUPPORTED, s->name, "%s: a folder needs no key", s->name);
    return s->ops->enrol_key(s, line, e);
}

int store_clock(struct store *s, int64_t *ret_us, int64_t *ret_ahead_us, struct err *e)
{
    uint8_t random[8];
    char hex[2 * sizeof random + 1], path[sizeof "tmp/check-" + sizeof hex];
    struct store_file *f = NULL;
    struct store_stat st;
    io_random(random, sizeof random);
    hex_encode(random, sizeof random, hex);
    snprintf(path, sizeof path, "tmp/check-%s", hex);
    int64_t before_us = clock_now_us();
    int rc = store_create(s, path, &f, e);
    if (rc)
        return rc;
    rc = store_close_file(f, e);
    if (rc == 0)
        rc = store_stat(s, path, &st, e);
    int64_t after_us = clock_now_us();
    int removed = store_remove(s, path, rc ? NULL : e);
    if (rc || removed)
        return rc ? rc : removed;
    if (ret_ahead_us)
        *ret_ahead_us = st.mtime_us > after_us                ? st.mtime_us - after_us
                        : st.mtime_us + US_PER_S <= before_us ? st.mtime_us - before_us
                                                              : 0;
    *ret_us = st.mtime_us;
    return 0;
}
