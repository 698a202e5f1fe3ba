#include "conf/keys.h"

#include <string.h>

#include "conf/conf.h"
#include "syncd/base/mem.h"

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

#define NEAREST_MAX 32

/* How many letters have to be put in, left out, changed or swapped with a neighbour to get from
 * one word to the other (optimal string alignment). */
static unsigned distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    unsigned d[NEAREST_MAX + 1][NEAREST_MAX + 1];
    for (size_t i = 0; i <= a_len; i++)
        d[i][0] = (unsigned)i;
    for (size_t j = 0; j <= b_len; j++)
        d[0][j] = (unsigned)j;
    for (size_t i = 1; i <= a_len; i++)
        for (size_t j = 1; j <= b_len; j++) {
            unsigned best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            best = MIN(best, d[i - 1][j] + 1);
            best = MIN(best, d[i][j - 1] + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = MIN(best, d[i - 2][j - 2] + 1);
            d[i][j] = best;
        }
    return d[a_len][b_len];
}

static void consider(const char *word, const char *name, size_t len, unsigned *best,
                     const char **ret)
{
    size_t word_len = strlen(word);
    if (word_len > NEAREST_MAX)
        return;
    unsigned d = distance(name, len, word, word_len);
    if (d < *best) {
        *best = d;
        *ret = word;
    }
}

const char *conf_key_nearest(enum conf_section section, const char *name, size_t len)
{
    if (len == 0 || len > NEAREST_MAX)
        return NULL;
    const char *found = NULL;
    unsigned best = len <= 3 ? 2 : len <= 6 ? 3 : 4; /* first distance that is too far */
    for (int i = 0; i < CONF_KEY_COUNT; i++)
        if (conf_keys[i].section == section)
            consider(conf_keys[i].name, name, len, &best, &found);
    if (section == CONF_GLOBAL)
        for (int i = CONF_WORKER; i < CONF_SECTION_COUNT; i++)
            consider(section_words[i], name, len, &best, &found);
    return found;
}
