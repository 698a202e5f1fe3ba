/* What `setup` does on a worker besides the store's own operations. */
#include <stdio.h>
#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/mem.h"
#include "transport/sftp_session.h"

#define AUTHORIZED_KEYS_LIMIT (1024 * 1024)

static int make_one(struct sftp *s, const char *path, struct err *e)
{
    int rc;
    LIBSSH2_SFTP_ATTRIBUTES a;
    sftp_progress(s);
    SFTP_AWAIT(s, rc, libssh2_sftp_mkdir_ex(s->sftp, path, (unsigned)strlen(path), 0700));
    if (rc == 0)
        return 0;
    rc = sftp_fail(s, rc, "make the folder", path, e);
    if (!s->broken.code && sftp_look(s, path, &a, NULL) == 0 &&
        a.flags & LIBSSH2_SFTP_ATTR_PERMISSIONS && LIBSSH2_SFTP_S_ISDIR(a.permissions))
        return 0;
    return rc;
}

int sftp_make_root(struct store *st, struct err *e)
{
    struct sftp *s = sftp_of(st);
    int rc = sftp_begin(s, e);
    if (rc)
        return rc;
    struct sftp_path p = sftp_path_in(s, "");
    LIBSSH2_SFTP_ATTRIBUTES a;
    if (sftp_look(s, p.s, &a, NULL) == 0 && LIBSSH2_SFTP_S_ISDIR(a.permissions))
        return 0;
    for (char *slash = p.s + 1; rc == 0; slash++) {
        slash += strcspn(slash, "/");
        char end = *slash;
        *slash = '\0';
        rc = make_one(s, p.s, e);
        *slash = end;
        if (end == '\0')
            break;
    }
    return rc;
}

/* The key itself in a line of authorized_keys: the word after its type, base64 of a string whose
 * length's first bytes are zero and which therefore begins with AAAA. NULL: there is none. */
static const char *key_in_line(const char *line, size_t *ret_len)
{
    for (const char *p = line; *p;) {
        p += strspn(p, " \t");
        size_t n = strcspn(p, " \t");
        if (n > 32 && strncmp(p, "AAAA", 4) == 0) {
            *ret_len = n;
            return p;
        }
        p += n;
    }
    return NULL;
}

static bool has_key(const struct buf *file, const char *key, size_t len)
{
    if (file->len == 0)
        return false;
    const char *p = (const char *)file->data, *end = p + file->len;
    while (p < end) {
        const char *line_end = memchr(p, '\n', (size_t)(end - p));
        if (!line_end)
            line_end = end;
        const char *found = memmem(p, (size_t)(line_end - p), key, len);
        if (found && *p != '#' && (found + len == line_end || strchr(" \t\r", found[len]) != NULL))
            return true;
        p = line_end + 1;
    }
    return false;
}

static LIBSSH2_SFTP_HANDLE *open_path(struct sftp *s, const char *path, unsigned long flags)
{
    LIBSSH2_SFTP_HANDLE *h;
    sftp_progress(s);
    SFTP_AWAIT_PTR(s, h,
                   libssh2_sftp_open_ex(s->sftp, path, (unsigned)strlen(path), flags, 0600,
                                        LIBSSH2_SFTP_OPENFILE));
    return h;
}

static int close_handle(struct sftp *s, LIBSSH2_SFTP_HANDLE *h)
{
    int rc;
    sftp_progress(s);
    SFTP_AWAIT(s, rc, libssh2_sftp_close(h));
    if (rc == LIBSSH2_ERROR_EAGAIN) /* broken by now, and so it only frees */
        libssh2_sftp_close(h);
    return rc;
}

