#include "syncd/setup_preset.h"

#include <stdio.h>
#include <string.h>

#include "conf/conf.h"
#include "conf/preset.h"
#include "syncd/base/mem.h"
#include "syncd/command.h"
#include "syncd/config_file.h"
#include "syncd/enrol.h"
#include "syncd/identity.h"
#include "syncd/preset_look.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"

struct setting_up {
    const struct command_args *args;
    struct report *report;
    const struct preset *preset;
    const char *name; /* the source's */
    bool secrets;
    struct config_file file;
    struct conf *conf;
    bool is_there; /* the config has the source already */
    struct preset_found found;
};

static int check_words(struct setting_up *u, struct err *e)
{
    OWN_BUF struct buf names = BUF_INIT;
    const char *given = args_value(u->args, "preset"), *source = args_value(u->args, "source");
    for (const struct preset *p = preset_table; p->name; p++)
        buf_printf(&names, "%s%s", p == preset_table ? "" : ", ", p->name);
    u->preset = preset_find(given);
    if (!u->preset) {
        err_set(e, ERR_USAGE, given, "--preset: there is no preset '%s'", given);
        return err_hint(e, "There are %s.", buf_cstr(&names) ? buf_cstr(&names) : "some");
    }
    if (u->args->word_count > 0) {
        err_set(e, ERR_USAGE, u->args->words[0],
                "--preset writes a source, a URL enrols a worker: one of them at a time");
        return err_hint(e, "syncd setup --preset %s, then syncd setup %s", given,
                        u->args->words[0]);
    }
    if (args_flag(u->args, "workers") && !u->preset->workers_file)
        return err_set(e, ERR_USAGE, given, "--workers: %s has no list of machines to take from",
                       u->preset->system);
    u->name = source ? source : u->preset->name;
    u->secrets = args_flag(u->args, "secrets");
    if (!conf_name_is_valid(u->name))
        return err_set(e, ERR_USAGE, u->name,
                       "--source: found \"%s\", expected 1 to %d of a-z 0-9 _ -, beginning with a "
                       "letter or digit",
                       u->name, CONF_NAME_MAX);
    return 0;
}

static int parse(struct setting_up *u, struct buf *text, struct conf **ret, struct err *e)
{
    struct conf_errors more = {0};
    if (!buf_cstr(text))
        return err_nomem(e);
    int rc = conf_parse(u->file.path, (const char *)text->data, text->len, ret, &more, e);
    if (rc == ERR_CONFIG)
        session_config_errors(u->report, &more, e);
    return rc;
}

static int read_config(struct setting_up *u, struct err *e)
{
    int rc = config_file_load(args_config_path(u->args), &u->file, e);
    if (rc == 0)
        rc = parse(u, &u->file.text, &u->conf, e);
    if (rc)
        return rc;
    const struct conf_source *s = conf_find_source(u->conf, u->name);
    u->is_there = s && s->known == u->preset;
    if (!s || u->is_there)
        return 0;
    err_set(e, ERR_EXISTS, u->name, "%s has a source \"%s\" already, and it is not this preset",
            u->file.path, u->name);
    return err_hint(e, "Choose another name: syncd setup --preset %s --source NAME.",
                    u->preset->name);
}

static int write_block(struct setting_up *u, struct err *e)
{
    OWN_BUF struct buf text = BUF_INIT;
    const char *paths[PRESET_PLACES_MAX + 1] = {0};
    struct conf *fresh = NULL;
    for (size_t i = 0; i < u->found.count; i++)
        paths[i] = u->found.places[i].path;
    struct config_source s = {.name = u->name,
                              .preset = u->preset->name,
                              .paths = paths,
                              .secrets = u->secrets,
                              .every = u->preset->every,
                              .max_age = u->preset->max_age};
    int rc = config_file_check_writable(&u->file, e);
    if (rc)
        return rc;
    buf_put(&text, u->file.text.data, u->file.text.len);
    config_put_source(&s, &text);
    rc = parse(u, &text, &fresh, e); /* a local worker in the place, and the like */
    if (rc == 0)
        rc = config_file_save(&u->file, &text, e);
    if (rc) {
        conf_free(fresh);
        return rc;
    }
    conf_free(u->conf);
    u->conf = fresh;
    report_say(u->report, "%s: %s %s\n", u->name,
               u->file.exists ? "written into" : "written into the new config", u->file.path);
    return 0;
}

/* ---- what is said ---- */

static void warn_of_stores(struct setting_up *u, char *const *paths)
{
    for (const struct preset_store *s = u->preset->stores; s->what; s++) {
        struct err e = ERR_INIT;
        enum preset_store_state state = preset_store_look(s, paths);
        if (state == PRESET_STORE_MEMORY)
            err_set(&e, ERR_UNSUPPORTED, s->type_env,
                    "%s keeps %s in memory (%s=inmemory): nothing of it can be backed up",
                    u->preset->system, s->what, s->type_env);
        else if (state == PRESET_STORE_MISSING)
            err_set(&e, ERR_NOT_FOUND, u->name, "%s is not there: %s", s->what, s->else_where);
        if (e.code)
            report_warning(u->report, &e);
    }
}

