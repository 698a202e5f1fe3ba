#include "snapshot/attributes.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define SETTLED_NS (INT64_C(2) * 1000000000)
#define SIGNATURE_TREE 2 /* the first byte: this, and what follows */
#define SIGNATURE_LOOSE 1
#define SIGNATURE_LINKED 4
#define SIGNATURE_MISSING 0x80 /* first byte: eight bytes of time, then the signature before */
#define MISSING_BYTES 9
#define SIGNATURE_BYTES 33

int64_t attributes_ns(const struct timespec *t)
{
    return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

bool attributes_settled(const struct stat *st)
{
    int64_t now_ns = clock_now_us() * 1000;
    int64_t changed_ns = MAX(attributes_ns(&st->st_mtim), attributes_ns(&st->st_ctim));
    return changed_ns < now_ns - SETTLED_NS;
}

/* ---- owners ---- */

/* The names that were asked for last; a lookup reads /etc/passwd or asks a directory service. */
struct name_memory {
    bool valid;
    uint32_t id;
    char name[256]; /* "": it has none */
};

static void look_up_user(uint32_t uid, struct name_memory *m)
{
    struct passwd entry, *found = NULL;
    char text[16384];
    m->name[0] = '\0';
    if (getpwuid_r(uid, &entry, text, sizeof text, &found) == 0 && found &&
        strlen(found->pw_name) < sizeof m->name)
        snprintf(m->name, sizeof m->name, "%s", found->pw_name);
    m->id = uid;
    m->valid = true;
}

static void look_up_group(uint32_t gid, struct name_memory *m)
{
    struct group entry, *found = NULL;
    char text[65536];
    m->name[0] = '\0';
    if (getgrgid_r(gid, &entry, text, sizeof text, &found) == 0 && found &&
        strlen(found->gr_name) < sizeof m->name)
        snprintf(m->name, sizeof m->name, "%s", found->gr_name);
    m->id = gid;
    m->valid = true;
}

static int copy_name(const struct name_memory *m, char **ret, struct err *e)
{
    if (!m->name[0])
        return 0;
    *ret = strdup(m->name);
    return *ret ? 0 : err_nomem(e);
}

int attributes_fill(const struct stat *st, struct entry *ret, struct err *e)
{
    static struct name_memory user, group;
    if (!user.valid || user.id != st->st_uid)
        look_up_user(st->st_uid, &user);
    if (!group.valid || group.id != st->st_gid)
        look_up_group(st->st_gid, &group);
    ret->has_owner = true;
    ret->mode = st->st_mode & 07777;
    ret->uid = st->st_uid;
    ret->gid = st->st_gid;
    ret->mtime_ns = attributes_ns(&st->st_mtim);
    int rc = copy_name(&user, &ret->owner, e);
    return rc ? rc : copy_name(&group, &ret->group, e);
}

const char *attributes_user(uid_t uid, char ret[static ATTRIBUTES_USER_SIZE])
{
    struct name_memory m;
    look_up_user(uid, &m);
    if (m.name[0])
        snprintf(ret, ATTRIBUTES_USER_SIZE, "%.60s", m.name);
    else
        snprintf(ret, ATTRIBUTES_USER_SIZE, "user %u", (unsigned)uid);
    return ret;
}

/* ---- extended attributes ---- */

static ssize_t list_names(int fd, const char *link, char *to, size_t n)
{
    return fd >= 0 ? flistxattr(fd, to, n) : llistxattr(link, to, n);
}

static ssize_t get_value(int fd, const char *link, const char *name, void *to, size_t n)
{
    return fd >= 0 ? fgetxattr(fd, name, to, n) : lgetxattr(link, name, to, n);
}

/* Names or one value into *to; it may grow between the question and the answer. -1 and errno. */
static ssize_t read_into(int fd, const char *link, const char *name, struct buf *to)
{
    for (int tries = 0; tries < 5; tries++) {
        buf_reset(to);
        ssize_t n = name ? get_value(fd, link, name, NULL, 0) : list_names(fd, link, NULL, 0);
        if (n <= 0)
            return n;
        char *at = (char *)buf_extend(to, (size_t)n);
        if (!at) {
            errno = ENOMEM;
            return -1;
        }
        n = name ? get_value(fd, link, name, at, to->len) : list_names(fd, link, at, to->len);
        if (n >= 0) {
            to->len = (size_t)n;
            return n;
        }
        if (errno != ERANGE)
            return -1;
    }
    return -1;
}

static bool means_none(int errnum)
{
    return errnum == ENOTSUP || errnum == ENODATA || errnum == ENOENT || errnum == ENOSYS;
}

static int collect(int fd, const char *link, const char *path, struct buf *all, struct err *e)
{
    OWN_BUF struct buf names = BUF_INIT, value = BUF_INIT;
    ssize_t n = read_into(fd, link, NULL, &names);
    if (n < 0 && !means_none(errno))
        return err_sys(e, errno, path, "cannot read the extended attributes of %s", path);
    for (size_t at = 0; n > 0 && at < names.len;) {
        const char *name = (const char *)names.data + at;
        size_t len = strnlen(name, names.len - at);
        at += len + 1;
        ssize_t got = read_into(fd, link, name, &value);
        if (got < 0 && means_none(errno))
            continue;
        if (got < 0)
            return err_sys(e, errno, path, "cannot read the attribute %s of %s", name, path);
        buf_put_varint(all, len);
        buf_put(all, name, len);
        buf_put_varint(all, (uint64_t)got);
        buf_put(all, value.data, (size_t)got);
        if (all->len > ATTRIBUTES_MAX)
            return err_set(e, ERR_LIMIT, path, "%s has more than %u bytes of extended attributes",
                           path, ATTRIBUTES_MAX);
    }
    return all->bad ? err_nomem(e) : 0;
}

int attributes_read_extended(int fd, int dir_fd, const char *name, const char *path,
                             struct entry_bytes *ret, struct err *e)
{
    OWN_BUF struct buf all = BUF_INIT;
    OWN_MEM char *link = NULL;
    if (fd < 0 && asprintf(&link, "/proc/self/fd/%d/%s", dir_fd, name) < 0)
        return err_nomem(e);
    /* Without a folder's descriptor the name is a whole path. */
    int rc = collect(fd, fd < 0 && dir_fd < 0 ? name : link, path, &all, e);
    if (rc || all.len == 0)
        return rc;
    *ret = (struct entry_bytes){.data = all.data, .len = all.len};
    all = BUF_INIT;
    return 0;
}

/* ---- signatures ---- */

static void signature_encode(const struct stat *st, bool settled, uint8_t *ret)
{
    bool linked = S_ISREG(st->st_mode) && st->st_nlink > 1;
    ret[0] = SIGNATURE_TREE | (settled ? 0 : SIGNATURE_LOOSE) | (linked ? SIGNATURE_LINKED : 0);
    le64_put(ret + 1, (uint64_t)st->st_ino);
    le64_put(ret + 9, (uint64_t)(S_ISDIR(st->st_mode) ? 0 : st->st_size));
    le64_put(ret + 17, (uint64_t)attributes_ns(&st->st_mtim));
    le64_put(ret + 25, (uint64_t)attributes_ns(&st->st_ctim));
}

int signature_make(const struct stat *st, struct entry_bytes *ret, struct err *e)
{
    uint8_t *data = malloc(SIGNATURE_BYTES);
    if (!data)
        return err_nomem(e);
    signature_encode(st, attributes_settled(st), data);
    *ret = (struct entry_bytes){.data = data, .len = SIGNATURE_BYTES};
    return 0;
}

struct entry_bytes signature_body(const struct entry_bytes *signature)
{
    size_t skip = signature_missing_since(signature) ? MISSING_BYTES : 0;
    return (struct entry_bytes){.data = skip ? signature->data + skip : signature->data,
                                .len = signature->len - skip};
}

bool signature_holds(const struct entry_bytes *signature, const struct stat *now)
{
    uint8_t want[SIGNATURE_BYTES];
    struct entry_bytes body = signature_body(signature);
    signature_encode(now, true, want);
    return body.len == sizeof want && memcmp(body.data, want, sizeof want) == 0;
}

static bool is_loose(const struct entry_bytes *body)
{
    return body->len == SIGNATURE_BYTES && (body->data[0] & SIGNATURE_TREE) &&
           (body->data[0] & SIGNATURE_LOOSE);
}

bool signature_same(const struct entry_bytes *a, const struct entry_bytes *b)
{
    struct entry_bytes x = signature_body(a), y = signature_body(b);
    return x.len && x.len == y.len && !is_loose(&x) && memcmp(x.data, y.data, x.len) == 0;
}

bool signature_linked(const struct entry_bytes *signature)
{
    struct entry_bytes body = signature_body(signature);
    return body.len == SIGNATURE_BYTES && (body.data[0] & SIGNATURE_LINKED);
}

int signature_set_missing(struct entry_bytes *signature, int64_t since_us, struct err *e)
{
    struct entry_bytes body = signature_body(signature);
    uint8_t *data = malloc(MISSING_BYTES + body.len);
    if (!data)
        return err_nomem(e);
    data[0] = SIGNATURE_MISSING;
    le64_put(data + 1, (uint64_t)since_us);
    if (body.len)
        memcpy(data + MISSING_BYTES, body.data, body.len);
    size_t len = MISSING_BYTES + body.len;
    free(signature->data);
    *signature = (struct entry_bytes){.data = data, .len = len};
    return 0;
}

void signature_clear_missing(struct entry_bytes *signature)
{
    struct entry_bytes body = signature_body(signature);
    if (body.len == signature->len)
        return;
    memmove(signature->data, body.data, body.len);
    signature->len = body.len;
}

int64_t signature_missing_since(const struct entry_bytes *signature)
{
    if (signature->len < MISSING_BYTES || signature->data[0] != SIGNATURE_MISSING)
        return 0;
    return (int64_t)le64_get(signature->data + 1);
}