/* The whole file at path; nothing when it does not exist. */
static int read_path(struct sftp *s, const char *path, struct buf *ret, struct err *e)
{
    LIBSSH2_SFTP_HANDLE *h = open_path(s, path, LIBSSH2_FXF_READ);
    if (!h) {
        int rc = sftp_fail(s, 0, "open", path, e);
        return rc == ERR_NOT_FOUND ? 0 : rc;
    }
    ssize_t got;
    int rc = 0;
    do {
        uint8_t *at = buf_extend(ret, 32768);
        if (!at) {
            rc = err_nomem(e);
            break;
        }
        sftp_progress(s);
        SFTP_AWAIT(s, got, libssh2_sftp_read(h, (char *)at, 32768));
        ret->len -= 32768 - (size_t)MAX(got, (ssize_t)0);
        if (got < 0)
            rc = sftp_fail(s, (int)got, "read", path, e);
        else if (ret->len > AUTHORIZED_KEYS_LIMIT)
            rc = err_set(e, ERR_LIMIT, s->store.name, "%s: %s is too large", s->store.name, path);
    } while (rc == 0 && got > 0);
    close_handle(s, h);
    return rc;
}

static int write_all(struct sftp *s, LIBSSH2_SFTP_HANDLE *h, const struct buf *b)
{
    for (size_t done = 0; done < b->len;) {
        ssize_t rc;
        sftp_progress(s);
        SFTP_AWAIT(s, rc, libssh2_sftp_write(h, (char *)b->data + done, b->len - done));
        if (rc < 0)
            return (int)rc;
        done += (size_t)rc;
    }
    int rc = 0;
    sftp_progress(s);
    SFTP_AWAIT(s, rc, libssh2_sftp_fsync(h));
    return sftp_says(s, rc, LIBSSH2_FX_OP_UNSUPPORTED) ? 0 : rc;
}

/* Adds the bytes at the end of the file, which has `size` bytes, or takes them back. The file is
 * never replaced: a cut between two renames would lock its owner out. */
static int append(struct sftp *s, const char *path, uint64_t size, const struct buf *b,
                  struct err *e)
{
    LIBSSH2_SFTP_HANDLE *h = open_path(s, path, LIBSSH2_FXF_WRITE | LIBSSH2_FXF_CREAT);
    if (!h)
        return sftp_fail(s, 0, "write", path, e);
    LIBSSH2_SFTP_ATTRIBUTES a = {0};
    int rc, code = 0;
    SFTP_AWAIT(s, rc, libssh2_sftp_fstat_ex(h, &a, 0));
    if (rc) {
        code = sftp_fail(s, rc, "look at", path, e);
    } else if (a.flags & LIBSSH2_SFTP_ATTR_SIZE && a.filesize != size) {
        code = err_set(e, ERR_CHANGED, s->store.name,
                       "%s: %s was changed by something else just now; nothing was written",
                       s->store.name, path);
    } else {
        libssh2_sftp_seek64(h, size);
        rc = write_all(s, h, b);
        if (rc) {
            code = sftp_fail(s, rc, "write", path, e);
            a = (LIBSSH2_SFTP_ATTRIBUTES){.flags = LIBSSH2_SFTP_ATTR_SIZE, .filesize = size};
            SFTP_AWAIT(s, rc, libssh2_sftp_fstat_ex(h, &a, 1));
        }
    }
    rc = close_handle(s, h);
    if (rc && code == 0)
        code = sftp_fail(s, rc, "write", path, e);
    return code;
}

int sftp_enrol_key(struct store *st, const char *line, struct err *e)
{
    struct sftp *s = sftp_of(st);
    OWN_BUF struct buf before = BUF_INIT;
    OWN_BUF struct buf added = BUF_INIT;
    char path[SFTP_ROOT_SIZE + 32];
    size_t key_len = 0;
    const char *key = key_in_line(line, &key_len);
    if (!key || strpbrk(line, "\r\n"))
        return err_set(e, ERR_INTERNAL, s->store.name, "\"%s\" is no line of authorized_keys",
                       line);
    int rc = sftp_begin(s, e);
    if (rc)
        return rc;
    snprintf(path, sizeof path, "%s/.ssh", s->home);
    rc = make_one(s, path, e);
    if (rc)
        return rc;
    snprintf(path, sizeof path, "%s/.ssh/authorized_keys", s->home);
    rc = read_path(s, path, &before, e);
    if (rc || has_key(&before, key, key_len))
        return rc;
    if (before.len && before.data[before.len - 1] != '\n')
        buf_put_u8(&added, '\n');
    buf_put_str(&added, line);
    buf_put_u8(&added, '\n');
    return added.bad ? err_nomem(e) : append(s, path, before.len, &added, e);
}
