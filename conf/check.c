#include "conf/check.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/conf.h"
#include "conf/layout.h"
#include "conf/preset.h"
#include "conf/report.h"
#include "conf/schedule.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define GIVEN(block, key) ((block)->key_line[CONF_KEY_##key])

char *check_default_name(const char *host_name)
{
    char name[CONF_NAME_MAX + 1];
    size_t n = 0;
    for (const char *p = host_name; *p && *p != '.' && n < CONF_NAME_MAX; p++) {
        char c = (char)tolower((unsigned char)*p);
        bool fits = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (n > 0 && c == '_');
        if (fits)
            name[n++] = c;
        else if (n > 0)
            name[n++] = '-';
    }
    name[n] = '\0';
    return strdup(conf_name_is_valid(name) ? name : "leader");
}

static int set_text(char **field, const char *text)
{
    *field = strdup(text);
    return *field ? 0 : ERR_NOMEM;
}

static int set_global_defaults(struct conf *c, const struct layout_block *b)
{
    char host[256] = "";
    int rc = 0;
    if (!GIVEN(b, GLOBAL_name)) {
        gethostname(host, sizeof host - 1);
        c->name = check_default_name(host);
        rc = c->name ? 0 : ERR_NOMEM;
    }
    if (rc == 0 && !GIVEN(b, GLOBAL_state_dir))
        rc = set_text(&c->state_dir, "/var/lib/syncd");
    if (rc == 0 && !GIVEN(b, GLOBAL_log_level))
        rc = set_text(&c->log_level, "notice");
    return rc;
}

static bool any_keep_given(const struct layout_block *b)
{
    return GIVEN(b, SOURCE_keep_last) || GIVEN(b, SOURCE_keep_hourly) ||
           GIVEN(b, SOURCE_keep_daily) || GIVEN(b, SOURCE_keep_weekly) ||
           GIVEN(b, SOURCE_keep_monthly) || GIVEN(b, SOURCE_keep_yearly) ||
           GIVEN(b, SOURCE_keep_within);
}

static void set_source_defaults(struct conf_source *s, const struct layout_block *b)
{
    if (!any_keep_given(b))
        s->keep =
            (struct conf_keep){.last = 4, .hourly = 24, .daily = 14, .weekly = 8, .monthly = 12};
    s->verify_every_s = s->drill_every_s = 7 * 86400;
    s->hook_timeout_s = 60;
}

static int set_mqtt_defaults(struct conf_mqtt *m, const struct layout_block *b)
{
    int rc = 0;
    m->given = true;
    m->port = GIVEN(b, MQTT_ca_file) ? 8883 : 1883;
    if (!GIVEN(b, MQTT_topic))
        rc = set_text(&m->topic, "syncd");
    if (rc == 0 && !GIVEN(b, MQTT_discovery_prefix))
        rc = set_text(&m->discovery_prefix, "homeassistant");
    return rc;
}

int check_set_defaults(struct conf *c, const struct layout *l, struct err *e)
{
    size_t worker = 0, source = 0;
    int rc = 0;
    for (size_t i = 0; i < l->count && rc == 0; i++) {
        const struct layout_block *b = &l->blocks[i];
        switch (b->section) {
        case CONF_GLOBAL:
            rc = set_global_defaults(c, b);
            break;
        case CONF_WORKER:
            c->workers[worker].min_free = 10;
            c->workers[worker].min_free_is_percent = true;
            rc = set_text(&c->workers[worker++].name, b->title);
            break;
        case CONF_SOURCE:
            set_source_defaults(&c->sources[source], b);
            rc = set_text(&c->sources[source++].name, b->title);
            break;
        case CONF_MQTT:
            rc = set_mqtt_defaults(&c->mqtt, b);
            break;
        case CONF_SECTION_COUNT:
            break;
        }
    }
    return rc ? err_nomem(e) : 0;
}

