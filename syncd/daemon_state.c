/* What the daemon tells the world of its sources: the states, over MQTT and to on_change. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/preset.h"
#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/daemon_internal.h"
#include "syncd/freshness.h"
#include "syncd/hooks.h"
#include "syncd/job_times.h"
#include "syncd/jobs.h"
#include "syncd/mqtt.h"
#include "syncd/mqtt_topics.h"
#include "syncd/report.h"

#define ANEW_EVERY_US (300 * US_PER_S)
#define METRICS_EVERY_US (3600 * US_PER_S)

/* ---- on_change ---- */

static void on_hook_done(void *arg, const struct job_result *r)
{
    struct daemon_hook *h = arg;
    if (r->timed_out)
        log_msg(LOG_LEVEL_WARNING, "on_change of %s did not end in time", h->source);
    else if (r->exit_code)
        log_msg(LOG_LEVEL_WARNING, "on_change of %s failed (%d)", h->source, r->exit_code);
    h->job = NULL;
}

static void run_on_change(struct daemon *d, const struct conf_source *s,
                          const struct freshness *now)
{
    struct daemon_hook *h = NULL;
    struct err e = ERR_INIT;
    if (!s->on_change || !s->on_change[0])
        return;
    for (size_t i = 0; i < DAEMON_HOOKS_MAX && !h; i++)
        if (!d->hooks[i].job)
            h = &d->hooks[i];
    struct hook_facts f = {.source = s->name,
                           .state = freshness_state_name(now->state),
                           .error = now->has_run ? now->run.error : NULL,
                           .as_of_us = now->as_of_us};
    char **environment = hooks_environment(&f);
    int rc = h && environment ? 0 : err_nomem(&e);
    if (rc == 0) {
        snprintf(h->source, sizeof h->source, "%s", s->name);
        struct job_params p = {.program = s->on_change[0],
                               .argv = (const char *const *)(uintptr_t)s->on_change,
                               .environment = (const char *const *)(uintptr_t)environment,
                               .config_fd = -1,
                               .timeout_us = s->hook_timeout_s * US_PER_S,
                               .done = on_hook_done,
                               .arg = h};
        rc = job_start(d->event, &p, &h->job, &e);
    }
    hooks_environment_free(environment);
    if (rc) {
        err_prefix(&e, "on_change of %s", s->name);
        log_err(LOG_LEVEL_WARNING, &e);
    }
}

/* ---- MQTT ---- */

static bool is_pioreactor(const struct conf_source *s)
{
    return s->known && s->known->dialect == PRESET_DIALECT_PIOREACTOR;
}

/* Publishes a payload under a topic; both are freed. Without memory the next look tries again. */
static void publish(struct mqtt *m, char *topic, char *payload, bool anew)
{
    OWN_MEM char *owned_topic __attribute__((unused)) = topic;
    OWN_MEM char *owned_payload __attribute__((unused)) = payload;
    if (!m || !topic || !payload)
        return;
    if (anew)
        mqtt_publish_anew(m, topic, payload, NULL);
    else
        mqtt_publish(m, topic, payload, NULL);
}

/* Each setting of a source; without a state they are no more. */
static void publish_pioreactor(struct daemon *d, const struct conf *c, const char *source,
                               const json_t *state, bool anew)
{
    static const char *const settings[] = {"state", "as_of", "fresh_until", "last_result", "error"};
    for (size_t i = 0; d->pioreactor && i < ARRAY_LEN(settings); i++) {
        char name[CONF_NAME_MAX + 16];
        const char *value = json_string_value(json_object_get(state, settings[i]));
        snprintf(name, sizeof name, "%s_%s", source, settings[i]);
        publish(d->pioreactor, pioreactor_topic(c, name),
                strdup(value   ? value
                       : state ? "none"
                               : ""),
                anew);
    }
}

/* The job's own state, once those of its sources are known. */
static void publish_pioreactor_job(struct daemon *d, const struct moment *now)
{
    const char *job = PIOREACTOR_SLEEPING;
    for (size_t i = 0; i < d->conf->source_count; i++) {
        const struct conf_source *s = &d->conf->sources[i];
        if (is_pioreactor(s) && timetable_next_wall(&d->timetable, JOB_BACKUP, s->name, now))
            job = PIOREACTOR_READY;
    }
    publish(d->pioreactor, pioreactor_topic(d->conf, "$state"), strdup(job), false);
}

static void publish_state(struct daemon *d, const struct conf_source *s, const json_t *state,
                          bool anew)
{
    publish(d->mqtt, mqtt_topic_state(d->conf, s->name), json_dumps(state, JSON_COMPACT), anew);
    if (is_pioreactor(s))
        publish_pioreactor(d, d->conf, s->name, state, anew);
}

/* Only what the main thread says: the config is its own, and what a connection says of itself is
 * of no use on it. */
