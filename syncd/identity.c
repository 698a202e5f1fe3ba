#include "syncd/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/conf.h"
#include "snapshot/attributes.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"

#define PASSWD_ROOM 16384
#define GROUPS_MAX 65536 /* the kernel's limit */

struct owner {
    uid_t uid;
    gid_t gid;
    bool known; /* the system has a name for it */
    char name[IDENTITY_NAME_SIZE];
    char home[512];
};

static void look_up(uid_t uid, gid_t gid, struct owner *ret)
{
    struct passwd entry, *found = NULL;
    char room[PASSWD_ROOM];
    *ret = (struct owner){.uid = uid, .gid = gid};
    if (getpwuid_r(uid, &entry, room, sizeof room, &found) == 0 && found &&
        strlen(found->pw_name) < sizeof ret->name) {
        ret->known = true;
        ret->gid = found->pw_gid;
        snprintf(ret->name, sizeof ret->name, "%s", found->pw_name);
        snprintf(ret->home, sizeof ret->home, "%s", found->pw_dir);
    } else {
        snprintf(ret->name, sizeof ret->name, "user %u", (unsigned)uid);
    }
}

const char *identity_name(uid_t uid, char ret[static IDENTITY_NAME_SIZE])
{
    return attributes_user(uid, ret);
}

/* ---- whose databases ---- */

static int two_owners(const char *first, uid_t first_uid, const char *second, uid_t second_uid,
                      struct err *e)
{
    char one[IDENTITY_NAME_SIZE], other[IDENTITY_NAME_SIZE];
    err_set(e, ERR_CONFIG, second,
            "%s belongs to %s, but %s to %s: one syncd backs up the databases of one user", first,
            identity_name(first_uid, one), second, identity_name(second_uid, other));
    return err_hint(e, "Give each owner a config, a state_dir and a syncd of its own (-c FILE).");
}

int identity_sources_owner(const struct conf *c, uid_t *ret_uid, gid_t *ret_gid, struct err *e)
{
    const char *first = NULL;
    struct stat owner = {0}, st;
    for (size_t i = 0; i < c->source_count; i++) {
        for (conf_list path = c->sources[i].path; path && *path; path++) {
            if (stat(*path, &st) < 0)
                continue;
            if (first && st.st_uid != owner.st_uid)
                return two_owners(first, owner.st_uid, *path, st.st_uid, e);
            if (!first) {
                first = *path;
                owner = st;
            }
        }
    }
    if (!first)
        return err_set(e, ERR_NOT_FOUND, c->file, "%s names no source that can be looked at",
                       c->file);
    *ret_uid = owner.st_uid;
    *ret_gid = owner.st_gid;
    return 0;
}

/* A missing state_dir, made by root for the user who will work in it. */
static int make_state_dir(const struct conf *c, struct err *e)
{
    uid_t uid = 0;
    gid_t gid = 0;
    int rc = identity_sources_owner(c, &uid, &gid, e);
    if (rc && rc != ERR_NOT_FOUND)
        return rc;
    OWN_MEM char *parent = strdup(c->state_dir);
    char *slash = parent ? strrchr(parent, '/') : NULL;
    if (!slash)
        return err_nomem(e);
    *slash = '\0';
    rc = *parent ? io_make_dirs(parent, 0755, e) : 0;
    if (rc)
        return err_prefix(e, "cannot make state_dir");
    if (io_mkdir(c->state_dir, 0700) < 0)
        return err_sys(e, errno, c->state_dir, "cannot make state_dir %s", c->state_dir);
    struct owner o;
    look_up(uid, gid, &o);
    if (lchown(c->state_dir, o.uid, o.gid) < 0)
        return err_sys(e, errno, c->state_dir, "cannot give state_dir %s to %s", c->state_dir,
                       o.name);
    return 0;
}

static int owner_of_state_dir(const struct conf *c, struct owner *ret, struct err *e)
{
    struct stat st;
    if (stat(c->state_dir, &st) < 0 && errno == ENOENT) {
        int rc = make_state_dir(c, e);
        if (rc)
            return rc;
    }
    if (stat(c->state_dir, &st) < 0)
        return err_sys(e, errno, c->state_dir, "cannot look at state_dir %s", c->state_dir);
    look_up(st.st_uid, st.st_gid, ret);
    return 0;
}

