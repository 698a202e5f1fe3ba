#include "conf/value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"
#include "conf/schedule.h"
#include "conf/text.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

static void *field_of(const struct conf_key *key, void *base)
{
    return (char *)base + key->offset;
}

static int expected(const struct conf_key *key, const char *found, struct err *e)
{
    return err_set(e, ERR_CONFIG, NULL, "found \"%.100s\", expected %s", found,
                   conf_type_expected(key->type));
}

static int check_schedule(const char *s, struct err *e)
{
    struct schedule unused;
    return schedule_parse(s, &unused, e);
}

static int any_text(const char *s, struct err *e)
{
    (void)s;
    (void)e;
    return 0;
}

/* How one string of that type is checked; NULL for types that are no plain strings. */
static int (*const checks[CONF_TYPE_COUNT])(const char *, struct err *) = {
    [CONF_TYPE_NAME] = text_check_name,
    [CONF_TYPE_PATH] = text_check_path,
    [CONF_TYPE_LEVEL] = text_check_log_level,
    [CONF_TYPE_URL] = text_check_url,
    [CONF_TYPE_PRESET] = text_check_preset,
    [CONF_TYPE_PATHS] = text_check_path,
    [CONF_TYPE_GLOBS] = any_text,
    [CONF_TYPE_WORDS] = text_check_schema,
    [CONF_TYPE_ARGV] = any_text,
    [CONF_TYPE_CONNINFO] = text_check_conninfo,
    [CONF_TYPE_SCHEDULE] = check_schedule,
    [CONF_TYPE_WORD] = text_check_word,
    [CONF_TYPE_TOPIC] = text_check_topic,
};

static int copy_text(const struct conf_key *key, const char *text, char **ret, struct err *e)
{
    int rc = checks[key->type](text, e);
    if (rc)
        return rc;
    char *copy = strdup(text);
    if (!copy)
        return err_nomem(e);
    if (key->type == CONF_TYPE_PATH || key->type == CONF_TYPE_PATHS)
        text_tidy_path(copy);
    *ret = copy;
    return 0;
}

static int set_free(struct conf_worker *w, const char *text, struct err *e)
{
    size_t len = strlen(text);
    if (len == 0 || text[len - 1] != '%') {
        uint64_t bytes;
        if (conf_parse_size(text, &bytes, NULL))
            return err_set(
                e, ERR_CONFIG, NULL,
                "found \"%.60s\", expected percent or a size, such as \"10%%\" or \"2G\"", text);
        if (bytes > 0 && bytes < 1024)
            return err_set(e, ERR_CONFIG, NULL,
                           "found \"%.60s\" (bytes), expected a unit: \"%.60s%%\" or \"%.60sG\"?",
                           text, text, text);
        w->min_free = bytes;
        w->min_free_is_percent = false;
        return 0;
    }
    bool one = len == 2 && text[0] >= '0' && text[0] <= '9';
    bool two = len == 3 && text[0] >= '1' && text[0] <= '9' && text[1] >= '0' && text[1] <= '9';
    if (!one && !two)
        return err_set(e, ERR_CONFIG, NULL, "found \"%.60s\", expected \"0%%\" to \"99%%\"", text);
    w->min_free = one ? (uint64_t)(text[0] - '0')
                      : (uint64_t)(text[0] - '0') * 10 + (uint64_t)(text[1] - '0');
    w->min_free_is_percent = true;
    return 0;
}

int value_set_string(const struct conf_key *key, void *base, const char *text, struct err *e)
{
    int64_t duration;
    int rc;
    if (text[0] == '\0')
        return err_set(e, ERR_CONFIG, NULL, "found \"\", expected %s (or leave the key out)",
                       conf_type_expected(key->type));
    switch (key->type) {
    case CONF_TYPE_DURATION:
    case CONF_TYPE_INTERVAL:
        rc = conf_parse_duration(text, &duration, e);
        if (rc)
            return rc;
        if (duration == 0 && key->type == CONF_TYPE_INTERVAL)
            return expected(key, text, e);
        *(int64_t *)field_of(key, base) = duration;
        return 0;
    case CONF_TYPE_RATE:
        return conf_parse_size(text, field_of(key, base), e);
    case CONF_TYPE_FREE:
        return set_free(base, text, e);
    default:
        return copy_text(key, text, field_of(key, base), e);
    }
}