static void on_log_line(void *arg, enum log_level level, const char *line)
{
    struct daemon *d = arg;
    if (level > LOG_LEVEL_NOTICE || gettid() != getpid())
        return;
    OWN_MEM char *topic = pioreactor_topic_log(d->conf, (int)level);
    json_t *o = pioreactor_log(line, (int)level, clock_now_us());
    OWN_MEM char *payload = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (topic && payload)
        mqtt_tell(d->pioreactor, topic, payload);
}

static int start_one(const struct conf *c, const char *kind, char *alive_topic, const char *alive,
                     const char *goodbye, const char *will, const char *birth_topic,
                     struct mqtt **ret, struct err *e)
{
    OWN_MEM char *owned_topic __attribute__((unused)) = alive_topic;
    char client_id[CONF_NAME_MAX + 64];
    uint32_t random;
    io_random(&random, sizeof random);
    snprintf(client_id, sizeof client_id, "%s-%s-%08" PRIx32, kind, c->name, random);
    struct mqtt_options o = {.host = c->mqtt.host,
                             .port = c->mqtt.port,
                             .username = c->mqtt.username,
                             .password_file = c->mqtt.password_file,
                             .ca_file = c->mqtt.ca_file,
                             .cert_file = c->mqtt.cert_file,
                             .key_file = c->mqtt.key_file,
                             .client_id = client_id,
                             .alive_topic = alive_topic,
                             .alive = alive,
                             .will = will,
                             .goodbye = goodbye,
                             .birth_topic = birth_topic};
    return alive_topic ? mqtt_start(&o, ret, e) : err_nomem(e);
}

static void announce(struct daemon *d)
{
    if (!d->conf->mqtt.homeassistant)
        return;
    json_t *o = mqtt_discovery(d->conf);
    publish(d->mqtt, mqtt_topic_discovery(d->conf), o ? json_dumps(o, JSON_COMPACT) : NULL, false);
    json_decref(o);
}

int daemon_start_mqtt(struct daemon *d, struct err *e)
{
    const struct conf *c = d->conf;
    bool pioreactor = false;
    if (!c->mqtt.given)
        return 0;
    OWN_MEM char *birth = c->mqtt.homeassistant ? mqtt_topic_birth(c) : NULL;
    int rc = start_one(c, "syncd", mqtt_topic_availability(c), MQTT_ONLINE, MQTT_OFFLINE,
                       MQTT_OFFLINE, birth, &d->mqtt, e);
    if (rc)
        return rc;
    announce(d);
    for (size_t i = 0; i < c->source_count; i++)
        pioreactor |= is_pioreactor(&c->sources[i]);
    if (!pioreactor)
        return 0;
    /* A connection has one will, and this dialect wants its own. */
    rc = start_one(c, "syncd-pio", pioreactor_topic(c, "$state"), PIOREACTOR_INIT,
                   PIOREACTOR_DISCONNECTED, PIOREACTOR_LOST, NULL, &d->pioreactor, e);
    if (rc == 0)
        log_set_sink(on_log_line, d);
    return rc;
}

