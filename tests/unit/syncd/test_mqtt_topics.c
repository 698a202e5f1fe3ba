/* What is published, against Home Assistant's documented schema of a device discovery and against
 * Pioreactor's topics. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"
#include "syncd/base/err.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/mqtt_topics.h"

static struct conf *conf_of(const char *text)
{
    struct conf *c = NULL;
    struct err e = ERR_INIT;
    if (conf_parse("test.conf", text, strlen(text), &c, NULL, &e))
        fail_msg("%s", e.message);
    return c;
}

static struct conf *usual(void)
{
    return conf_of("name = \"leader-1\"\n"
                   "worker \"w1\" { url = \"file:///mnt/a\" }\n"
                   "worker \"w-2\" { url = \"file:///mnt/b\" }\n"
                   "source \"db\" { path = \"/srv/db\" every = \"1h\" }\n"
                   "source \"my-files\" { path = \"/srv/files\" every = \"1h\" }\n"
                   "mqtt { host = \"localhost\" homeassistant = true }\n");
}

static void assert_text(char *got, const char *want)
{
    assert_non_null(got);
    assert_string_equal(got, want);
    free(got);
}

static bool is_one_of(const char *word, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(word, *list) == 0)
            return true;
    return false;
}

static const char *text(const json_t *o, const char *key)
{
    const char *v = json_string_value(json_object_get(o, key));
    if (!v)
        fail_msg("no text at '%s'", key);
    return v;
}

/* ---- the schema ---- */

static void check_keys(const json_t *o, const char *const *allowed)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)o, key, value)
    {
        if (!is_one_of(key, allowed))
            fail_msg("Home Assistant does not know '%s' there", key);
        assert_non_null(value);
    }
}

static void check_component(const char *key, const json_t *o)
{
    static const char *const of_any[] = {"platform",
                                         "unique_id",
                                         "default_entity_id",
                                         "name",
                                         "device_class",
                                         "state_topic",
                                         "value_template",
                                         "expire_after",
                                         "unit_of_measurement",
                                         "state_class",
                                         NULL};
    static const char *const sensor_classes[] = {"timestamp", "data_size", "duration", NULL};
    check_keys(o, of_any);
    const char *platform = text(o, "platform"), *class = text(o, "device_class");
    bool is_sensor = strcmp(platform, "sensor") == 0;
    if (is_sensor)
        assert_true(is_one_of(class, sensor_classes));
    else
        assert_string_equal(class, "problem");
    assert_string_equal(is_sensor ? "sensor" : "binary_sensor", platform);
    /* Units belong to these classes only; a timestamp must have neither unit nor state class. */
    const json_t *unit = json_object_get(o, "unit_of_measurement");
    const char *want = strcmp(class, "data_size") == 0  ? "B"
                       : strcmp(class, "duration") == 0 ? "s"
                                                        : NULL;
    assert_true(want ? unit && strcmp(json_string_value(unit), want) == 0 : !unit);
    assert_true(!want == !json_object_get(o, "state_class"));
    assert_string_equal(text(o, "unique_id"), key);
    assert_int_equal(json_integer_value(json_object_get(o, "expire_after")), 900);
    const char *id = text(o, "default_entity_id");
    assert_int_equal(strncmp(id, platform, strlen(platform)), 0);
    for (const char *p = id + strlen(platform) + 1; *p; p++)
        if (!islower((unsigned char)*p) && !isdigit((unsigned char)*p) && *p != '_')
            fail_msg("'%s' is no entity id", id);
    const char *template = text(o, "value_template");
    assert_int_equal(strncmp(template, "{{ ", 3), 0);
    assert_null(strchr(template, '%'));
}

static void discovery_follows_the_schema(void **state)
{
    (void)state;
    static const char *const of_device[] = {"identifiers", "name", "manufacturer", "sw_version",
                                            NULL};
    static const char *const of_origin[] = {"name", "sw_version", NULL};
    static const char *const of_all[] = {"device",
                                         "origin",
                                         "components",
                                         "availability_topic",
                                         "payload_available",
                                         "payload_not_available",
                                         "qos",
                                         NULL};
    struct conf *c = usual();
    json_t *o = mqtt_discovery(c);
    assert_non_null(o);
    check_keys(o, of_all);
    check_keys(json_object_get(o, "device"), of_device);
    check_keys(json_object_get(o, "origin"), of_origin);
    assert_true(json_array_size(json_object_get(json_object_get(o, "device"), "identifiers")) == 1);
    text(json_object_get(o, "origin"), "name");
    const char *key;
    json_t *component;
    size_t problems = 0;
    json_object_foreach(json_object_get(o, "components"), key, component)
    {
        check_component(key, component);
        problems += strcmp(text(component, "device_class"), "problem") == 0;
    }
    /* Per source five, and one per worker; of those 1 + 2 are problems. */
    assert_int_equal(json_object_size(json_object_get(o, "components")), 2 * (5 + 2));
    assert_int_equal(problems, 2 * (1 + 2));
    json_decref(o);
    conf_free(c);
}

static void components_point_at_the_states(void **state)
{
    (void)state;
    struct conf *c = usual();
    json_t *o = mqtt_discovery(c), *components = json_object_get(o, "components");
    const json_t *of_db = json_object_get(components, "syncd_leader-1_db_as_of");
    assert_string_equal(text(of_db, "state_topic"), "syncd/leader-1/db/state");
    const json_t *of_worker = json_object_get(components, "syncd_leader-1_my-files_w-2_problem");
    assert_string_equal(text(of_worker, "state_topic"), "syncd/leader-1/my-files/state");
    assert_non_null(strstr(text(of_worker, "value_template"), "'name', 'eq', 'w-2'"));
    assert_string_equal(text(o, "availability_topic"), "syncd/leader-1/availability");
    json_decref(o);
    conf_free(c);
}

static void topics_are_those_of_the_contract(void **state)
{
    (void)state;
    struct conf *c = usual();
    assert_text(mqtt_topic_availability(c), "syncd/leader-1/availability");
    assert_text(mqtt_topic_state(c, "db"), "syncd/leader-1/db/state");
    assert_text(mqtt_topic_discovery(c), "homeassistant/device/syncd_leader-1/config");
    assert_text(mqtt_topic_birth(c), "homeassistant/status");
    assert_text(pioreactor_topic(c, "$state"), "pioreactor/leader-1/$experiment/syncd/$state");
    assert_text(pioreactor_topic_log(c, LOG_LEVEL_WARNING),
                "pioreactor/leader-1/$experiment/logs/syncd/warning");
    conf_free(c);
}

static void pioreactor_log_lines_have_its_keys(void **state)
{
    (void)state;
    static const char *const keys[] = {"message", "task", "source", "level", "timestamp", NULL};
    json_t *o = pioreactor_log("worker \"w1\" is away", LOG_LEVEL_WARNING, 1792000000000000);
    assert_int_equal(json_object_size(o), 5);
    check_keys(o, keys);
    assert_string_equal(text(o, "message"), "worker \"w1\" is away");
    assert_string_equal(text(o, "level"), "WARNING");
    assert_string_equal(text(o, "timestamp"), "2026-10-14T17:46:40Z");
    json_decref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(discovery_follows_the_schema),
        cmocka_unit_test(components_point_at_the_states),
        cmocka_unit_test(topics_are_those_of_the_contract),
        cmocka_unit_test(pioreactor_log_lines_have_its_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
