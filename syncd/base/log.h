/* One-line log messages to stderr (systemd's journal reads the "<N>" prefix when stderr is the
 * journal). Only the syncd/ folder logs; libraries return errors instead. */
#ifndef SYNCD_BASE_LOG_H
#define SYNCD_BASE_LOG_H

#include <stdbool.h>

struct err;

/* The numbers are syslog's (RFC 5424 section 6.2.1). */
enum log_level {
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_WARNING = 4,
    LOG_LEVEL_NOTICE = 5,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7
};

void log_set_level(enum log_level level); /* default: notice */
void log_msg(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Prints an error as a person reads it: "object: message" and, on a second line, the hint. */
void log_err(enum log_level level, const struct err *e);

/* Called just before a line is printed, with the lock below held, so that a progress display can
 * clear itself; may be NULL. To be set with the lock held. */
void log_set_before(void (*before)(void));

/* Gets every line that is printed, with the lock below held: it must not log. NULL: nobody. */
void log_set_sink(void (*sink)(void *arg, enum log_level level, const char *line), void *arg);

/* Gets every line with what it is about, with the lock below held, instead of stderr; false: it
 * could not take it, so stderr gets it after all. NULL: none. */
typedef bool log_writer_fn(enum log_level level, const char *line, const char *source,
                           const char *job);
void log_set_writer(log_writer_fn *writer);

/* What this thread's lines are about from now on; borrowed. NULL: nothing in particular. */
void log_about(const char *source, const char *job);

/* While it is held no line is printed: who draws on the terminal holds it. Not recursive: no
 * logging meanwhile. */
void log_lock(void);
void log_unlock(void);

#endif
