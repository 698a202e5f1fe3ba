#include "syncd/unit_owner.h"

#include <errno.h>
#include <ftw.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/conf.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/child.h"
#include "syncd/identity.h"
#include "syncd/report.h"
#include "transport/url.h"

#define DEFAULT_CONFIG "/etc/syncd/syncd.conf"
#define DEFAULT_UNITS "/etc/systemd/system"
#define DEFAULT_STATE_DIR "/var/lib/syncd" /* the unit names it */
#define PACKAGE_USER "syncd"
#define DROP_IN_MAX 65536u
#define RELOAD_MS 20000

struct owner {
    uid_t uid;
    gid_t gid;
};

/* 0 with *ret_known false: nothing is to be done. */
static int find_owner(const struct conf *c, struct owner *ret, bool *ret_known, struct err *e)
{
    *ret_known = false;
    if (!identity_is_root() || c->source_count == 0)
        return 0;
    int rc = identity_sources_owner(c, &ret->uid, &ret->gid, e);
    if (rc == ERR_NOT_FOUND) {
        *e = ERR_INIT;
        return 0;
    }
    const struct passwd *user = rc ? NULL : getpwuid(ret->uid);
    if (user)
        ret->gid = user->pw_gid;
    *ret_known = rc == 0;
    return rc;
}

/* ---- what lies on the disk ---- */

static bool is_ours_to_give(uid_t uid)
{
    const struct passwd *package = getpwnam(PACKAGE_USER);
    return uid == 0 || (package && uid == package->pw_uid);
}

static struct owner receiver; /* nftw has no argument */

static int give_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)kind, (void)at;
    return is_ours_to_give(st->st_uid) ? lchown(path, receiver.uid, receiver.gid) : 0;
}

static int give_state_dir(const struct conf *c, const struct owner *o, struct report *report,
                          struct err *e)
{
    struct stat st;
    char name[IDENTITY_NAME_SIZE], other[IDENTITY_NAME_SIZE];
    if (lstat(c->state_dir, &st) < 0 || st.st_uid == o->uid)
        return 0; /* it is made later, for the owner */
    if (!is_ours_to_give(st.st_uid)) {
        err_set(e, ERR_REFUSED, c->state_dir, "state_dir %s belongs to %s, but the databases to %s",
                c->state_dir, identity_name(st.st_uid, other), identity_name(o->uid, name));
        return err_hint(e,
                        "One syncd backs up the databases of one user: give this one a state_dir "
                        "of its own.");
    }
    receiver = *o;
    if (nftw(c->state_dir, give_one, 16, FTW_PHYS | FTW_MOUNT))
        return err_sys(e, errno, c->state_dir, "cannot give state_dir %s to %s", c->state_dir,
                       identity_name(o->uid, name));
    report_say(report, "%s: now belongs to %s, the owner of the databases\n", c->state_dir,
               identity_name(o->uid, name));
    return 0;
}

static bool is_beside(const char *path, const char *file)
{
    const char *slash = strrchr(file, '/');
    size_t n = slash ? (size_t)(slash - file) + 1 : 0;
    return n > 1 && strncmp(path, file, n) == 0 && !strchr(path + n, '/');
}

/* Only what is syncd's by its place; another's key is not taken from him. */
static int give_file(const struct conf *c, const struct owner *o, const char *path, struct err *e)
{
    struct stat st;
    if (!path || !is_beside(path, c->file) || lstat(path, &st) < 0 || !S_ISREG(st.st_mode) ||
        st.st_uid == o->uid || !is_ours_to_give(st.st_uid) || (st.st_mode & S_IROTH))
        return 0;
    return lchown(path, o->uid, o->gid) < 0
               ? err_sys(e, errno, path, "cannot give %s to the owner of the databases", path)
               : 0;
}

int unit_owner_give(const struct conf *c, struct report *report, struct err *e)
{
    struct owner o;
    bool known;
    int rc = find_owner(c, &o, &known, e);
    if (rc || !known)
        return rc;
    rc = give_state_dir(c, &o, report, e);
    for (size_t i = 0; rc == 0 && i < c->worker_count; i++) {
        rc = give_file(c, &o, c->workers[i].identity_file, e);
        if (rc == 0)
            rc = give_file(c, &o, c->workers[i].password_file, e);
    }
    if (rc == 0)
        rc = give_file(c, &o, c->mqtt.password_file, e);
    return rc ? rc : give_file(c, &o, c->mqtt.key_file, e);
}

