#include "syncd/from.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "syncd/ask.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/command.h"
#include "syncd/found.h"
#include "syncd/from_browse.h"
#include "syncd/host_pin.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "transport/open.h"
#include "transport/store.h"

bool from_is_given(const struct command_args *args)
{
    return args_count(args, "from") > 0;
}

static bool is_url(const char *text)
{
    return strstr(text, "://") != NULL;
}

bool from_is_url(const struct command_args *args)
{
    const char *const *values = args_values(args, "from");
    return values[0] && is_url(values[0]);
}

void from_login_end(struct from_login *l)
{
    ask_wipe(&l->password);
}

/* ---- one URL ---- */

struct login {
    const struct command_args *args;
    struct session_worker *w;
    struct from_login *door;
    char *known_hosts; /* NULL: there is none */
};

static struct store_options options_of(const struct login *l)
{
    return (struct store_options){.name = l->w->conf->name,
                                  .url = l->door->url,
                                  .identity_file = args_value(l->args, "identity"),
                                  .password = l->door->password,
                                  .use_agent = true,
                                  .known_hosts = l->known_hosts,
                                  .host_key_sha256 = *l->door->sha256 ? l->door->sha256 : NULL,
                                  .cancel_fd = &l->w->cancel_fd};
}

static char *users_known_hosts(void)
{
    const char *home = getenv("HOME");
    char *path = home ? io_path(home, ".ssh/known_hosts") : NULL;
    if (path && access(path, R_OK) == 0)
        return path;
    free(path);
    return NULL;
}

static int confirm_host(struct login *l, struct err *e)
{
    struct host_key shown;
    const char *given;
    struct store_options o = options_of(l);
    int rc = host_pin_given(l->args, &l->door->url, &given, e);
    if (rc == 0)
        rc = store_host_key(&o, &shown, e);
    if (rc == 0)
        rc = host_pin_confirm(&shown, &l->door->url, given, e);
    if (rc == 0)
        snprintf(l->door->sha256, sizeof l->door->sha256, "%s", shown.sha256);
    return rc;
}

static int get_password(struct login *l, struct err *e)
{
    const char *file = args_value(l->args, "password-file");
    char question[512];
    if (file)
        return conf_read_secret(file, &l->door->password, e);
    snprintf(question, sizeof question, "Password of %s at %s (for this once; it is not kept)",
             *l->door->url.user ? l->door->url.user : "this user", l->door->url.host);
    return ask_password(question, "--password-file FILE", &l->door->password, e);
}

/* By key and agent first; the password only when those do not open the door. */
static int log_in(struct login *l, struct err *e)
{
    bool keys = args_value(l->args, "identity") || getenv("SSH_AUTH_SOCK");
    struct store_options o = options_of(l);
    int rc = keys || l->door->password ? store_open_url(&o, &l->w->store, e) : ERR_AUTH;
    if (rc != ERR_AUTH || l->door->password)
        return rc;
    rc = get_password(l, e);
    o = options_of(l);
    return rc ? rc : store_open_url(&o, &l->w->store, e);
}

static int list_repositories(const struct login *l, struct report *report,
                             const struct browsed *found, struct err *e)
{
    json_t *list = json_array();
    char url[2048], safe[2048];
    for (size_t i = 0; i < found->count; i++) {
        snprintf(url, sizeof url, "sftp://%s%s%s:%u/~/%s", l->door->url.user,
                 *l->door->url.user ? "@" : "", l->door->url.host, (unsigned)l->door->url.port,
                 found->paths[i]);
        json_array_append_new(list, report_json_text(url));
        report_print(report, "%s\n", show_safe_into(url, safe, sizeof safe));
    }
    report_set(report, "repositories", list);
    if (found->count == 0) {
        err_set(e, ERR_NOT_FOUND, l->door->url.host, "no repository is found under the home at %s",
                l->door->url.host);
        return err_hint(e, "Give the URL with its path, as in syncd.conf's worker block.");
    }
    err_set(e, ERR_USAGE, l->door->url.host, "%zu repositories are found at %s", found->count,
            l->door->url.host);
    return err_hint(e, "Choose one of the URLs above.");
}