/* True when `path` is `folder` or lies in it. */
static bool is_inside(const char *path, const char *folder)
{
    size_t n = strlen(folder);
    if (strcmp(folder, "/") == 0)
        return true;
    return strncmp(path, folder, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

static void check_worker(const struct conf_worker *w, const struct layout_block *b,
                         struct conf_report *r)
{
    if (!GIVEN(b, WORKER_url)) {
        conf_report_add(r, b->line,
                        "worker \"%s\" has no url, expected such as "
                        "url = \"sftp://user@host/~/syncd\"",
                        w->name);
        return;
    }
    int line = GIVEN(b, WORKER_identity_file);
    line = line ? line : GIVEN(b, WORKER_known_hosts);
    line = line ? line : GIVEN(b, WORKER_password_file);
    if (line && w->url && strncmp(w->url, "file:", 5) == 0)
        conf_report_add(
            r, line,
            "found a key for logging in, but the url of worker \"%s\" is a local folder "
            "(file:), expected none of identity_file, known_hosts, password_file",
            w->name);
}

static void check_workers_differ(const struct conf *c, const struct layout_block *second,
                                 struct conf_report *r)
{
    const struct conf_worker *w = c->workers;
    if (c->worker_count == 2 && w[0].url && w[1].url && strcmp(w[0].url, w[1].url) == 0)
        conf_report_add(r, GIVEN(second, WORKER_url),
                        "workers \"%s\" and \"%s\" have the same url, expected two places",
                        w[0].name, w[1].name);
}

/* Keys that belong to one kind of source, in a source of another. */
static void check_kind(const struct conf_source *s, const struct layout_block *b,
                       struct conf_report *r)
{
    int postgres = GIVEN(b, SOURCE_postgres);
    int path = GIVEN(b, SOURCE_path), preset = GIVEN(b, SOURCE_preset);
    if (!postgres && !path && !preset)
        conf_report_add(r, b->line,
                        "source \"%s\" names nothing to protect, expected a path, a preset or a "
                        "postgres connection",
                        s->name);
    if (preset && !s->path && !postgres && s->known) {
        conf_report_add(r, preset,
                        "found preset \"%s\" without path in source \"%s\", expected its folder as "
                        "path: %s has no place that is the same everywhere (syncd setup --preset "
                        "%s finds it and writes it)",
                        s->preset, s->name, s->known->system, s->preset);
        return;
    }
    if (postgres && (path || preset))
        conf_report_add(
            r, path ? path : preset,
            "found %s beside postgres in source \"%s\", expected one of them: files and "
            "a PostgreSQL database are two sources",
            path ? "path" : "preset", s->name);
    if (postgres && GIVEN(b, SOURCE_exclude))
        conf_report_add(r, GIVEN(b, SOURCE_exclude),
                        "found exclude in a postgres source, expected it with path or preset "
                        "(schemas chooses what is dumped)");
    if (GIVEN(b, SOURCE_secrets) && !preset)
        conf_report_add(r, GIVEN(b, SOURCE_secrets),
                        "found secrets without preset: a path is taken with all that is in it");
    const int needs_postgres[] = {CONF_KEY_SOURCE_schemas, CONF_KEY_SOURCE_globals,
                                  CONF_KEY_SOURCE_drill_database};
    for (size_t i = 0; i < ARRAY_LEN(needs_postgres) && !postgres; i++)
        if (b->key_line[needs_postgres[i]])
            conf_report_add(r, b->key_line[needs_postgres[i]],
                            "found %s without postgres in source \"%s\"",
                            conf_keys[needs_postgres[i]].name, s->name);
    if (s->drill_database && s->postgres && strcmp(s->drill_database, s->postgres) == 0)
        conf_report_add(r, GIVEN(b, SOURCE_drill_database),
                        "drill_database is the source itself, expected a scratch database: a drill "
                        "writes into it");
}

static void check_times(struct conf_source *s, const struct layout_block *b, struct conf_report *r)
{
    if (GIVEN(b, SOURCE_every) && GIVEN(b, SOURCE_schedule)) {
        conf_report_add(r, GIVEN(b, SOURCE_schedule),
                        "found schedule and every in source \"%s\", expected one of them", s->name);
        return;
    }
    struct schedule schedule;
    if (s->every_s)
        s->interval_s = s->every_s;
    else if (s->schedule && schedule_parse(s->schedule, &schedule, NULL) == 0)
        s->interval_s = schedule_longest_gap(&schedule, clock_now_us() / US_PER_S);
    if (!s->max_age_s)
        s->max_age_s = 2 * s->interval_s;
}

static void check_keep(const struct conf_source *s, const struct layout_block *b,
                       struct conf_report *r)
{
    const struct conf_keep *k = &s->keep;
    if (k->last || k->hourly || k->daily || k->weekly || k->monthly || k->yearly || k->within_s)
        return;
    int line = b->line;
    for (int i = CONF_KEY_SOURCE_keep_last; i <= CONF_KEY_SOURCE_keep_within; i++)
        line = b->key_line[i] ? b->key_line[i] : line;
    conf_report_add(r, line,
                    "source \"%s\" would keep nothing: each keep_ key given is 0, and that turns "
                    "the defaults off",
                    s->name);
}

/* A local repository inside of what is backed up would back itself up. */
static void check_not_in_itself(const struct conf *c, const struct conf_source *s,
                                const struct layout_block *b, struct conf_report *r)
{
    int line = GIVEN(b, SOURCE_path) ? GIVEN(b, SOURCE_path) : GIVEN(b, SOURCE_preset);
    for (size_t i = 0; i < c->worker_count; i++) {
        const char *url = c->workers[i].url;
        if (!url || strncmp(url, "file://", 7) != 0)
            continue;
        for (size_t j = 0; s->path && s->path[j]; j++)
            if (is_inside(url + 7, s->path[j]))
                conf_report_add(r, line,
                                "the folder of worker \"%s\" lies in the path \"%.100s\" of source "
                                "\"%s\", expected it outside",
                                c->workers[i].name, s->path[j], s->name);
    }
}

static void check_mqtt(const struct layout_block *b, struct conf_report *r)
{
    int cert = GIVEN(b, MQTT_cert_file), key = GIVEN(b, MQTT_key_file);
    if (!GIVEN(b, MQTT_host))
        conf_report_add(r, b->line, "mqtt has no host, expected such as host = \"localhost\"");
    if (GIVEN(b, MQTT_password_file) && !GIVEN(b, MQTT_username))
        conf_report_add(r, GIVEN(b, MQTT_password_file),
                        "found password_file without username in mqtt, expected both");
    if (!cert != !key)
        conf_report_add(r, cert ? cert : key,
                        "found %s in mqtt, expected cert_file and key_file together",
                        cert ? "cert_file without key_file" : "key_file without cert_file");
    if (cert && !GIVEN(b, MQTT_ca_file))
        conf_report_add(r, cert,
                        "found cert_file without ca_file in mqtt: TLS needs the ca_file of the "
                        "broker");
    if (GIVEN(b, MQTT_discovery_prefix) && !GIVEN(b, MQTT_homeassistant))
        conf_report_add(r, GIVEN(b, MQTT_discovery_prefix),
                        "found discovery_prefix without homeassistant, expected homeassistant = "
                        "true beside it");
}

void check_combinations(struct conf *c, const struct layout *l, struct conf_report *report)
{
    size_t worker = 0, source = 0;
    const struct layout_block *last_worker = NULL;
    bool values_are_good = report->count == 0;
    for (size_t i = 1; i < l->count; i++) {
        const struct layout_block *b = &l->blocks[i];
        if (b->section == CONF_WORKER) {
            check_worker(&c->workers[worker++], b, report);
            last_worker = b;
        } else if (b->section == CONF_SOURCE) {
            struct conf_source *s = &c->sources[source++];
            check_kind(s, b, report);
            check_times(s, b, report);
            if (values_are_good)
                check_keep(s, b, report);
            check_not_in_itself(c, s, b, report);
        } else {
            check_mqtt(b, report);
        }
    }
    if (last_worker)
        check_workers_differ(c, last_worker, report);
}
