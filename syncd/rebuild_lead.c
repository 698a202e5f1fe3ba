/* The end of the dialogue: this machine is the leader again. Each step leaves a state from which
 * the same command goes on. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "syncd/ask.h"
#include "syncd/base/clock.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/child.h"
#include "syncd/command.h"
#include "syncd/config_file.h"
#include "syncd/enrol_login.h"
#include "syncd/host_pin.h"
#include "syncd/identity.h"
#include "syncd/lead.h"
#include "syncd/rebuild_internal.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "transport/store.h"

#define BACKUP_TIMEOUT_MS (6 * 24 * 3600 * 1000)
#define STATUS_TIMEOUT_MS (5 * 60 * 1000)

struct leading {
    struct rebuild *rb;
    struct session *s; /* the leader's */
    struct config_file file;
};

/* ---- logging in on the workers of the config ---- */

static bool is_same_place(const struct url *a, const struct url *b)
{
    return a->scheme == b->scheme && strcmp(a->user, b->user) == 0 &&
           strcmp(a->host, b->host) == 0 && a->port == b->port && a->under_home == b->under_home &&
           strcmp(a->path, b->path) == 0;
}

/* The login that led to this worker's repository; -1: --from did not name it. */
static int login_of(const struct rebuild *rb, const struct url *url)
{
    for (size_t i = 0; i < rb->s->worker_count; i++)
        if (rb->s->workers[i].store && is_same_place(&rb->logins[i].url, url))
            return (int)i;
    return -1;
}

/* A host key that was given for no host by name is for those of --from. */
static int host_key_of(const struct rebuild *rb, const struct url *url, const char **ret,
                       struct err *e)
{
    int rc = host_pin_given(rb->args, url, ret, e);
    for (const char *const *v = args_values(rb->args, "host-key"); rc == 0 && *v; v++)
        if (*v == *ret)
            *ret = NULL;
    return rc;
}

static int enrol(struct leading *l, struct session_worker *w, const struct url *url, struct err *e)
{
    struct rebuild *rb = l->rb;
    int login = login_of(rb, url);
    const char *file = args_value(rb->args, "password-file");
    OWN_MEM char *identity = session_identity_file(l->s, w->conf);
    OWN_MEM char *known_hosts = session_known_hosts(l->s, w->conf);
    struct enrol_login n = {.conf = l->s->conf,
                            .report = rb->report,
                            .url = *url,
                            .name = w->conf->name,
                            .identity_file = identity,
                            .known_hosts = known_hosts};
    if (!identity || !known_hosts)
        return err_nomem(e);
    int rc = 0;
    if (login >= 0) {
        n.host_key = rb->logins[login].sha256;
        n.door = rb->s->workers[login].store;
        if (rb->logins[login].password && !(n.password = strdup(rb->logins[login].password)))
            return err_nomem(e);
    } else {
        rc = host_key_of(rb, url, &n.host_key, e);
        if (rc == 0 && file)
            rc = conf_read_secret(file, &n.password, e);
    }
    rc = rc ? rc : enrol_log_in(&n, &w->store, e);
    ask_wipe(&n.password);
    return rc;
}

/* A worker that cannot be logged in to now is left for `setup`. */
static int enrol_all(struct leading *l, struct err *e)
{
    for (size_t i = 0; i < l->s->worker_count; i++) {
        struct session_worker *w = &l->s->workers[i];
        struct url url;
        int rc = url_parse(w->conf->url, &url, &w->err);
        if (rc == 0 && url.scheme == URL_SFTP)
            rc = enrol(l, w, &url, &w->err);
        if (rc == ERR_CANCELLED || rc == ERR_NOMEM) {
            *e = w->err;
            return rc;
        }
        if (rc == 0) {
            w->err = ERR_INIT;
            continue;
        }
        report_warning(l->rb->report, &w->err);
        rebuild_missing(l->rb, "worker %s: %s; when it answers: syncd setup %s", w->conf->name,
                        w->err.message, w->conf->url);
    }
    return 0;
}

/* ---- the config ---- */

/* One that is there and says something else is not thrown away. */
static int put_aside(struct leading *l, struct err *e)
{
    char now[CLOCK_TEXT_SIZE];
    OWN_MEM char *aside = NULL;
    clock_compact(clock_now_us(), now);
    if (asprintf(&aside, "%s.before-%s", l->file.path, now) < 0) {
        aside = NULL;
        return err_nomem(e);
    }
    if (io_rename_new(l->file.path, aside) < 0)
        return err_sys(e, errno, l->file.path, "cannot move %s aside", l->file.path);
    report_say(l->rb->report, "the config that was there is now %s\n", aside);
    l->file.exists = false;
    l->file.st = (struct stat){.st_mode = 0644, .st_uid = (uid_t)-1, .st_gid = (gid_t)-1};
    return 0;
}

