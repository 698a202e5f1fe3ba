/* `setup URL`: one worker, from its URL to its block in the config. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "syncd/ask.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/command.h"
#include "syncd/config_file.h"
#include "syncd/enrol.h"
#include "syncd/enrol_login.h"
#include "syncd/host_pin.h"
#include "syncd/identity.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "transport/store.h"
#include "transport/url.h"

struct enrolling {
    const struct command_args *args;
    struct report *report;
    const char *url_text, *title; /* title NULL: chosen by the URL */
    struct url url;
    struct config_file file;
    struct buf text; /* the config with the new worker; empty: it is there already */
    struct session *s;
    struct session_worker *w;
    char *identity_file, *known_hosts;
    struct enrol_login login;
};

/* ---- what is wanted ---- */

static int read_url(struct enrolling *n, struct err *e)
{
    static const char *const for_ssh[] = {"host-key", "password-file", "identity"};
    int rc = url_parse(n->url_text, &n->url, e);
    if (rc) {
        e->code = ERR_USAGE;
        return ERR_USAGE;
    }
    if (n->url.path[0] == '\0') {
        err_set(e, ERR_USAGE, n->url_text, "the URL \"%s\" names no folder for the repository",
                n->url_text);
        return err_hint(e, "Add one, for example /~/syncd/NAME: NAME is this leader's.");
    }
    for (size_t i = 0; i < ARRAY_LEN(for_ssh) && n->url.scheme == URL_FILE; i++)
        if (args_count(n->args, for_ssh[i]))
            return err_set(e, ERR_USAGE, for_ssh[i], "--%s is for a worker over SSH, not a folder",
                           for_ssh[i]);
    return host_pin_given(n->args, &n->url, &n->login.host_key, e);
}

static bool is_same_place(const struct url *a, const struct url *b)
{
    return a->scheme == b->scheme && strcmp(a->user, b->user) == 0 &&
           strcmp(a->host, b->host) == 0 && a->port == b->port && a->under_home == b->under_home &&
           strcmp(a->path, b->path) == 0;
}

static const struct conf_worker *find_by_url(const struct conf *c, const struct url *url)
{
    for (size_t i = 0; i < c->worker_count; i++) {
        struct url other;
        if (url_parse(c->workers[i].url, &other, NULL) == 0 && is_same_place(&other, url))
            return &c->workers[i];
    }
    return NULL;
}

/* ---- the config ---- */

static int parse(const struct enrolling *n, struct buf *text, struct conf **ret, struct err *e)
{
    struct conf_errors more = {0};
    if (!buf_cstr(text))
        return err_nomem(e);
    int rc = conf_parse(n->file.path, (const char *)text->data, text->len, ret, &more, e);
    if (rc == ERR_CONFIG)
        session_config_errors(n->report, &more, e);
    return rc;
}

/* The options must not say otherwise than the worker's block does: that is the user's to change. */
static int check_block(const struct enrolling *n, const struct conf_worker *w, struct err *e)
{
    if (n->title && strcmp(n->title, w->name) != 0)
        return err_set(e, ERR_USAGE, n->title,
                       "%s has a worker with this URL already, called \"%s\"", n->file.path,
                       w->name);
    if (n->identity_file && w->identity_file && strcmp(n->identity_file, w->identity_file) != 0) {
        err_set(e, ERR_USAGE, n->identity_file, "worker \"%s\" has identity_file = \"%s\" in %s",
                w->name, w->identity_file, n->file.path);
        return err_hint(e, "Leave --identity out, or change the worker's block.");
    }
    return 0;
}

static bool is_taken(const void *conf, const char *title)
{
    return conf_find_worker(conf, title) != NULL;
}

static int choose_title(const struct enrolling *n, const struct conf *c,
                        char ret[static CONF_NAME_MAX + 1], struct err *e)
{
    const char *given = n->title;
    if (!given) {
        config_worker_title(&n->url, is_taken, c, ret, CONF_NAME_MAX + 1);
        return 0;
    }
    if (!conf_name_is_valid(given))
        return err_set(e, ERR_USAGE, given,
                       "--name: found \"%s\", expected 1 to %d of a-z 0-9 _ -, beginning with a "
                       "letter or digit",
                       given, CONF_NAME_MAX);
    const struct conf_worker *other = conf_find_worker(c, given);
    if (other) {
        err_set(e, ERR_USAGE, given, "%s has a worker \"%s\" already, with the url %s", c->file,
                given, other->url);
        return err_hint(e, "Choose another --name, or take that block out first.");
    }
    snprintf(ret, CONF_NAME_MAX + 1, "%s", given);
    return 0;
}

