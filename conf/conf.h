/* The configuration: plain structs, read from syncd.conf and checked.
 *
 * Everything that can be wrong with the file by itself is found here; what needs a look at the
 * machine (does the path exist, does the worker answer) is `syncd check`'s. Strings are owned by
 * the struct conf and live until conf_free; a key that was not given is NULL, 0 or its documented
 * default. */
#ifndef SYNCD_CONF_CONF_H
#define SYNCD_CONF_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct preset;

#define CONF_MAX_WORKERS 2
#define CONF_MAX_SOURCES 256
#define CONF_NAME_MAX 32 /* names, source and worker titles: [a-z0-9][a-z0-9_-]{0,31} */
#define CONF_FILE_LIMIT (256 * 1024)

/* A NULL-terminated list of strings; NULL when the key was not given, empty for {}. */
typedef char **conf_list;

struct conf_worker {
    char *name;
    char *url; /* its shape is checked here; url_parse takes it apart */
    char *identity_file;
    char *known_hosts;
    char *password_file;
    uint64_t max_rate;        /* bytes per second, 0: no limit */
    bool min_free_is_percent; /* default: 10 % */
    uint64_t min_free;        /* percent, or bytes */
};

/* How many to keep of each kind; keep_within_s in seconds. */
struct conf_keep {
    uint32_t last, hourly, daily, weekly, monthly, yearly;
    int64_t within_s;
};

struct conf_source {
    char *name;
    char *preset;
    const struct preset *known; /* what `preset` names; NULL without one */
    conf_list path;             /* with a preset and no path: its own places */
    conf_list exclude;          /* with what the preset leaves out */
    bool secrets;
    char *postgres;
    conf_list schemas;
    bool globals;
    char *drill_database;
    int64_t every_s;    /* 0: not given */
    char *schedule;     /* five-field cron, checked; NULL: not given */
    int64_t interval_s; /* every_s, or the schedule's longest gap within a year; 0: neither given */
    int64_t max_age_s;  /* given, or twice the interval; 0: neither, freshness cannot be told */
    struct conf_keep keep;
    int64_t verify_every_s, drill_every_s; /* 0: never */
    /* argv lists; NULL: not given, empty: no hook even where a preset has one */
    conf_list before, after, on_change, before_restore, after_restore;
    int64_t hook_timeout_s;
};

struct conf_mqtt {
    bool given;
    char *host;
    uint16_t port; /* 1883, or 8883 when ca_file is given */
    char *username, *password_file, *ca_file, *cert_file, *key_file;
    char *topic; /* "syncd" */
    bool homeassistant;
    char *discovery_prefix; /* "homeassistant" */
};

struct conf {
    char *file; /* the path it was read from */
    char *text; /* the file as it is, for the copy that each snapshot keeps */
    size_t text_len;
    char *name;      /* the leader's; default: first label of the host name */
    char *state_dir; /* "/var/lib/syncd" */
    char *scratch_dir;
    char *log_level; /* "notice" */
    char *prometheus_file;
    size_t worker_count, source_count;
    struct conf_worker workers[CONF_MAX_WORKERS];
    struct conf_source *sources;
    struct conf_mqtt mqtt;
};

/* Reads and checks the file. ERR_CONFIG with "file:line: what was found, what was expected" (the
 * first error, and up to nine more in `more`, which may be NULL), ERR_NOT_FOUND, ERR_PERMISSION.
 * A file without workers or sources is no error here: `setup` begins with one. libconfuse keeps its
 * state in globals: not from two threads at once. */
struct conf_errors {
    size_t count;
    char line[9][512];
};
int conf_read(const char *path, struct conf **ret, struct conf_errors *more, struct err *e);

/* The same from memory; `path` is only for messages and struct conf.file. */
int conf_parse(const char *path, const char *text, size_t len, struct conf **ret,
               struct conf_errors *more, struct err *e);

void conf_free(struct conf *c); /* NULL is fine */

/* ERR_CONFIG with the way out when there is no worker or no source: for every command that needs
 * both. */
int conf_require(const struct conf *c, struct err *e);

/* By name; NULL when there is none. */
const struct conf_source *conf_find_source(const struct conf *c, const char *name);
const struct conf_worker *conf_find_worker(const struct conf *c, const char *name);

/* A secret from its file: the first line without its line end, 1 to 1023 bytes. Refused when the
 * file can be read or written by group or others (ERR_PERMISSION), when it is not a regular file,
 * and when the line is empty, too long or has a NUL in it (ERR_CONFIG). The caller wipes and frees
 * *ret. */
int conf_read_secret(const char *path, char **ret, struct err *e);

/* [a-z0-9][a-z0-9_-]{0,31}, not "tmp" or "epoch". */
bool conf_name_is_valid(const char *name);

/* The value parsers, also for the command line: "15m" (unit s m h d w, at most 100 years), "64M"
 * (unit K M G T of 1024, or a plain number of bytes). No signs, blanks or leading zeros.
 * ERR_CONFIG with what was found and what was expected. */
int conf_parse_duration(const char *text, int64_t *ret_s, struct err *e);
int conf_parse_size(const char *text, uint64_t *ret_bytes, struct err *e);

#endif
