#include "syncd/job_times.h"

#include <stdio.h>
#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define FILE_NAME "job-times.json"
#define FILE_MAX (256u * 1024)
#define KEY_SIZE (CONF_NAME_MAX + 32)

/* "verify db"; "prune" for a job of all sources. */
static void key_of(enum job_kind kind, const char *source, char ret[static KEY_SIZE])
{
    snprintf(ret, KEY_SIZE, "%s%s%s", job_kind_name(kind), *source ? " " : "", source);
}

json_t *job_times_read(const char *state_dir)
{
    OWN_BUF struct buf b = BUF_INIT;
    OWN_MEM char *path = io_path(state_dir, FILE_NAME);
    struct err e = ERR_INIT;
    if (!path)
        return NULL;
    if (io_read_file(path, FILE_MAX, &b, &e) == 0 && b.len > 0) {
        json_t *v = json_loadb((const char *)b.data, b.len, JSON_REJECT_DUPLICATES, NULL);
        if (json_is_object(v))
            return v;
        json_decref(v);
    }
    return json_object();
}

int64_t job_times_get(const json_t *times, enum job_kind kind, const char *source)
{
    char key[KEY_SIZE];
    key_of(kind, source, key);
    json_int_t seconds = json_integer_value(json_object_get(times, key));
    return seconds > 0 && seconds < INT64_MAX / US_PER_S ? seconds * US_PER_S : 0;
}

static int write_file(const json_t *times, const char *state_dir, struct err *e)
{
    OWN_MEM char *path = io_path(state_dir, FILE_NAME);
    OWN_MEM char *text = json_dumps(times, JSON_INDENT(1) | JSON_SORT_KEYS);
    if (!path || !text)
        return err_nomem(e);
    return io_replace_file(path, text, strlen(text), 0600, e);
}

int job_times_set(json_t *times, const char *state_dir, enum job_kind kind, const char *source,
                  int64_t at_us, struct err *e)
{
    char key[KEY_SIZE];
    key_of(kind, source, key);
    if (json_object_set_new(times, key, json_integer(at_us / US_PER_S)))
        return err_nomem(e);
    return write_file(times, state_dir, e);
}

const char *job_times_state(const json_t *times, const char *source)
{
    char key[KEY_SIZE];
    snprintf(key, sizeof key, "state %s", source);
    const char *word = json_string_value(json_object_get(times, key));
    return word ? word : "";
}

int job_times_set_state(json_t *times, const char *state_dir, const char *source, const char *word,
                        struct err *e)
{
    char key[KEY_SIZE];
    snprintf(key, sizeof key, "state %s", source);
    if (json_object_set_new(times, key, json_string(word)))
        return err_nomem(e);
    return write_file(times, state_dir, e);
}
