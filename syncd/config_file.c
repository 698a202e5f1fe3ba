#include "syncd/config_file.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/conf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "transport/url.h"

/* ---- text ---- */

static void put_quoted(const char *s, struct buf *to)
{
    buf_put_u8(to, '"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            buf_put_u8(to, '\\');
        buf_put_u8(to, (uint8_t)*s);
    }
    buf_put_u8(to, '"');
}

static void put_key(const char *indent, const char *key, const char *value, struct buf *to)
{
    if (!value)
        return;
    buf_printf(to, "%s%s = ", indent, key);
    put_quoted(value, to);
    buf_put_u8(to, '\n');
}

void config_put_skeleton(const char *name, const char *state_dir, struct buf *to)
{
    buf_put_str(to, "# syncd.conf: what to protect, where to keep it, how often. Every key is "
                    "explained in\n"
                    "# syncd.conf.example; `syncd check` says what is wrong here.\n"
                    "\n"
                    "# This leader's name, in its repositories and MQTT topics.\n");
    put_key("", "name", name, to);
    buf_put_str(to, "\n# syncd's own few records: catalog, locks, key and known hosts.\n");
    put_key("", "state_dir", state_dir, to);
    buf_put_str(to, "\n"
                    "# What to protect: take away the # and put in your path.\n"
                    "#source \"data\" {\n"
                    "#    path = \"/srv/data/application.sqlite\"\n"
                    "#    every = \"15m\"\n"
                    "#}\n");
}

static void begin_block(const char *section, const char *title, struct buf *to)
{
    if (to->len && to->data[to->len - 1] != '\n')
        buf_put_u8(to, '\n');
    if (to->len)
        buf_put_u8(to, '\n');
    buf_printf(to, "%s ", section);
    put_quoted(title, to);
    buf_put_str(to, " {\n");
}

void config_put_source(const struct config_source *s, struct buf *to)
{
    begin_block("source", s->name, to);
    put_key("    ", "preset", s->preset, to);
    buf_put_str(to, "    path = {");
    for (size_t i = 0; s->paths[i]; i++) {
        buf_put_str(to, i ? ", " : "");
        put_quoted(s->paths[i], to);
    }
    buf_put_str(to, "}\n");
    if (s->secrets)
        buf_put_str(to, "    secrets = true\n");
    put_key("    ", "every", s->every, to);
    put_key("    ", "max_age", s->max_age, to);
    buf_put_str(to, "}\n");
}

void config_put_worker(const struct config_worker *w, struct buf *to)
{
    begin_block("worker", w->name, to);
    put_key("    ", "url", w->url, to);
    put_key("    ", "identity_file", w->identity_file, to);
    put_key("    ", "known_hosts", w->known_hosts, to);
    buf_put_str(to, "}\n");
}

/* An address has no first label: its dots and colons are all the same. */
static bool is_address(const char *host)
{
    return strchr(host, ':') || strspn(host, "0123456789.") == strlen(host);
}

void config_worker_title(const struct url *url, config_taken_fn *taken, const void *arg, char *ret,
                         size_t size)
{
    char base[CONF_NAME_MAX - 3]; /* room for a number */
    const char *host = url->scheme == URL_FILE ? "disk" : url->host;
    size_t n = 0, end = is_address(host) ? strlen(host) : strcspn(host, ".");
    for (size_t i = 0; i < end && n < sizeof base - 1; i++) {
        char c = (char)tolower((unsigned char)host[i]);
        bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (plain || n > 0)
            base[n++] = plain || c == '_' ? c : '-';
    }
    base[n] = '\0';
    snprintf(ret, size, "%s", conf_name_is_valid(base) ? base : "worker");
    for (unsigned i = 2; taken(arg, ret) && i < 100; i++)
        snprintf(ret, size, "%s%s%u", conf_name_is_valid(base) ? base : "worker",
                 n && isdigit((unsigned char)base[n - 1]) ? "-" : "", i);
}

/* ---- the file ---- */

