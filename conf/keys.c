#include "conf/keys.h"

#include <string.h>

#include "conf/conf.h"
#include "syncd/base/mem.h"
#include "syncd/base/nearest.h"

#define STRUCT_GLOBAL struct conf
#define STRUCT_WORKER struct conf_worker
#define STRUCT_SOURCE struct conf_source
#define STRUCT_MQTT struct conf_mqtt

#define KEY(section, key, type, field, default_text, explanation)                                  \
    {CONF_##section, #key,       CONF_TYPE_##type, offsetof(STRUCT_##section, field),              \
     default_text,   explanation},
const struct conf_key conf_keys[CONF_KEY_COUNT] = {
#include "conf/keys.def"
};
#undef KEY

static const char *const section_words[CONF_SECTION_COUNT] = {"", "worker", "source", "mqtt"};

static const struct {
    enum conf_shape shape;
    const char *expected;
} types[CONF_TYPE_COUNT] = {
#define X(type, shape, expected) {shape, expected},
    CONF_TYPE_TABLE(X)
#undef X
};

const char *conf_section_word(enum conf_section section)
{
    return section_words[section];
}

enum conf_shape conf_type_shape(enum conf_type type)
{
    return types[type].shape;
}

const char *conf_type_expected(enum conf_type type)
{
    return types[type].expected;
}

static bool is_word(const char *word, const char *name, size_t len)
{
    return strlen(word) == len && memcmp(word, name, len) == 0;
}

int conf_key_find(enum conf_section section, const char *name, size_t len)
{
    for (int i = 0; i < CONF_KEY_COUNT; i++)
        if (conf_keys[i].section == section && is_word(conf_keys[i].name, name, len))
            return i;
    return -1;
}

int conf_section_find(const char *word, size_t len)
{
    for (int i = CONF_WORKER; i < CONF_SECTION_COUNT; i++)
        if (is_word(section_words[i], word, len))
            return i;
    return -1;
}

const char *conf_key_nearest(enum conf_section section, const char *name, size_t len)
{
    char typed[NEAREST_MAX + 1];
    if (len > NEAREST_MAX)
        return NULL;
    memcpy(typed, name, len);
    typed[len] = '\0';
    struct nearest n = nearest_start(typed);
    for (int i = 0; i < CONF_KEY_COUNT; i++)
        if (conf_keys[i].section == section)
            nearest_offer(&n, conf_keys[i].name);
    for (int i = CONF_WORKER; section == CONF_GLOBAL && i < CONF_SECTION_COUNT; i++)
        nearest_offer(&n, section_words[i]);
    return n.best;
}