/* A URL without a path: what is under the home? */
static int find_path(struct login *l, struct report *report, struct err *e)
{
    struct browsed found;
    int rc = browse_home(l->w->store, &found, e);
    if (rc)
        return rc;
    if (found.count == 1) {
        struct store_options o;
        snprintf(l->door->url.path, sizeof l->door->url.path, "%s", found.paths[0]);
        o = options_of(l);
        session_leave_out(l->w);
        report_say(report, "%s: the repository is at ~/%s\n", l->w->conf->name, l->door->url.path);
        rc = store_open_url(&o, &l->w->store, e);
    } else {
        rc = list_repositories(l, report, &found, e);
    }
    browsed_free(&found);
    return rc;
}

static int open_url(struct login *l, struct report *report, struct err *e)
{
    int rc = session_make_cancel_fd(l->w, e);
    if (rc == 0)
        rc = url_parse(l->w->conf->url, &l->door->url, e);
    if (rc)
        return rc == ERR_CONFIG ? (e->code = ERR_USAGE) : rc;
    struct store_options o = options_of(l);
    if (l->door->url.scheme == URL_FILE)
        return store_open_url(&o, &l->w->store, e);
    bool browse = !*l->door->url.path;
    l->known_hosts = users_known_hosts();
    l->door->url.under_home |= browse;
    rc = confirm_host(l, e);
    if (rc == 0)
        rc = log_in(l, e);
    return rc == 0 && browse ? find_path(l, report, e) : rc;
}

/* ---- the session ---- */

/* Two that would be called the same get their port, or a number. */
static char *name_of(const char *const *urls, size_t index)
{
    struct url url, other;
    char *name = NULL;
    int n;
    if (url_parse(urls[index], &url, NULL))
        return strdup("url");
    bool twice = urls[index ? 0 : 1] && url_parse(urls[index ? 0 : 1], &other, NULL) == 0 &&
                 strcmp(other.host, url.host) == 0;
    if (url.scheme == URL_FILE)
        n = asprintf(&name, "%s", url.path);
    else if (twice && other.port != url.port)
        n = asprintf(&name, "%s:%u", url.host, (unsigned)url.port);
    else
        n = asprintf(&name, twice && index ? "%s (2)" : "%s", url.host);
    return n < 0 ? NULL : name;
}

/* A config of nothing but workers. */
static int bare_conf(const struct command_args *args, struct conf **ret, struct err *e)
{
    const char *const *urls = args_values(args, "from");
    struct conf *c = mem_alloc(1, sizeof *c);
    if (!c)
        return err_nomem(e);
    bool whole = (c->file = strdup("--from")) != NULL;
    for (size_t i = 0; urls[i]; i++) {
        struct conf_worker *w = &c->workers[c->worker_count++];
        w->name = name_of(urls, i);
        w->url = strdup(urls[i]);
        whole &= w->name && w->url;
    }
    if (!whole) {
        conf_free(c);
        return err_nomem(e);
    }
    *ret = c;
    return 0;
}

/* Without an answer the other may do; a refusal, or nobody to ask, ends it. */
static bool may_go_on(int rc)
{
    return rc == ERR_CONNECT || rc == ERR_TIMEOUT;
}

static int open_urls(const struct command_args *args, struct report *report, struct session **ret,
                     struct from_login *logins, struct err *e)
{
    struct conf *conf = NULL;
    int rc = bare_conf(args, &conf, e);
    if (rc == 0)
        rc = session_new_bare(conf, ret, e);
    for (size_t i = 0; rc == 0 && i < (*ret)->worker_count; i++) {
        struct session_worker *w = &(*ret)->workers[i];
        struct login l = {.args = args, .w = w, .door = &logins[i]};
        rc = open_url(&l, report, &w->err);
        free(l.known_hosts);
        if (rc == 0)
            w->err = ERR_INIT; /* what a step on the way left in it is none */
        else if (may_go_on(rc))
            rc = 0;
        else
            *e = w->err;
    }
    return rc;
}