void daemon_stop_mqtt(struct daemon *d)
{
    log_set_sink(NULL, NULL);
    mqtt_stop(TAKE_PTR(d->pioreactor));
    mqtt_stop(TAKE_PTR(d->mqtt));
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* Whether the connections may stay as they are under a new config. */
static bool same_mqtt(const struct conf *a, const struct conf *b)
{
    const struct conf_mqtt *x = &a->mqtt, *y = &b->mqtt;
    bool same = x->given == y->given && x->port == y->port &&
                x->homeassistant == y->homeassistant && same_text(a->name, b->name) &&
                same_text(x->host, y->host) && same_text(x->username, y->username) &&
                same_text(x->password_file, y->password_file) &&
                same_text(x->ca_file, y->ca_file) && same_text(x->cert_file, y->cert_file) &&
                same_text(x->key_file, y->key_file) && same_text(x->topic, y->topic) &&
                same_text(x->discovery_prefix, y->discovery_prefix);
    bool was = false, is = false;
    for (size_t i = 0; i < a->source_count; i++)
        was |= is_pioreactor(&a->sources[i]);
    for (size_t i = 0; i < b->source_count; i++)
        is |= is_pioreactor(&b->sources[i]);
    return same && was == is;
}

void daemon_change_mqtt(struct daemon *d, const struct conf *old)
{
    struct err e = ERR_INIT;
    /* A source that is gone leaves no retained state behind. */
    for (size_t i = 0; d->mqtt && i < old->source_count; i++) {
        const struct conf_source *was = &old->sources[i];
        const struct conf_source *is = conf_find_source(d->conf, was->name);
        if (!is)
            publish(d->mqtt, mqtt_topic_state(old, was->name), strdup(""), false);
        if (is_pioreactor(was) && !(is && is_pioreactor(is)))
            publish_pioreactor(d, old, was->name, NULL, false);
    }
    if (same_mqtt(old, d->conf)) {
        if (d->mqtt)
            announce(d);
        return;
    }
    daemon_stop_mqtt(d);
    if (daemon_start_mqtt(d, &e))
        log_err(LOG_LEVEL_WARNING, &e);
}

/* ---- the states ---- */

static struct daemon_state *state_of(struct daemon *d, const char *source)
{
    for (size_t i = 0; i < d->state_count; i++)
        if (strcmp(d->states[i].source, source) == 0)
            return &d->states[i];
    if (mem_grow(&d->states, &d->state_cap, d->state_count + 1, sizeof *d->states))
        return NULL;
    struct daemon_state *s = &d->states[d->state_count++];
    *s = (struct daemon_state){0};
    snprintf(s->source, sizeof s->source, "%s", source);
    return s;
}

/* What was told last is kept beyond this daemon: a change while none ran is one, too. */
static void tell_change(struct daemon *d, const struct conf_source *s, const struct freshness *f,
                        const char *word)
{
    struct err ignored = ERR_INIT;
    const char *before = job_times_state(d->times, s->name);
    if (strcmp(before, word) == 0)
        return;
    if (*before)
        run_on_change(d, s, f);
    job_times_set_state(d->times, d->conf->state_dir, s->name, word, &ignored);
}

/* What its last backup left to say, also where the catalog could not take it. */
static void add_note(const struct daemon *d, struct freshness *f)
{
    for (size_t i = 0; i < d->note_count; i++)
        if (d->notes[i].kind == JOB_BACKUP && d->notes[i].text &&
            strcmp(d->notes[i].source, f->source) == 0)
            snprintf(f->run.error, sizeof f->run.error, "%s", d->notes[i].text);
}

/* When what is said now will no longer be so, without anything having happened. */
static int64_t turns_us(const struct freshness *f, int64_t now_us)
{
    int64_t next_us = INT64_MAX;
    for (size_t i = 0; i < f->worker_count; i++)
        if (f->workers[i].fresh_until_us > now_us)
            next_us = MIN(next_us, f->workers[i].fresh_until_us);
    return next_us;
}

static void look_at(struct daemon *d, const struct conf_source *s, struct freshness *f,
                    const struct moment *now)
{
    struct daemon_state *known = state_of(d, s->name);
    json_t *state = NULL;
    f->running = daemon_has_job(d, JOB_BACKUP, s->name);
    f->next_run_us = timetable_next_wall(&d->timetable, JOB_BACKUP, s->name, now);
    f->clock_doubtful = d->clock != CLOCK_BELIEVED;
    add_note(d, f);
    freshness_judge(f, now->wall_us);
    d->newest_us = MAX(d->newest_us, freshness_newest_us(f));
    d->turns_us = MIN(d->turns_us, turns_us(f, now->wall_us));
    if (!known || !(state = freshness_json(f)))
        return; /* what was said last stays, and runs out by its fresh_until */
    const char *word = freshness_state_name(f->state);
    bool anew = now->elapsed_us - known->told_elapsed_us >= ANEW_EVERY_US;
    if (anew)
        known->told_elapsed_us = now->elapsed_us;
    publish_state(d, s, state, anew);
    tell_change(d, s, f, word);
    json_decref(state);
}

/* After each change, and now and then: who collects it must see that we live. */
static void write_metrics(struct daemon *d, const struct freshness *all, size_t count,
                          const struct moment *now)
{
    OWN_BUF struct buf b = BUF_INIT;
    struct err e = ERR_INIT;
    size_t running = daemon_count_jobs(d);
    bool ended = running < d->metrics_jobs;
    d->metrics_jobs = running;
    if (!d->conf->prometheus_file || (!ended && d->metrics_elapsed_us &&
                                      now->elapsed_us - d->metrics_elapsed_us < METRICS_EVERY_US))
        return;
    d->metrics_elapsed_us = now->elapsed_us;
    freshness_prometheus(all, count, now->wall_us, &b);
    int rc =
        b.bad ? err_nomem(&e) : io_replace_file(d->conf->prometheus_file, b.data, b.len, 0644, &e);
    if (rc && !d->metrics_failed)
        log_err(LOG_LEVEL_WARNING, &e);
    d->metrics_failed = rc != 0;
}

void daemon_tell_states(struct daemon *d)
{
    struct catalog *c = NULL;
    struct err e = ERR_INIT;
    struct moment now = daemon_now();
    size_t count = d->conf->source_count;
    OWN_MEM struct freshness *all = mem_alloc(count, sizeof *all);
    d->turns_us = INT64_MAX;
    int rc = catalog_open_readonly(d->conf->state_dir, &c, &e);
    if (!all || (rc && rc != ERR_NOT_FOUND))
        return; /* not known just now: nothing is said */
    rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = freshness_from_catalog(d->conf, &d->conf->sources[i], c, &all[i], &e);
    catalog_close(c);
    d->newest_us = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        look_at(d, &d->conf->sources[i], &all[i], &now);
    if (rc == 0)
        publish_pioreactor_job(d, &now);
    if (rc == 0)
        write_metrics(d, all, count, &now);
}

void daemon_free_states(struct daemon *d)
{
    for (size_t i = 0; i < DAEMON_HOOKS_MAX; i++)
        if (d->hooks[i].job)
            job_abandon(TAKE_PTR(d->hooks[i].job));
    free(d->states);
}