static int refuse_third(const struct conf *c, struct err *e)
{
    err_set(e, ERR_REFUSED, c->file,
            "%s has two workers already, \"%s\" and \"%s\"; syncd keeps no "
            "more than two copies",
            c->file, c->workers[0].name, c->workers[1].name);
    return err_hint(e, "Take one of their blocks out of the config first. Its repository stays as "
                       "it is.");
}

/* The config's text with the worker in it. */
static int add_block(struct enrolling *n, const struct conf *c, struct err *e)
{
    char title[CONF_NAME_MAX + 1];
    int rc =
        c->worker_count == CONF_MAX_WORKERS ? refuse_third(c, e) : choose_title(n, c, title, e);
    if (rc == 0)
        rc = config_file_check_writable(&n->file, e);
    if (rc)
        return rc;
    bool ssh = n->url.scheme == URL_SFTP;
    OWN_MEM char *identity = ssh ? io_path(c->state_dir, "id_ed25519") : NULL;
    OWN_MEM char *known_hosts = ssh ? io_path(c->state_dir, "known_hosts") : NULL;
    if (ssh && (!identity || !known_hosts))
        return err_nomem(e);
    struct config_worker w = {.name = title,
                              .url = n->url_text,
                              .identity_file = n->identity_file ? n->identity_file : identity,
                              .known_hosts = known_hosts};
    buf_put(&n->text, n->file.text.data, n->file.text.len);
    config_put_worker(&w, &n->text);
    return n->text.bad ? err_nomem(e) : 0;
}

/* Reads the config and has it with the worker in *ret, the caller's. */
static int prepare_config(struct enrolling *n, struct conf **ret, struct err *e)
{
    struct conf *c = NULL;
    int rc = config_file_load(args_config_path(n->args), &n->file, e);
    if (rc == 0)
        rc = parse(n, &n->file.text, &c, e);
    if (rc)
        return rc;
    const struct conf_worker *there = find_by_url(c, &n->url);
    rc = there ? check_block(n, there, e) : add_block(n, c, e);
    if (rc == 0 && !there) {
        conf_free(c);
        c = NULL;
        rc = parse(n, &n->text, &c, e);
    }
    if (rc) {
        conf_free(c);
        return rc;
    }
    *ret = c;
    return 0;
}

/* ---- before anything is done ---- */

static int absolute_identity(struct enrolling *n, struct err *e)
{
    const char *given = args_value(n->args, "identity");
    if (!given)
        return 0;
    OWN_MEM char *here = *given == '/' ? NULL : getcwd(NULL, 0);
    n->identity_file = *given == '/' ? strdup(given) : here ? io_path(here, given) : NULL;
    return n->identity_file ? 0 : err_nomem(e);
}

static int read_password(struct enrolling *n, const struct conf *c, struct err *e)
{
    const struct conf_worker *there = find_by_url(c, &n->url);
    const char *file = args_value(n->args, "password-file");
    if (!file && there)
        file = there->password_file;
    return file ? conf_read_secret(file, &n->login.password, e) : 0;
}

/* A copy on the disk that fails is no copy; and a disk that is not mounted shows as this too. */
static int check_disk(const struct enrolling *n, const struct conf *c, struct err *e)
{
    struct stat repo, source;
    OWN_MEM char *folder = strdup(n->url.path);
    if (!folder)
        return err_nomem(e);
    while (stat(folder, &repo) < 0) { /* the nearest that exists */
        char *slash = strrchr(folder, '/');
        if (errno != ENOENT || slash == folder)
            return err_sys(e, errno, folder, "cannot look at %s", folder);
        *slash = '\0';
    }
    for (size_t i = 0; i < c->source_count; i++) {
        for (conf_list path = c->sources[i].path; path && *path; path++) {
            if (stat(*path, &source) < 0 || source.st_dev != repo.st_dev)
                continue;
            err_set(e, ERR_REFUSED, n->url.path,
                    "%s is on the same file system as %s of source \"%s\": both would be lost "
                    "together",
                    n->url.path, *path, c->sources[i].name);
            return err_hint(e, "Is the other disk mounted? Else name a folder on another one.");
        }
    }
    return 0;
}