static int write_config(struct leading *l, struct err *e)
{
    const struct buf *text = &l->rb->config_text;
    bool same = l->file.exists && l->file.text.len == text->len &&
                memcmp(l->file.text.data, text->data, text->len) == 0;
    if (same)
        return 0;
    int rc = l->file.exists ? put_aside(l, e) : 0;
    if (rc == 0)
        rc = config_file_save(&l->file, text, e);
    if (rc == 0)
        report_say(l->rb->report, "config written: %s\n", l->file.path);
    return rc;
}

/* Secrets are only named in a config: who wrote them must bring them back. */
static void note_secrets(struct leading *l)
{
    const struct conf *c = l->s->conf;
    const char *files[] = {
        c->mqtt.password_file, c->mqtt.ca_file, c->mqtt.cert_file, c->mqtt.key_file, NULL, NULL};
    for (size_t i = 0; i < c->worker_count; i++)
        files[4 + i] = c->workers[i].password_file;
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        if (files[i] && access(files[i], F_OK) < 0)
            rebuild_missing(l->rb, "%s, which the config names and no backup holds", files[i]);
}

/* ---- catalog ---- */

/* What was restored and checked is as good as published by this machine (DESIGN 9): the next backup
 * may go on from it, even when one worker alone vouches for it. */
static int note_source(struct catalog *c, const struct rebuild_source *f, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < f->part_count; i++) {
        const struct part_ref *ref = &f->parts[i];
        struct catalog_part part = {.epoch = ref->epoch,
                                    .sequence = ref->sequence,
                                    .size_bytes = ref->size_bytes,
                                    .is_snapshot = i + 1 == f->part_count};
        memcpy(part.id, ref->id, sizeof part.id);
        rc = catalog_parts_add(c, f->found->name, &part, 1, e);
    }
    return rc;
}

/* What the config calls the worker that --from calls `name`; NULL: it does not know it. */
static const char *name_in_config(const struct leading *l, const char *name)
{
    struct url url;
    for (size_t i = 0; i < l->rb->s->worker_count; i++)
        for (size_t k = 0; k < l->s->worker_count; k++)
            if (strcmp(l->rb->s->workers[i].conf->name, name) == 0 &&
                url_parse(l->s->workers[k].conf->url, &url, NULL) == 0 &&
                is_same_place(&l->rb->logins[i].url, &url))
                return l->s->workers[k].conf->name;
    return NULL;
}

/* Rot that the restore went round is sync's to mend. */
static int note_damages(struct leading *l, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < l->rb->damages.count; i++) {
        const struct bring_damage *d = &l->rb->damages.items[i];
        const char *worker = name_in_config(l, d->worker);
        if (worker)
            rc = catalog_damage_add(l->s->catalog, worker, d->source, d->part, clock_now_us(), e);
    }
    return rc;
}

static int make_catalog(struct leading *l, const struct repository *known, bool was_known,
                        struct err *e)
{
    OWN_MEM char *aside = NULL, *notice = NULL;
    const char *dir = l->s->conf->state_dir;
    bool other = was_known && memcmp(known->id, l->s->repository.id, REPO_ID_SIZE) != 0;
    int rc = other ? catalog_put_aside(dir, &aside, e) : 0;
    if (rc == 0)
        rc = catalog_open(dir, &l->s->catalog, &notice, e);
    for (size_t i = 0; rc == 0 && i < l->rb->source_count; i++)
        if (l->rb->sources[i].restored)
            rc = note_source(l->s->catalog, &l->rb->sources[i], e);
    return rc ? rc : note_damages(l, e);
}

/* ---- taking over ---- */

static int check_repository(const struct leading *l, struct err *e)
{
    if (memcmp(l->s->repository.id, l->rb->s->repository.id, REPO_ID_SIZE) == 0)
        return 0;
    return err_set(e, ERR_FOREIGN, l->s->conf->workers[0].name,
                   "the config's workers hold another repository than the one that was restored");
}

static int take_over(struct leading *l, struct err *e)
{
    OWN_FOUND struct found found = {0};
    size_t claimed = 0;
    const struct repository known = l->s->repository;
    const bool was_known = l->s->has_repository;
    l->s->has_repository = false;
    int rc = session_connect(l->s, e);
    if (rc == 0)
        rc = check_repository(l, e);
    if (rc == 0)
        rc = make_catalog(l, &known, was_known, e);
    if (rc)
        return rc;
    if (session_check_leader(l->s, e) == 0)
        return 0; /* a run that was cut had come so far */
    *e = ERR_INIT;
    rc = found_read(l->s, &found, e);
    if (rc == 0)
        rc = lead_take(l->s, &found, &claimed, e);
    if (rc == 0)
        report_say(l->rb->report, "this machine leads now (epoch %u), on %zu of %zu worker%s\n",
                   (unsigned)l->s->epoch, claimed, l->s->worker_count,
                   show_plural(l->s->worker_count));
    return rc;
}

