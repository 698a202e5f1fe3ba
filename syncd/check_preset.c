/* syncd check: what a source's preset takes, and what it does not. */
#include "syncd/check.h"

#include <pwd.h>
#include <string.h>
#include <sys/stat.h>

#include "conf/conf.h"
#include "conf/preset.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/identity.h"
#include "syncd/preset_look.h"

static void say_left_out(struct checking *c, const struct conf_source *s, const char *what,
                         const char *why, bool secret)
{
    struct err e = ERR_INIT;
    err_set(&e, 0, what, "source %s: left out: %s (%s%s)", s->name, what, why,
            secret ? "; secrets = true takes it" : "");
    check_add(c, CHECK_OK, &e);
}

static void say_leaves(struct checking *c, const struct conf_source *s)
{
    const struct preset *p = s->known;
    for (const struct preset_leave *l = p->leaves; l->glob; l++)
        if (!l->secret || !s->secrets)
            say_left_out(c, s, l->glob, l->why, l->secret);
    for (const struct preset_place *place = p->places; place->what; place++)
        if (place->secret && !s->secrets)
            say_left_out(c, s, place->path, place->what, true);
    for (const char *const *text = p->outside; *text; text++) {
        struct err e = ERR_INIT;
        err_set(&e, 0, s->name, "source %s: not in it: %s", s->name, *text);
        check_add(c, CHECK_OK, &e);
    }
}

static void check_stores(struct checking *c, const struct conf_source *s)
{
    for (const struct preset_store *store = s->known->stores; store->what; store++) {
        struct err e = ERR_INIT;
        if (preset_store_look(store, s->path) == PRESET_STORE_THERE)
            continue;
        err_set(&e, ERR_NOT_FOUND, s->name, "source %s: %s is not below its paths", s->name,
                store->what);
        err_hint(&e, "%s.", store->else_where);
        check_add(c, CHECK_WARNING, &e);
    }
}

/* Files that a wrong owner keeps from the system's own services. */
static void check_owner(struct checking *c, const struct conf_source *s)
{
    const char *wanted = s->known->owner;
    const struct passwd *user = wanted ? getpwnam(wanted) : NULL;
    char owner[IDENTITY_NAME_SIZE];
    struct stat st;
    if (!user || stat(s->path[0], &st) < 0 || st.st_uid == user->pw_uid)
        return;
    struct err e = ERR_INIT;
    err_set(&e, ERR_PERMISSION, s->path[0], "%s belongs to %s, and %s's services run as %s",
            s->path[0], identity_name(st.st_uid, owner), s->known->system, wanted);
    err_hint(&e, "If that is not on purpose: chown -R %s: %s", wanted, s->path[0]);
    check_add(c, CHECK_WARNING, &e);
}

static void say_services(struct checking *c, const struct conf_source *s)
{
    OWN_BUF struct buf names = BUF_INIT;
    struct err e = ERR_INIT;
    for (const char *const *unit = s->known->services; *unit; unit++)
        buf_printf(&names, "%s%s", unit == s->known->services ? "" : ", ", *unit);
    if (s->before_restore || !buf_cstr(&names))
        return;
    err_set(&e, 0, s->name,
            "source %s: restore --in-place stops these services, and starts them "
            "again: %s",
            s->name, buf_cstr(&names));
    check_add(c, CHECK_OK, &e);
}

void check_preset(struct checking *c, const struct conf_source *s)
{
    if (!s->known || !s->path)
        return;
    say_leaves(c, s);
    check_stores(c, s);
    check_owner(c, s);
    say_services(c, s);
}
