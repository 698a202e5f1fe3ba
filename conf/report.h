/* Collects what is wrong with a config file: the first finding becomes the caller's struct err, up
 * to nine more go into a struct conf_errors. Each is one line "file:line: what was found, what was
 * expected". */
#ifndef SYNCD_CONF_REPORT_H
#define SYNCD_CONF_REPORT_H

#include <stdbool.h>
#include <stddef.h>

struct conf_errors;
struct err;

struct conf_report {
    const char *path;         /* as messages show it */
    struct err *e;            /* may be NULL */
    struct conf_errors *more; /* may be NULL */
    size_t count;
};

/* Adds a finding (line 0: about the file as a whole); returns ERR_CONFIG. */
int conf_report_add(struct conf_report *r, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* So many that another would not be kept: reading on is useless. */
bool conf_report_full(const struct conf_report *r);

#endif