/* ---- the first backup ---- */

static int find_self(char ret[static PATH_MAX], struct err *e)
{
    ssize_t n = readlink("/proc/self/exe", ret, PATH_MAX - 1);
    if (n < 0)
        return err_sys(e, errno, NULL, "cannot find my own program");
    ret[n] = '\0';
    return 0;
}

/* Only what came back: of anything else there may be an empty one here by now, which must not
 * become the newest state of the source. */
static int run_backup(struct leading *l, struct buf *output, struct err *e)
{
    char self[PATH_MAX];
    const char *argv[FOUND_SOURCES_MAX + 6] = {self, "-c", l->file.path, "backup", "-q"};
    size_t n = 5;
    for (size_t i = 0; i < l->rb->source_count; i++)
        if (l->rb->sources[i].restored)
            argv[n++] = l->rb->sources[i].found->name;
    int rc = find_self(self, e);
    return rc ? rc : child_run(argv, BACKUP_TIMEOUT_MS, output, e);
}

static int run_status(struct leading *l, struct buf *output, struct err *e)
{
    char self[PATH_MAX];
    const char *const argv[] = {self, "-c", l->file.path, "status", "--json", NULL};
    int rc = find_self(self, e);
    return rc ? rc : child_run(argv, STATUS_TIMEOUT_MS, output, e);
}

static void note_state(struct leading *l, json_t *source)
{
    size_t i;
    json_t *w;
    const char *name = json_string_value(json_object_get(source, "name"));
    const char *state = json_string_value(json_object_get(source, "state"));
    if (!name || !state)
        return;
    /* Without max_age nobody can say fresh; stored just now it is. */
    bool known = !json_is_null(json_object_get(source, "max_age_s"));
    if (known && strcmp(state, "fresh") != 0)
        rebuild_missing(l->rb, "source %s is %s", name, state);
    json_array_foreach(json_object_get(source, "workers"), i, w)
    {
        const char *error = json_string_value(json_object_get(w, "error"));
        if (error)
            rebuild_missing(l->rb, "source %s on %s: %s", name,
                            json_string_value(json_object_get(w, "name")), error);
    }
}

/* One backup, and what status then says: both as a person would run them, so that they go on as
 * the owner of state_dir by themselves. */
static int back_up(struct leading *l, struct err *e)
{
    OWN_BUF struct buf said = BUF_INIT, answer = BUF_INIT;
    struct err backup = ERR_INIT, status = ERR_INIT;
    size_t i;
    json_t *source;
    report_say(l->rb->report, "backing up once\n");
    int rc = run_backup(l, &said, &backup);
    if (rc == ERR_CANCELLED) {
        *e = backup;
        return rc;
    }
    for (size_t k = 0; k < said.len; k++) /* one line of several */
        if (said.data[k] == '\n')
            said.data[k] = ' ';
    if (rc)
        rebuild_missing(l->rb, "the first backup: %s",
                        buf_cstr(&said) && said.len ? (const char *)said.data : backup.message);
    run_status(l, &answer, &status);
    json_auto_t *j = json_loadb((const char *)answer.data, answer.len, 0, NULL);
    if (!j)
        rebuild_missing(l->rb, "`syncd status` gave no answer: %s", status.message);
    json_array_foreach(json_object_get(j, "sources"), i, source) note_state(l, source);
    return 0;
}

/* ---- all of it ---- */

static int lead(struct leading *l, struct err *e)
{
    struct rebuild *rb = l->rb;
    struct conf *conf = NULL;
    int rc = config_file_load(args_config_path(rb->args), &l->file, e);
    if (rc == 0)
        rc = config_file_check_writable(&l->file, e);
    if (rc == 0)
        rc = conf_parse(l->file.path, (const char *)rb->config_text.data, rb->config_text.len,
                        &conf, NULL, e);
    if (rc)
        return rc;
    rc = identity_act_as_owner(conf, e);
    if (rc) {
        conf_free(conf);
        return rc;
    }
    rc = session_new(conf, false, &l->s, e);
    if (rc == 0)
        rc = enrol_all(l, e);
    if (rc == 0)
        rc = take_over(l, e);
    int back = identity_act_as_root(rc ? NULL : e);
    if (rc || back)
        return rc ? rc : back;
    rc = write_config(l, e);
    if (rc == 0)
        note_secrets(l);
    return rc ? rc : back_up(l, e);
}

int rebuild_lead(struct rebuild *rb, struct err *e)
{
    struct leading l = {.rb = rb};
    int rc = lead(&l, e);
    identity_act_as_root(NULL);
    if (l.s && rc == 0)
        report_set(rb->report, "epoch", json_integer((json_int_t)l.s->epoch));
    session_close(l.s);
    config_file_free(&l.file);
    return rc;
}
