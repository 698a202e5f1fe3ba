#include "syncd/preset_look.h"

#include <errno.h>
#include <glob.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/conf.h"
#include "conf/ini.h"
#include "conf/preset.h"
#include "conf/text.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define PASSWD_ROOM 16384

/* ---- places ---- */

/* The home of the person: with sudo, of the one who called it. The caller's; NULL: unknown. */
static char *home(void)
{
    const char *user = geteuid() == 0 ? getenv("SUDO_USER") : NULL, *dir = getenv("HOME");
    struct passwd entry, *found = NULL;
    char room[PASSWD_ROOM];
    if (user && getpwnam_r(user, &entry, room, sizeof room, &found) == 0 && found)
        dir = found->pw_dir;
    return dir && *dir == '/' ? strdup(dir) : NULL;
}

/* The value in the system's own config; *ret stays NULL when nothing is named there. */
static int ask_file(const struct preset_place *p, char **ret, struct err *e)
{
    OWN_BUF struct buf text = BUF_INIT;
    if (!p->file || io_read_file(p->file, CONF_FILE_LIMIT, &text, NULL))
        return 0;
    return buf_cstr(&text) ? ini_get(buf_cstr(&text), p->section, p->key, ret, e) : err_nomem(e);
}

/* What names the place, and what it says; both NULL when it has no place here. */
static int resolve(const struct preset_place *p, char **ret_path, char **ret_from, struct err *e)
{
    const char *value = p->env ? getenv(p->env) : NULL;
    int rc = 0;
    if (value) {
        *ret_path = strdup(value);
        *ret_from = strdup(p->env);
    } else if ((rc = ask_file(p, ret_path, e)) == 0 && *ret_path) {
        if (asprintf(ret_from, "%s in %s", p->key, p->file) < 0)
            *ret_from = NULL;
    } else if (rc == 0 && p->path && *p->path == '~') {
        OWN_MEM char *dir = home();
        *ret_path = dir ? io_path(dir, p->path + 2) : NULL;
        return 0;
    } else if (rc == 0 && p->path) {
        *ret_path = strdup(p->path);
        return *ret_path ? 0 : err_nomem(e);
    } else {
        return rc;
    }
    return *ret_path && *ret_from ? 0 : err_nomem(e);
}

static int check_place(const struct preset *preset, const struct preset_place *p, const char *path,
                       const char *from, struct err *e)
{
    struct stat st;
    const char *by = from ? " (named by " : "", *end = from ? ")" : "";
    from = from ? from : "";
    if (!*path && p->empty_is_memory) {
        err_set(e, ERR_UNSUPPORTED, from,
                "%s is empty: %s keeps its state in memory, and there is nothing to back up", from,
                preset->system);
        return err_hint(e, "Give %s a folder first.", preset->system);
    }
    if (*path != '/' || text_check_path(path, NULL))
        return err_set(e, ERR_CONFIG, path, "%s%s%s%s is no plain absolute path", path, by, from,
                       end);
    if (stat(path, &st) == 0)
        return 0;
    err_sys(e, errno, path, "%s, %s%s%s%s, cannot be looked at", path, p->what, by, from, end);
    if (p->env)
        err_hint(e,
                 "Is %s on this machine? If it is elsewhere: %s=/its/folder syncd setup "
                 "--preset %s.",
                 preset->system, p->env, preset->name);
    return e->code;
}

static bool is_covered(const struct preset_found *f, const char *path)
{
    for (size_t i = 0; i < f->count; i++) {
        size_t n = strlen(f->places[i].path);
        if (strncmp(path, f->places[i].path, n) == 0 && (path[n] == '/' || path[n] == '\0'))
            return true;
    }
    return false;
}

static int look_at(const struct preset *preset, const struct preset_place *p,
                   struct preset_found *f, struct err *e)
{
    OWN_MEM char *path = NULL, *from = NULL;
    int rc = resolve(p, &path, &from, e);
    if (rc || (!path && !p->path)) /* a variable that is not set */
        return rc;
    if (!path)
        return err_set(e, ERR_NOT_FOUND, preset->name, "no home to look for %s in", p->path);
    rc = check_place(preset, p, path, from, e);
    if (rc || is_covered(f, path) || f->count == PRESET_PLACES_MAX)
        return rc;
    text_tidy_path(path);
    f->places[f->count].what = p->what;
    f->places[f->count].from = TAKE_PTR(from);
    f->places[f->count++].path = TAKE_PTR(path);
    return 0;
}

int preset_look(const struct preset *p, bool secrets, struct preset_found *ret, struct err *e)
{
    int rc = 0;
    *ret = (struct preset_found){0};
    for (const struct preset_place *place = p->places; rc == 0 && place->what; place++)
        if (secrets || !place->secret)
            rc = look_at(p, place, ret, e);
    if (rc)
        preset_found_free(ret);
    return rc;
}