/* A session on the config with the worker, acting as the owner of state_dir. */
static int begin(struct enrolling *n, struct err *e)
{
    struct conf *c = NULL;
    int rc = read_url(n, e);
    if (rc == 0)
        rc = absolute_identity(n, e);
    if (rc == 0)
        rc = prepare_config(n, &c, e);
    if (rc)
        return rc;
    rc = read_password(n, c, e);
    if (rc == 0 && n->url.scheme == URL_FILE)
        rc = check_disk(n, c, e);
    if (rc == 0)
        rc = identity_act_as_owner(c, e);
    if (rc) {
        conf_free(c);
        return rc;
    }
    rc = session_new(c, false, &n->s, e);
    if (rc)
        return rc;
    const struct conf_worker *w = find_by_url(n->s->conf, &n->url);
    for (size_t i = 0; i < n->s->worker_count; i++)
        if (n->s->workers[i].conf == w)
            n->w = &n->s->workers[i];
    return n->w ? 0 : err_set(e, ERR_INTERNAL, n->url_text, "the worker got lost in the config");
}

/* ---- doing it ---- */

static int log_in(struct enrolling *n, struct err *e)
{
    free(n->identity_file);
    n->identity_file = session_identity_file(n->s, n->w->conf);
    n->known_hosts = session_known_hosts(n->s, n->w->conf);
    if (!n->identity_file || !n->known_hosts)
        return err_nomem(e);
    n->login.conf = n->s->conf;
    n->login.report = n->report;
    n->login.url = n->url;
    n->login.name = n->w->conf->name;
    n->login.identity_file = n->identity_file;
    n->login.known_hosts = n->known_hosts;
    return enrol_log_in(&n->login, &n->w->store, e);
}

/* Last, so that a config never names a worker that is not ready. */
static int write_config(struct enrolling *n, struct err *e)
{
    if (n->text.len == 0) {
        report_say(n->report, "%s: is in %s already\n", n->w->conf->name, n->file.path);
        return 0;
    }
    int rc = identity_act_as_root(e);
    if (rc == 0)
        rc = config_file_save(&n->file, &n->text, e);
    if (rc == 0)
        report_say(n->report, "%s: %s %s\n", n->w->conf->name,
                   n->file.exists ? "written into" : "written into the new config", n->file.path);
    return rc;
}

static void tell(const struct enrolling *n)
{
    const struct conf *c = n->s->conf;
    json_t *o = json_object();
    report_json_set(o, "name", report_json_text(n->w->conf->name));
    report_json_set(o, "url", report_json_text(n->w->conf->url));
    report_json_set(o, "host_key", report_json_text(*n->login.sha256 ? n->login.sha256 : NULL));
    report_json_set(o, "identity_file", report_json_text(n->login.identity_file));
    report_json_set(o, "pinned", json_boolean(n->login.pinned));
    report_json_set(o, "key_made", json_boolean(n->login.key_made));
    report_json_set(o, "key_added", json_boolean(n->login.key_added));
    report_json_set(o, "repository_created", json_boolean(!n->w->has_repository));
    report_json_set(o, "config_written", json_boolean(n->text.len > 0));
    report_set(n->report, "worker", o);
    if (c->source_count == 0)
        report_say(n->report,
                   "Next: say in %s what to protect (a source block), then `syncd "
                   "check`.\n",
                   c->file);
    else
        report_say(n->report, "Next: `syncd check`, then `syncd backup`.\n");
}

int enrol_url(const struct command_args *args, const char *url, const char *title,
              struct report *report, struct err *e)
{
    struct enrolling n = {.args = args, .report = report, .url_text = url, .title = title};
    int rc = begin(&n, e);
    if (rc == 0 && n.url.scheme == URL_SFTP)
        rc = log_in(&n, e);
    if (rc == 0)
        rc = enrol_repositories(n.s, n.w, report, e);
    if (rc == 0)
        rc = write_config(&n, e);
    if (rc == 0)
        tell(&n);
    ask_wipe(&n.login.password);
    session_close(n.s);
    free(n.identity_file);
    free(n.known_hosts);
    buf_free(&n.text);
    config_file_free(&n.file);
    return rc;
}