static char *default_state_dir(void)
{
    char *path = NULL;
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (geteuid() != 0 && state && *state == '/')
        return io_path(state, "syncd");
    if (geteuid() != 0 && home && *home == '/')
        return asprintf(&path, "%s/.local/state/syncd", home) < 0 ? NULL : path;
    return strdup("/var/lib/syncd");
}

/* The name that conf would choose is written down: a machine may be renamed, its repository not. */
static int begin_new(struct config_file *f, struct err *e)
{
    struct conf *c = NULL;
    OWN_MEM char *state_dir = default_state_dir();
    if (!state_dir)
        return err_nomem(e);
    int rc = conf_parse(f->path, "", 0, &c, NULL, e);
    if (rc)
        return rc;
    config_put_skeleton(c->name, state_dir, &f->text);
    conf_free(c);
    f->st = (struct stat){.st_mode = 0644, .st_uid = (uid_t)-1, .st_gid = (gid_t)-1};
    return f->text.bad ? err_nomem(e) : 0;
}

int config_file_load(const char *path, struct config_file *ret, struct err *e)
{
    struct config_file f = {0};
    struct err why = ERR_INIT;
    f.path = realpath(path, NULL);
    f.exists = f.path != NULL;
    if (!f.exists)
        f.path = strdup(path);
    int rc = f.path ? 0 : err_nomem(&why);
    if (rc == 0 && f.exists)
        rc = io_read_file(f.path, CONF_FILE_LIMIT, &f.text, &why);
    else if (rc == 0)
        rc = begin_new(&f, &why);
    if (rc == 0 && f.exists && stat(f.path, &f.st) < 0)
        rc = err_sys(&why, errno, f.path, "cannot look at %s", f.path);
    if (rc) {
        config_file_free(&f);
        if (e)
            *e = why;
        return rc;
    }
    *ret = f;
    return 0;
}

void config_file_free(struct config_file *f)
{
    free(f->path);
    buf_free(&f->text);
    *f = (struct config_file){0};
}

/* The folder of the path; the nearest that exists when `existing`. */
static char *folder_of(const char *path, bool existing)
{
    char *folder = strdup(path), *slash = NULL;
    while (folder) {
        slash = strrchr(folder, '/');
        if (!slash) {
            free(folder);
            return strdup(".");
        }
        slash[slash == folder] = '\0';
        if (!existing || slash == folder || access(folder, F_OK) == 0)
            break;
    }
    return folder;
}

int config_file_check_writable(const struct config_file *f, struct err *e)
{
    OWN_MEM char *folder = folder_of(f->path, true);
    if (!folder)
        return err_nomem(e);
    bool ours = geteuid() == 0 || !f->exists || f->st.st_uid == geteuid();
    if (ours && access(folder, W_OK | X_OK) == 0)
        return 0;
    err_set(e, ERR_PERMISSION, f->path, "nothing could be written into %s: %s", f->path,
            ours ? strerror(errno) : "it belongs to another user");
    return err_hint(e, "Run setup with sudo, or name a config of your own with -c FILE.");
}

static int check_unchanged(const struct config_file *f, struct err *e)
{
    OWN_BUF struct buf now = BUF_INIT;
    int rc = io_read_file(f->path, CONF_FILE_LIMIT, &now, e);
    if (rc == ERR_NOT_FOUND && !f->exists)
        return 0;
    if (rc == 0 && f->exists && now.len == f->text.len &&
        (now.len == 0 || memcmp(now.data, f->text.data, now.len) == 0))
        return 0;
    if (rc && rc != ERR_NOT_FOUND && rc != ERR_LIMIT)
        return rc;
    err_set(e, ERR_CHANGED, f->path, "%s was changed by somebody else meanwhile; it is left alone",
            f->path);
    return err_hint(e, "Run this setup again: what is done on the worker stays done.");
}

int config_file_save(const struct config_file *f, const struct buf *text, struct err *e)
{
    OWN_MEM char *folder = folder_of(f->path, false);
    if (!folder || text->bad)
        return err_nomem(e);
    int rc = check_unchanged(f, e);
    if (rc == 0 && !f->exists)
        rc = io_make_dirs(folder, 0755, e);
    return rc ? rc : io_replace_file_like(f->path, text->data, text->len, &f->st, e);
}