static void free_list(conf_list *list)
{
    for (size_t i = 0; *list && (*list)[i]; i++)
        free((*list)[i]);
    free(*list);
    *list = NULL;
}

static int check_item(const struct conf_key *key, conf_list list, size_t at, struct err *e)
{
    if (list[at][0] == '\0' && (key->type != CONF_TYPE_ARGV || at == 0))
        return err_set(e, ERR_CONFIG, NULL, "found \"\" in the list, expected %s",
                       conf_type_expected(key->type));
    for (size_t i = 0; i < at && key->type != CONF_TYPE_ARGV; i++)
        if (strcmp(list[i], list[at]) == 0)
            return err_set(e, ERR_CONFIG, NULL, "found \"%.100s\" twice, expected it once",
                           list[at]);
    return 0;
}

/* A hook: the program by its absolute path or by name, and not a whole command line in one. */
static int check_argv(conf_list list, struct err *e)
{
    if (!list[0])
        return 0;
    if (!list[1] && strpbrk(list[0], " \t"))
        return err_set(e, ERR_CONFIG, NULL,
                       "found {\"%.60s\"}, expected each argument by itself, as in {\"systemctl\", "
                       "\"stop\", \"x\"} (no shell reads this)",
                       list[0]);
    if (list[0][0] != '/' && strchr(list[0], '/'))
        return err_set(e, ERR_CONFIG, NULL,
                       "found \"%.100s\", expected a program's absolute path, or its name alone",
                       list[0]);
    return 0;
}

#define LIST_LIMIT 4096

int value_set_list(const struct conf_key *key, void *base, const char *const *items, size_t count,
                   struct err *e)
{
    CLEANUP(free_list) conf_list list = NULL;
    if (count > LIST_LIMIT)
        return err_set(e, ERR_CONFIG, NULL, "found %zu strings, expected at most %d", count,
                       LIST_LIMIT);
    if (count == 0 && (key->type == CONF_TYPE_PATHS || key->type == CONF_TYPE_WORDS))
        return err_set(e, ERR_CONFIG, NULL, "found an empty list, expected at least one string");
    list = mem_alloc(count + 1, sizeof *list);
    if (!list)
        return err_nomem(e);
    for (size_t i = 0; i < count; i++) {
        int rc = copy_text(key, items[i], &list[i], e);
        if (rc == 0)
            rc = check_item(key, list, i, e);
        if (rc)
            return rc;
    }
    int rc = key->type == CONF_TYPE_ARGV ? check_argv(list, e) : 0;
    if (rc)
        return rc;
    *(conf_list *)field_of(key, base) = TAKE_PTR(list);
    return 0;
}

int value_set_number(const struct conf_key *key, void *base, long number, struct err *e)
{
    long low = key->type == CONF_TYPE_PORT ? 1 : 0;
    long high = key->type == CONF_TYPE_PORT ? 65535 : 100000;
    if (key->type == CONF_TYPE_BOOL) {
        *(bool *)field_of(key, base) = number != 0;
        return 0;
    }
    if (number < low || number > high)
        return err_set(e, ERR_CONFIG, NULL, "found %ld, expected an integer from %ld to %ld",
                       number, low, high);
    if (key->type == CONF_TYPE_PORT)
        *(uint16_t *)field_of(key, base) = (uint16_t)number;
    else
        *(uint32_t *)field_of(key, base) = (uint32_t)number;
    return 0;
}

void value_free_section(enum conf_section section, void *base)
{
    for (size_t i = 0; i < CONF_KEY_COUNT; i++) {
        const struct conf_key *key = &conf_keys[i];
        enum conf_shape shape = conf_type_shape(key->type);
        if (key->section != section)
            continue;
        if (shape == CONF_LIST || shape == CONF_STRING_OR_LIST)
            free_list(field_of(key, base));
        else if (shape == CONF_STRING && checks[key->type])
            mem_freep(field_of(key, base));
    }
}