static int keep_named(struct session *s, const char *const *names, struct err *e)
{
    size_t kept = 0;
    for (size_t i = 0; names[i]; i++)
        if (!conf_find_worker(s->conf, names[i])) {
            err_set(e, ERR_USAGE, names[i], "there is no worker '%s' in %s", names[i],
                    s->conf->file);
            return err_hint(e, "Or give a URL: sftp://USER@HOST/PATH.");
        }
    for (size_t i = 0; i < s->worker_count; i++)
        for (size_t k = 0; names[k]; k++)
            if (strcmp(s->workers[i].conf->name, names[k]) == 0) {
                s->workers[kept++] = s->workers[i];
                break;
            }
    s->worker_count = kept;
    return 0;
}

static int open_named(const struct command_args *args, struct report *report, struct session **ret,
                      struct err *e)
{
    int rc = session_open(args, report, true, ret, e);
    return rc ? rc : keep_named(*ret, args_values(args, "from"), e);
}

static int check_values(const char *const *values, bool *ret_urls, struct err *e)
{
    size_t urls = 0, count = 0;
    for (; values[count]; count++)
        urls += is_url(values[count]);
    if (count > CONF_MAX_WORKERS)
        return err_set(e, ERR_USAGE, "from", "--from is given %zu times; two are the most", count);
    if (count == 2 && strcmp(values[0], values[1]) == 0)
        return err_set(e, ERR_USAGE, values[0], "--from names %s twice", values[0]);
    if (urls && urls != count)
        return err_set(e, ERR_USAGE, "from",
                       "--from takes workers of the config or URLs, not one of each");
    *ret_urls = urls > 0;
    return 0;
}

/* Both must be copies of one and the same repository. */
static int connect_all(struct session *s, struct report *report, struct err *e)
{
    int rc = session_connect(s, e);
    for (size_t i = 0; rc == 0 && i < s->worker_count; i++) {
        const struct session_worker *w = &s->workers[i];
        if (w->err.code == ERR_FOREIGN) {
            err_set(e, ERR_FOREIGN, w->conf->name,
                    "%s holds another repository, of '%s'; the two are no copies of each other",
                    w->conf->name, w->repository.leader);
            return err_hint(e, "Restore from one of them.");
        }
        if (w->err.code)
            report_warning(report, &w->err);
    }
    return rc;
}

int from_open_logins(const struct command_args *args, struct report *report, struct session **ret,
                     struct from_login *ret_logins, struct err *e)
{
    struct session *s = NULL;
    bool urls = false;
    int rc = check_values(args_values(args, "from"), &urls, e);
    if (rc == 0)
        rc = urls ? open_urls(args, report, &s, ret_logins, e) : open_named(args, report, &s, e);
    if (rc == 0)
        rc = connect_all(s, report, e);
    if (rc) {
        session_close(s);
        return rc;
    }
    *ret = s;
    return 0;
}

int from_open(const struct command_args *args, struct report *report, struct session **ret,
              struct err *e)
{
    struct from_login logins[CONF_MAX_WORKERS] = {0};
    int rc = from_open_logins(args, report, ret, logins, e);
    for (size_t i = 0; i < CONF_MAX_WORKERS; i++)
        from_login_end(&logins[i]);
    return rc;
}

int from_choose_source(const struct found *found, const char *named, const char **ret,
                       struct err *e)
{
    OWN_BUF struct buf names = BUF_INIT;
    const struct found_source *one = named ? found_find(found, named) : NULL;
    if (!named && found->count == 1)
        one = &found->sources[0];
    if (one) {
        *ret = one->name;
        return 0;
    }
    for (size_t i = 0; i < found->count; i++)
        buf_printf(&names, "%s%s", i ? ", " : "", found->sources[i].name);
    if (found->count == 0)
        return err_set(e, ERR_NOT_FOUND, NULL, "the repository holds no source");
    if (named)
        err_set(e, ERR_USAGE, named, "the repository holds no source '%s'", named);
    else
        err_set(e, ERR_USAGE, NULL, "the repository holds %zu sources; name one", found->count);
    return err_hint(e, "It holds %s.", buf_cstr(&names) ? buf_cstr(&names) : "some");
}
