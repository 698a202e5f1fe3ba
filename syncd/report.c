#include "syncd/report.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/progress.h"
#include "syncd/show.h"
#include "syncd/signals.h"

struct report {
    const char *command;
    enum report_mode mode;
    json_t *errors;  /* array */
    json_t *keys;    /* what the command set, in its order */
    bool incomplete; /* something could not be added: out of memory */
};

int exit_code_of(int err_code)
{
    switch (err_code) {
    case 0:
        return EXIT_DONE;
    case ERR_USAGE:
    case ERR_CONFIG:
        return EXIT_USAGE;
    default:
        return EXIT_NOTHING;
    }
}

struct report *report_new(const char *command, enum report_mode mode)
{
    struct report *r = mem_alloc(1, sizeof *r);
    if (!r)
        return NULL;
    *r = (struct report){
        .command = command, .mode = mode, .errors = json_array(), .keys = json_object()};
    if (r->errors && r->keys)
        return r;
    report_free(r);
    return NULL;
}

void report_free(struct report *r)
{
    if (!r)
        return;
    json_decref(r->errors);
    json_decref(r->keys);
    free(r);
}

bool report_is_json(const struct report *r)
{
    return r->mode == REPORT_JSON;
}

bool report_is_quiet(const struct report *r)
{
    return r->mode != REPORT_TEXT;
}

static void add_error(struct report *r, enum log_level level, const struct err *e)
{
    json_t *object = json_object();
    bool ok = object && report_json_set(object, "code", json_string(err_name(e->code)));
    ok = ok && report_json_set(object, "message", report_json_text(e->message));
    ok = ok && report_json_set(object, "object", report_json_text(*e->object ? e->object : NULL));
    ok = ok && report_json_set(object, "hint", report_json_text(*e->hint ? e->hint : NULL));
    if (!ok) {
        json_decref(object);
        r->incomplete = true;
    } else if (json_array_append_new(r->errors, object)) {
        r->incomplete = true;
    }
    if (r->mode == REPORT_JSON || (e->code == ERR_CANCELLED && signals_cancelled()))
        return;
    struct err safe = {.code = e->code};
    show_safe_into(e->object, safe.object, sizeof safe.object);
    show_safe_into(e->message, safe.message, sizeof safe.message);
    show_safe_into(e->hint, safe.hint, sizeof safe.hint);
    log_err(level, &safe);
}

int report_error(struct report *r, const struct err *e)
{
    add_error(r, LOG_LEVEL_ERROR, e);
    return exit_code_of(e->code);
}

void report_warning(struct report *r, const struct err *e)
{
    add_error(r, LOG_LEVEL_WARNING, e);
}

size_t report_error_count(const struct report *r)
{
    return json_array_size(r->errors);
}

__attribute__((format(printf, 1, 0))) static void print(const char *fmt, va_list ap)
{
    progress_hide();
    vprintf(fmt, ap);
    fflush(stdout);
    progress_show();
}

void report_print(struct report *r, const char *fmt, ...)
{
    if (r->mode == REPORT_JSON)
        return;
    va_list ap;
    va_start(ap, fmt);
    print(fmt, ap);
    va_end(ap);
}

void report_say(struct report *r, const char *fmt, ...)
{
    if (r->mode != REPORT_TEXT)
        return;
    va_list ap;
    va_start(ap, fmt);
    print(fmt, ap);
    va_end(ap);
}

void report_write(struct report *r, const void *p, size_t n)
{
    if (r->mode == REPORT_JSON || n == 0)
        return;
    progress_hide();
    fwrite(p, 1, n, stdout);
    progress_show();
}

void report_set(struct report *r, const char *key, json_t *value)
{
    if (!report_json_set(r->keys, key, value))
        r->incomplete = true;
}

static json_t *envelope(const struct report *r, int exit_code)
{
    json_t *o = json_object();
    bool ok = o && report_json_set(o, "syncd", json_string(SYNCD_VERSION));
    ok = ok && report_json_set(o, "command", report_json_text(r->command));
    ok = ok && report_json_set(o, "exit", json_integer(exit_code));
    ok = ok && json_object_set(o, "errors", r->errors) == 0;
    ok = ok && json_object_update_missing(o, r->keys) == 0;
    if (ok)
        return o;
    json_decref(o);
    return NULL;
}

int report_finish(struct report *r, int exit_code)
{
    struct err e = ERR_INIT;
    if (r->incomplete) {
        err_nomem(&e);
        err_prefix(&e, "the answer is not complete");
        add_error(r, LOG_LEVEL_ERROR, &e);
        if (exit_code == EXIT_DONE)
            exit_code = EXIT_NOTHING;
    }
    bool written = true;
    if (r->mode == REPORT_JSON) {
        json_t *o = envelope(r, exit_code);
        written = o && json_dumpf(o, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF;
        json_decref(o);
    }
    if (fflush(stdout) == 0 && written && !ferror(stdout))
        return exit_code;
    log_msg(LOG_LEVEL_ERROR, "the answer could not be written to stdout");
    return exit_code == EXIT_DONE ? EXIT_NOTHING : exit_code;
}

/* A backslash that begins something which would be read back as an escaped byte. */
static bool looks_escaped(const char *s)
{
    return s[0] == '\\' && s[1] == 'x' && isxdigit((unsigned char)s[2]) &&
           isxdigit((unsigned char)s[3]);
}

json_t *report_json_text(const char *s)
{
    return s ? report_json_bytes(s, strlen(s)) : json_null();
}

json_t *report_json_bytes(const void *p, size_t n)
{
    OWN_BUF struct buf copy = BUF_INIT, b = BUF_INIT;
    buf_put(&copy, p, n);
    const char *s = buf_cstr(&copy); /* what looks ahead in it finds the NUL */
    for (const char *end = s ? s + n : NULL; s < end;) {
        uint32_t c;
        size_t len = show_utf8(s, &c);
        if (len && *s && !looks_escaped(s)) {
            buf_put(&b, s, len);
            s += len;
        } else {
            buf_printf(&b, "\\x%02x", (unsigned char)*s);
            s++;
        }
    }
    const char *text = buf_cstr(&b);
    return text ? json_string(text) : NULL;
}

json_t *report_json_time(int64_t t_us)
{
    if (t_us <= 0)
        return json_null();
    char text[CLOCK_TEXT_SIZE];
    clock_rfc3339(t_us, text);
    return json_string(text);
}

json_t *report_json_size(uint64_t bytes)
{
    return json_integer((json_int_t)bytes);
}

json_t *report_json_id(const uint8_t id[32])
{
    if (!id)
        return json_null();
    char text[65];
    hex_encode(id, 32, text);
    return json_string(text);
}

json_t *report_json_seconds(int64_t duration_us)
{
    if (duration_us < 0)
        return json_null();
    int64_t duration_ms = duration_us / US_PER_MS;
    return json_real((double)duration_ms / 1000.0);
}

json_t *report_json_error(const struct err *e)
{
    return e && e->code ? report_json_text(e->message) : json_null();
}

bool report_json_set(json_t *object, const char *key, json_t *value)
{
    return value && json_object_set_new(object, key, value) == 0;
}
