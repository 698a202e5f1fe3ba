#include "syncd/mqtt_topics.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "conf/conf.h"
#include "syncd/base/clock.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/report.h"

#define EXPIRE_AFTER_S 900

__attribute__((format(printf, 1, 2))) static char *text_of(const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    return n < 0 ? NULL : text;
}

char *mqtt_topic_availability(const struct conf *c)
{
    return text_of("%s/%s/availability", c->mqtt.topic, c->name);
}

char *mqtt_topic_state(const struct conf *c, const char *source)
{
    return text_of("%s/%s/%s/state", c->mqtt.topic, c->name, source);
}

/* ---- Home Assistant ---- */

char *mqtt_topic_discovery(const struct conf *c)
{
    return text_of("%s/device/syncd_%s/config", c->mqtt.discovery_prefix, c->name);
}

char *mqtt_topic_birth(const struct conf *c)
{
    return text_of("%s/status", c->mqtt.discovery_prefix);
}

#define OF_WORKER                                                                                  \
    "(value_json.workers | selectattr('name', 'eq', '%s') | map(attribute='state') | first "       \
    "| default('never'))"

/* The one table of entities; a %s in the template is the worker's name. */
static const struct entity {
    const char *key, *name, *platform, *device_class, *unit, *template;
} of_source[] =
    {
        {"problem", "backup", "binary_sensor", "problem", NULL,
         "{{ 'OFF' if value_json.state == 'fresh' else 'ON' }}"},
        {"as_of", "as of", "sensor", "timestamp", NULL, "{{ value_json.as_of }}"},
        {"proven_at", "proven", "sensor", "timestamp", NULL, "{{ value_json.proven_at }}"},
        {"size", "size", "sensor", "data_size", "B", "{{ value_json.size_bytes }}"},
        {"duration", "duration", "sensor", "duration", "s", "{{ value_json.duration_s }}"},
},
  of_worker = {"problem", "backup on", "binary_sensor",
               "problem", NULL,        "{{ 'OFF' if " OF_WORKER " == 'fresh' else 'ON' }}"};

static bool set_text(json_t *o, const char *key, char *text)
{
    OWN_MEM char *owned = text;
    return report_json_set(o, key, owned ? json_string(owned) : NULL);
}

/* Entity ids know no '-'. */
static char *entity_id(const char *platform, const char *id)
{
    char *text = text_of("%s.%s", platform, id);
    for (char *p = text; p && *p; p++)
        if (*p == '-')
            *p = '_';
    return text;
}

/* The template with the worker's name in place of its %s. */
static char *template_of(const struct entity *x, const char *worker)
{
    const char *hole = strstr(x->template, "%s");
    if (!hole || !worker)
        return text_of("%s", x->template);
    return text_of("%.*s%s%s", (int)(hole - x->template), x->template, worker, hole + 2);
}

static bool add_entity(json_t *components, const struct conf *c, const char *source,
                       const struct entity *x, const char *worker)
{
    json_t *o = json_object();
    const char *sep = worker ? "_" : "", *name = worker ? worker : "";
    OWN_MEM char *id = text_of("syncd_%s_%s%s%s_%s", c->name, source, sep, name, x->key);
    bool ok = id && report_json_set(o, "platform", json_string(x->platform)) &&
              report_json_set(o, "unique_id", json_string(id)) &&
              set_text(o, "default_entity_id", entity_id(x->platform, id)) &&
              set_text(o, "name", text_of("%s %s%s%s", source, x->name, worker ? " " : "", name)) &&
              report_json_set(o, "device_class", json_string(x->device_class)) &&
              set_text(o, "state_topic", mqtt_topic_state(c, source)) &&
              set_text(o, "value_template", template_of(x, worker)) &&
              report_json_set(o, "expire_after", json_integer(EXPIRE_AFTER_S));
    if (ok && x->unit)
        ok = report_json_set(o, "unit_of_measurement", json_string(x->unit)) &&
             report_json_set(o, "state_class", json_string("measurement"));
    if (!ok) {
        json_decref(o);
        return false;
    }
    return report_json_set(components, id, o);
}

static bool add_source(json_t *components, const struct conf *c, const char *source)
{
    bool ok = true;
    for (size_t i = 0; ok && i < ARRAY_LEN(of_source); i++)
        ok = add_entity(components, c, source, &of_source[i], NULL);
    for (size_t i = 0; ok && i < c->worker_count; i++)
        ok = add_entity(components, c, source, &of_worker, c->workers[i].name);
    return ok;
}

json_t *mqtt_discovery(const struct conf *c)
{
    json_t *o = json_object(), *components = json_object();
    OWN_MEM char *id = text_of("syncd_%s", c->name);
    OWN_MEM char *name = text_of("syncd %s", c->name);
    bool ok = o && components && id && name;
    for (size_t i = 0; ok && i < c->source_count; i++)
        ok = add_source(components, c, c->sources[i].name);
    ok = ok &&
         report_json_set(o, "device",
                         json_pack("{s:[s],s:s,s:s,s:s}", "identifiers", id, "name", name,
                                   "manufacturer", "syncd", "sw_version", SYNCD_VERSION)) &&
         report_json_set(o, "origin",
                         json_pack("{s:s,s:s}", "name", "syncd", "sw_version", SYNCD_VERSION)) &&
         set_text(o, "availability_topic", mqtt_topic_availability(c)) &&
         report_json_set(o, "payload_available", json_string(MQTT_ONLINE)) &&
         report_json_set(o, "payload_not_available", json_string(MQTT_OFFLINE)) &&
         report_json_set(o, "qos", json_integer(1)) &&
         report_json_set(o, "components", json_incref(components));
    json_decref(components);
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

/* ---- Pioreactor ---- */

char *pioreactor_topic(const struct conf *c, const char *setting)
{
    return text_of("pioreactor/%s/$experiment/syncd/%s", c->name, setting);
}

static const char *pioreactor_level(int log_level)
{
    return log_level <= LOG_LEVEL_ERROR     ? "ERROR"
           : log_level == LOG_LEVEL_WARNING ? "WARNING"
                                            : "NOTICE";
}

char *pioreactor_topic_log(const struct conf *c, int log_level)
{
    char *topic =
        text_of("pioreactor/%s/$experiment/logs/syncd/%s", c->name, pioreactor_level(log_level));
    for (char *p = topic ? strrchr(topic, '/') : NULL; p && *p; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p - 'A' + 'a');
    return topic;
}

json_t *pioreactor_log(const char *text, int log_level, int64_t now_us)
{
    char at[CLOCK_TEXT_SIZE];
    clock_rfc3339(now_us, at);
    return json_pack("{s:o,s:s,s:s,s:s,s:s}", "message", report_json_text(text), "task", "syncd",
                     "source", "syncd", "level", pioreactor_level(log_level), "timestamp", at);
}