/* ---- the drop-in ---- */

/* As one word of a unit: in quotes, without specifiers. */
static void put_path(struct buf *b, const char *path)
{
    buf_put_str(b, "ReadWritePaths=\"-");
    for (const char *p = path; *p; p++) {
        if (*p == '%')
            buf_put_u8(b, '%');
        if (*p == '"' || *p == '\\')
            buf_put_u8(b, '\\');
        buf_put_u8(b, (uint8_t)*p);
    }
    buf_put_str(b, "\"\n");
}

/* The folder itself, or the one that the file lies in. */
static void put_folder_of(struct buf *b, const char *path)
{
    struct stat st;
    OWN_MEM char *folder = strdup(path);
    char *slash = folder ? strrchr(folder, '/') : NULL;
    if (!slash || slash == folder)
        return;
    if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
        *slash = '\0';
    put_path(b, folder);
}

static void put_paths(const struct conf *c, struct buf *b)
{
    for (size_t i = 0; i < c->source_count; i++)
        for (conf_list path = c->sources[i].path; path && *path; path++)
            put_folder_of(b, *path);
    for (size_t i = 0; i < c->worker_count; i++) {
        struct url url;
        if (url_parse(c->workers[i].url, &url, NULL) == 0 && url.scheme == URL_FILE)
            put_path(b, url.path);
    }
    if (strcmp(c->state_dir, DEFAULT_STATE_DIR) != 0)
        put_path(b, c->state_dir);
    if (c->scratch_dir)
        put_path(b, c->scratch_dir);
    if (c->prometheus_file)
        put_folder_of(b, c->prometheus_file);
}

static void put_drop_in(const struct conf *c, const struct owner *o, struct buf *b)
{
    const struct passwd *user = getpwuid(o->uid);
    const struct group *group = getgrgid(o->gid);
    buf_put_str(b,
                "# Written by `syncd setup`: jobs run as the owner of the databases.\n[Service]\n");
    if (user)
        buf_printf(b, "User=%s\n", user->pw_name);
    else
        buf_printf(b, "User=%u\n", (unsigned)o->uid);
    if (group)
        buf_printf(b, "Group=%s\n", group->gr_name);
    else
        buf_printf(b, "Group=%u\n", (unsigned)o->gid);
    put_paths(c, b);
}

static int reload(struct err *e)
{
    static const char *const argv[] = {"systemctl", "daemon-reload", NULL};
    OWN_BUF struct buf output = BUF_INIT;
    if (access("/run/systemd/system", F_OK) < 0)
        return 0;
    return child_run(argv, RELOAD_MS, &output, e);
}

static int write_drop_in(const char *units, const struct buf *text, bool *ret_changed,
                         struct err *e)
{
    OWN_BUF struct buf before = BUF_INIT;
    OWN_MEM char *folder = io_path(units, "syncd.service.d");
    OWN_MEM char *path = folder ? io_path(folder, "owner.conf") : NULL;
    if (!path || text->bad)
        return err_nomem(e);
    *ret_changed = io_read_file(path, DROP_IN_MAX, &before, NULL) != 0 || before.len != text->len ||
                   memcmp(before.data, text->data, text->len) != 0;
    if (!*ret_changed)
        return 0;
    int rc = io_make_dirs(folder, 0755, e);
    return rc ? rc : io_replace_file(path, text->data, text->len, 0644, e);
}

int unit_owner_write(const struct conf *c, struct report *report, struct err *e)
{
    const char *given = getenv("SYNCD_UNIT_DIR"), *units = given ? given : DEFAULT_UNITS;
    OWN_BUF struct buf text = BUF_INIT;
    char name[IDENTITY_NAME_SIZE];
    struct owner o;
    bool known, changed = false;
    if (access(units, F_OK) < 0 || (!given && strcmp(c->file, DEFAULT_CONFIG) != 0))
        return 0;
    int rc = find_owner(c, &o, &known, e);
    if (rc || !known)
        return rc;
    put_drop_in(c, &o, &text);
    rc = write_drop_in(units, &text, &changed, e);
    if (rc == 0 && changed && !given)
        rc = reload(e);
    if (rc == 0 && changed)
        report_say(report, "syncd.service: will run as %s; `systemctl restart syncd` if it runs\n",
                   identity_name(o.uid, name));
    return rc;
}