void preset_found_free(struct preset_found *f)
{
    for (size_t i = 0; i < f->count; i++) {
        free(f->places[i].path);
        free(f->places[i].from);
    }
    *f = (struct preset_found){0};
}

/* ---- databases ---- */

static bool is_there(const char *folder, const char *pattern)
{
    OWN_BUF struct buf b = BUF_INIT;
    glob_t found = {0};
    for (const char *p = folder; *p; p++) {
        if (strchr("*?[]\\", *p))
            buf_put_u8(&b, '\\');
        buf_put_u8(&b, (uint8_t)*p);
    }
    buf_printf(&b, "/%s", pattern);
    bool there = buf_cstr(&b) && glob(buf_cstr(&b), GLOB_NOSORT, NULL, &found) == 0;
    globfree(&found);
    return there;
}

enum preset_store_state preset_store_look(const struct preset_store *s, char *const *paths)
{
    const char *type = s->type_env ? getenv(s->type_env) : NULL;
    const char *named = s->env ? getenv(s->env) : NULL;
    if (type && strcasecmp(type, "inmemory") == 0)
        return PRESET_STORE_MEMORY;
    if (named && access(named, F_OK) == 0)
        return PRESET_STORE_THERE;
    for (; paths && *paths; paths++)
        for (size_t i = 0; s->globs[i]; i++)
            if (is_there(*paths, s->globs[i]))
                return PRESET_STORE_THERE;
    return PRESET_STORE_MISSING;
}

/* ---- the system's own machines ---- */

struct gathering {
    struct preset_worker *list;
    size_t count, cap;
    char host[256];      /* this machine's name */
    char *leader, *self; /* the leader's name and address, by the list's own file */
};

static bool is_this_machine(const struct gathering *g, const char *name, const char *address)
{
    return strcasecmp(name, g->host) == 0 || (g->leader && strcasecmp(name, g->leader) == 0) ||
           (g->self && *g->self && strcasecmp(address, g->self) == 0) ||
           strncmp(address, "127.", 4) == 0 || strcmp(address, "localhost") == 0;
}

static int take_worker(void *arg, const char *name, const char *address, struct err *e)
{
    struct gathering *g = arg;
    if (!*name || !*address || strlen(address) > 253 ||
        strspn(address, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:") !=
            strlen(address) ||
        is_this_machine(g, name, address))
        return 0;
    if (mem_grow(&g->list, &g->cap, g->count + 1, sizeof *g->list))
        return err_nomem(e);
    struct preset_worker w = {.name = strdup(name), .address = strdup(address)};
    g->list[g->count++] = w;
    return w.name && w.address ? 0 : err_nomem(e);
}

static int compare_workers(const void *a, const void *b)
{
    return strcmp(((const struct preset_worker *)a)->name, ((const struct preset_worker *)b)->name);
}

static int gather(const struct preset *p, const char *text, struct gathering *g, struct err *e)
{
    if (gethostname(g->host, sizeof g->host - 1) < 0)
        g->host[0] = '\0';
    g->host[strcspn(g->host, ".")] = '\0';
    int rc = ini_get(text, "cluster.topology", "leader_hostname", &g->leader, e);
    if (rc == 0)
        rc = ini_get(text, "cluster.topology", "leader_address", &g->self, e);
    if (rc == 0)
        rc = ini_each(text, p->workers_section, take_worker, g, e);
    if (rc == 0 && g->count)
        qsort(g->list, g->count, sizeof *g->list, compare_workers);
    free(g->leader);
    free(g->self);
    return rc;
}

int preset_workers(const struct preset *p, const char *place, size_t max,
                   struct preset_worker **ret, size_t *ret_count, size_t *ret_all, struct err *e)
{
    OWN_BUF struct buf text = BUF_INIT;
    struct gathering g = {0};
    if (!p->workers_file)
        return err_set(e, ERR_NOT_FOUND, p->name, "%s has no list of machines", p->system);
    OWN_MEM char *file = io_path(place, p->workers_file);
    if (!file)
        return err_nomem(e);
    int rc = io_read_file(file, CONF_FILE_LIMIT, &text, e);
    if (rc == 0)
        rc = buf_cstr(&text) ? gather(p, buf_cstr(&text), &g, e) : err_nomem(e);
    if (rc == 0 && g.count == 0) {
        rc = err_set(e, ERR_NOT_FOUND, file, "[%s] in %s names no machine but this one",
                     p->workers_section, file);
        err_hint(e, "Enrol a worker by its address: syncd setup sftp://USER@HOST/~/syncd/NAME.");
    }
    if (rc) {
        preset_workers_free(g.list, g.count);
        return rc;
    }
    *ret_all = g.count;
    for (; g.count > max; g.count--) {
        free(g.list[g.count - 1].name);
        free(g.list[g.count - 1].address);
    }
    *ret = g.list;
    *ret_count = g.count;
    return 0;
}

void preset_workers_free(struct preset_worker *w, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(w[i].name);
        free(w[i].address);
    }
    free(w);
}
