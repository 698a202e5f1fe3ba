/* What a command answers: lines for people, or one JSON object (CONTRACT "JSON").
 *
 * Without --json: report_print and report_say write to stdout, errors are logged to stderr as they
 * are added. With --json: stdout gets exactly one object when the command ends, on failure too;
 * errors are collected in it and stderr stays silent but for the log messages of -v. All calls
 * belong to the main thread. A NULL report is not allowed; out of memory is reported at the end. */
#ifndef SYNCD_REPORT_H
#define SYNCD_REPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct report;

/* CONTRACT "Exit codes". */
enum exit_code {
    EXIT_DONE = 0,
    EXIT_NOTHING = 1, /* nothing useful was done; check: something would fail; status: unknown */
    EXIT_USAGE = 2,   /* wrong usage or config, or an unanswered question */
    EXIT_PARTLY = 3,  /* backup: something is missing; status: degraded; check: warnings only */
    EXIT_STALE = 4    /* status only */
};

/* What a command that ends with this error exits with: EXIT_USAGE for ERR_USAGE and ERR_CONFIG,
 * EXIT_DONE for 0, else EXIT_NOTHING. (After a signal the program's frame has the last word.) */
int exit_code_of(int err_code);

enum report_mode {
    REPORT_TEXT,
    REPORT_QUIET, /* -q: report_say is silent */
    REPORT_JSON
};

/* `command` is the "command" of the JSON object; NULL shows as null. NULL when out of memory. */
struct report *report_new(const char *command, enum report_mode mode);
void report_free(struct report *r);

bool report_is_json(const struct report *r);
bool report_is_quiet(const struct report *r); /* -q or --json: no progress, no talk */

/* Adds an error that is set; outside of JSON mode it is logged at once, as an error. Returns
 * exit_code_of its code, so that a command can end with `return report_error(r, &e)`. ERR_CANCELLED
 * is not logged when a signal caused it: the user knows. */
int report_error(struct report *r, const struct err *e);

/* The same for what does not stop the command: logged as a warning. */
void report_warning(struct report *r, const struct err *e);

/* How many were added so far. */
size_t report_error_count(const struct report *r);

/* Prints to stdout, unless --json. `say` is for what -q hides (what is going on), `print` for what
 * was asked for. A progress display is taken away first. Values must be made safe (show.h). */
void report_print(struct report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void report_say(struct report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The same as print, for bytes as they are: what a user asked to have unchanged. */
void report_write(struct report *r, const void *p, size_t n);

/* Adds a key to the object; takes `value` over (NULL: out of memory, noted). A key that is set
 * again is replaced. */
void report_set(struct report *r, const char *key, json_t *value);

/* Prints the object in JSON mode with `exit_code` and returns the exit code: the same, or
 * EXIT_NOTHING when stdout could not be written. To be called once, last. */
int report_finish(struct report *r, int exit_code);

/* JSON values. Each is new; NULL only when out of memory. */

/* Any bytes as text: what is not UTF-8 becomes \xHH byte by byte, and a backslash that begins a
 * literal \xHH becomes \x5c, so that replacing each \xHH by its byte gives the bytes back. NULL
 * gives null. */
json_t *report_json_text(const char *s);
json_t *report_json_bytes(const void *p, size_t n); /* the same; a NUL becomes \x00 */
json_t *report_json_time(int64_t t_us); /* RFC 3339 with Z; null when t_us <= 0 (unknown) */
json_t *report_json_size(uint64_t bytes);
json_t *report_json_id(const uint8_t id[32]);     /* 64 hex digits; NULL gives null */
json_t *report_json_seconds(int64_t duration_us); /* a number with milliseconds; < 0: null */
json_t *report_json_error(const struct err *e);   /* the message; null when none is set */

/* Sets a key of an object and takes `value` over; false when out of memory (value NULL). */
bool report_json_set(json_t *object, const char *key, json_t *value);

#endif
