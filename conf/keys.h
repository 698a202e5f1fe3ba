/* The table of config keys (keys.def) as data: for the reader, and for help and manual. */
#ifndef SYNCD_CONF_KEYS_H
#define SYNCD_CONF_KEYS_H

#include <stddef.h>

enum conf_section { CONF_GLOBAL, CONF_WORKER, CONF_SOURCE, CONF_MQTT, CONF_SECTION_COUNT };

/* How a value is written in the file. */
enum conf_shape {
    CONF_STRING,         /* "..." */
    CONF_LIST,           /* {"...", "..."} */
    CONF_STRING_OR_LIST, /* either */
    CONF_INTEGER,        /* 4 */
    CONF_BOOL            /* true, false */
};

/* X(type, shape, what a message says was expected) */
#define CONF_TYPE_TABLE(X)                                                                         \
    X(NAME, CONF_STRING, "a name of up to 32 of a-z 0-9 _ -, such as \"leader\"")                  \
    X(PATH, CONF_STRING, "an absolute path, such as \"/var/lib/syncd\"")                           \
    X(LEVEL, CONF_STRING, "\"error\", \"warning\", \"notice\", \"info\" or \"debug\"")             \
    X(URL, CONF_STRING, "a URL such as \"sftp://user@host/~/syncd\" or \"file:///mnt/usb/syncd\"") \
    X(RATE, CONF_STRING, "a size per second such as \"2M\"")                                       \
    X(FREE, CONF_STRING, "percent or a size, such as \"10%\" or \"2G\"")                           \
    X(PRESET, CONF_STRING, "\"pioreactor\", \"piri\" or \"bacalhau\"")                             \
    X(PATHS, CONF_STRING_OR_LIST, "an absolute path, or a list such as {\"/a\", \"/b\"}")          \
    X(GLOBS, CONF_STRING_OR_LIST, "a string or a list such as {\"*.tmp\", \"cache\"}")             \
    X(WORDS, CONF_STRING_OR_LIST, "a string or a list such as {\"public\", \"audit\"}")            \
    X(ARGV, CONF_LIST, "a list of a program and its arguments, such as {\"logger\", \"hello\"}")   \
    X(BOOL, CONF_BOOL, "true or false, without quotes")                                            \
    X(CONNINFO, CONF_STRING, "a connection string such as \"host=/run/postgresql dbname=piri\"")   \
    X(INTERVAL, CONF_STRING, "a duration above 0, such as \"15m\"")                                \
    X(DURATION, CONF_STRING, "a duration such as \"7d\"")                                          \
    X(SCHEDULE, CONF_STRING, "five cron fields, such as \"30 2 * * *\"")                           \
    X(NUMBER, CONF_INTEGER, "an integer without quotes, 0 to 100000, such as 4")                   \
    X(PORT, CONF_INTEGER, "an integer without quotes, 1 to 65535, such as 1883")                   \
    X(WORD, CONF_STRING, "a string in quotes without blanks")                                      \
    X(TOPIC, CONF_STRING, "a topic such as \"syncd\" or \"home/backup\"")

#define CONF_TYPE_ENUM(type, shape, expected) CONF_TYPE_##type,
enum conf_type { CONF_TYPE_TABLE(CONF_TYPE_ENUM) CONF_TYPE_COUNT };
#undef CONF_TYPE_ENUM

/* CONF_KEY_SOURCE_every and so on: the index in conf_keys. */
#define KEY(section, key, type, field, default_text, explanation) CONF_KEY_##section##_##key,
enum conf_key_id {
#include "conf/keys.def"
    CONF_KEY_COUNT
};
#undef KEY

struct conf_key {
    enum conf_section section;
    const char *name;
    enum conf_type type;
    size_t offset;            /* of its field in the section's struct */
    const char *default_text; /* as it would stand in the file, or words in (), or "" */
    const char *explanation;  /* one line, no full stop */
};

extern const struct conf_key conf_keys[CONF_KEY_COUNT];

/* "" for the global section, else the word before the block. */
const char *conf_section_word(enum conf_section section);
enum conf_shape conf_type_shape(enum conf_type type);
const char *conf_type_expected(enum conf_type type);

/* The key's index, -1 when the section has no such key. `name` need not end in NUL. */
int conf_key_find(enum conf_section section, const char *name, size_t len);
/* The section of that word, -1 when there is none. */
int conf_section_find(const char *word, size_t len);

/* The known key - at file level also the known section - that looks most like `name`; NULL when
 * none comes near. */
const char *conf_key_nearest(enum conf_section section, const char *name, size_t len);

#endif