static json_t *texts(const char *const *list)
{
    json_t *array = json_array();
    for (; array && *list; list++)
        json_array_append_new(array, report_json_text(*list));
    return array;
}

static json_t *leaves(const struct preset *p, bool secrets)
{
    json_t *array = json_array();
    for (const struct preset_leave *l = p->leaves; array && l->glob; l++)
        if (!l->secret || !secrets)
            json_array_append_new(array, json_pack("{s:s, s:s}", "path", l->glob, "why", l->why));
    return array;
}

static void tell(struct setting_up *u)
{
    const struct conf_source *s = conf_find_source(u->conf, u->name);
    char shown[1024];
    json_t *o = json_object();
    for (conf_list path = s->path; path && *path; path++)
        report_say(u->report, "  takes      %s\n", show_safe_into(*path, shown, sizeof shown));
    for (const struct preset_leave *l = u->preset->leaves; l->glob; l++)
        if (!l->secret || !s->secrets)
            report_say(u->report, "  leaves out %s: %s\n", l->glob, l->why);
    for (const char *const *text = u->preset->outside; *text; text++)
        report_say(u->report, "  not in it  %s\n", *text);
    report_json_set(o, "name", report_json_text(u->name));
    report_json_set(o, "preset", report_json_text(u->preset->name));
    report_json_set(o, "paths", texts((const char *const *)(uintptr_t)s->path));
    report_json_set(o, "left_out", leaves(u->preset, s->secrets));
    report_json_set(o, "outside", texts(u->preset->outside));
    report_json_set(o, "config_written", json_boolean(!u->is_there));
    report_set(u->report, "source", o);
    warn_of_stores(u, s->path);
}

/* ---- the system's machines as workers ---- */

static int enrol_one(struct setting_up *u, const struct preset_worker *w, struct err *e)
{
    OWN_MEM char *url = NULL;
    bool ipv6 = strchr(w->address, ':') != NULL;
    if (asprintf(&url, "sftp://%s@%s%s%s/~/syncd/%s", u->preset->owner, ipv6 ? "[" : "", w->address,
                 ipv6 ? "]" : "", u->conf->name) < 0) {
        url = NULL;
        return err_nomem(e);
    }
    report_say(u->report, "%s: enrolling %s\n", w->name, url);
    identity_act_as_root(NULL); /* the one before acted as the owner */
    return enrol_url(u->args, url, conf_name_is_valid(w->name) ? w->name : NULL, u->report, e);
}

static int enrol_workers(struct setting_up *u, struct err *e)
{
    const struct conf_source *s = conf_find_source(u->conf, u->name);
    struct preset_worker *list = NULL;
    size_t count = 0, all = 0;
    int rc = preset_workers(u->preset, s->path[0], CONF_MAX_WORKERS, &list, &count, &all, e);
    if (rc)
        return rc;
    report_say(u->report, "workers: ");
    for (size_t i = 0; i < count; i++)
        report_say(u->report, "%s%s (%s)", i ? ", " : "", list[i].name, list[i].address);
    report_say(u->report,
               "; of %zu in [%s] of %s the first by name, so that it is the same ones "
               "each time\n",
               all, u->preset->workers_section, u->preset->workers_file);
    json_t *names = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(names, report_json_text(list[i].name));
    report_set(u->report, "workers_chosen", names);
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = enrol_one(u, &list[i], e);
    preset_workers_free(list, count);
    return rc;
}

static int set_up(struct setting_up *u, struct err *e)
{
    int rc = check_words(u, e);
    if (rc == 0)
        rc = read_config(u, e);
    if (rc)
        return rc;
    if (u->is_there) {
        report_say(u->report, "%s: is in %s already\n", u->name, u->file.path);
    } else {
        rc = preset_look(u->preset, u->secrets, &u->found, e);
        if (rc == 0)
            rc = write_block(u, e);
    }
    if (rc)
        return rc;
    tell(u);
    if (args_flag(u->args, "workers"))
        return enrol_workers(u, e);
    if (u->conf->worker_count == 0)
        report_say(u->report, "Next: enrol a worker: syncd setup sftp://USER@HOST/~/syncd/%s\n",
                   u->conf->name);
    return 0;
}

int setup_preset(const struct command_args *args, struct report *report, struct err *e)
{
    struct setting_up u = {.args = args, .report = report};
    int rc = set_up(&u, e);
    preset_found_free(&u.found);
    conf_free(u.conf);
    config_file_free(&u.file);
    return rc;
}