/* ---- becoming it ---- */

static int cannot(const struct conf *c, const struct owner *o, int errnum, struct err *e)
{
    err_sys(e, errnum, c->state_dir, "cannot go on as %s, the owner of state_dir %s", o->name,
            c->state_dir);
    e->code = ERR_PERMISSION;
    return o->known
               ? err_hint(e, "Start syncd as that user: sudo -u %s syncd ...", o->name)
               : err_hint(e, "Start syncd as that user: sudo -u '#%u' syncd ...", (unsigned)o->uid);
}

static int set_groups(const struct owner *o)
{
    return o->known ? initgroups(o->name, o->gid) : setgroups(1, &o->gid);
}

/* What root can read, the owner may not. */
static int check_config(const struct conf *c, const struct owner *o, struct err *e)
{
    if (faccessat(AT_FDCWD, c->file, R_OK, AT_EACCESS) == 0)
        return 0;
    err_sys(e, errno, c->file, "%s, the owner of state_dir %s, cannot read %s", o->name,
            c->state_dir, c->file);
    err_hint(e, "It holds no secrets: chmod 644 %s (and 755 its folder)", c->file);
    return e ? e->code : ERR_PERMISSION;
}

static void set_environment(const struct owner *o)
{
    if (o->known) {
        setenv("HOME", o->home, 1);
        setenv("USER", o->name, 1);
        setenv("LOGNAME", o->name, 1);
    }
    /* root's, of no use to the owner */
    unsetenv("SSH_AUTH_SOCK");
    unsetenv("XDG_RUNTIME_DIR");
}

int identity_become_owner(const struct conf *c, struct err *e)
{
    struct owner o;
    if (geteuid() != 0)
        return 0;
    int rc = owner_of_state_dir(c, &o, e);
    if (rc || o.uid == 0)
        return rc;
    if (set_groups(&o) < 0 || setresgid(o.gid, o.gid, o.gid) < 0 ||
        setresuid(o.uid, o.uid, o.uid) < 0)
        return cannot(c, &o, errno, e);
    if (setuid(0) == 0 || geteuid() != o.uid)
        return cannot(c, &o, EPERM, e);
    set_environment(&o);
    log_msg(LOG_LEVEL_INFO, "going on as %s, the owner of %s", o.name, c->state_dir);
    return check_config(c, &o, e);
}

/* root's own groups, while setup acts as somebody else */
static struct {
    bool changed;
    gid_t gid;
    size_t count;
    gid_t *list;
} before;

static int keep_groups(struct err *e)
{
    int count = getgroups(0, NULL);
    if (count < 0 || count > GROUPS_MAX)
        return err_set(e, ERR_INTERNAL, NULL, "cannot ask for this process's groups");
    free(before.list);
    before.list = mem_alloc((size_t)count + 1, sizeof *before.list);
    if (!before.list)
        return err_nomem(e);
    before.count = (size_t)MAX(getgroups(count, before.list), 0);
    before.gid = getegid();
    return 0;
}

int identity_act_as_owner(const struct conf *c, struct err *e)
{
    struct owner o;
    if (geteuid() != 0)
        return 0;
    int rc = owner_of_state_dir(c, &o, e);
    if (rc || o.uid == 0)
        return rc;
    rc = keep_groups(e);
    if (rc)
        return rc;
    before.changed = true;
    if (set_groups(&o) == 0 && setegid(o.gid) == 0 && seteuid(o.uid) == 0)
        return 0;
    rc = cannot(c, &o, errno, e);
    identity_act_as_root(NULL);
    return rc;
}

int identity_act_as_root(struct err *e)
{
    if (!before.changed)
        return 0;
    if (seteuid(0) < 0 || setegid(before.gid) < 0 || setgroups(before.count, before.list) < 0)
        return err_sys(e, errno, NULL, "cannot act as root again");
    before.changed = false;
    free(TAKE_PTR(before.list));
    return 0;
}

bool identity_is_root(void)
{
    return getuid() == 0;
}
