#include "conf/report.h"

#include <stdarg.h>
#include <stdio.h>

#include "conf/conf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

int conf_report_add(struct conf_report *r, int line, const char *fmt, ...)
{
    char text[sizeof((struct err *)0)->message];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);

    struct err one = ERR_INIT;
    if (line > 0)
        err_set(&one, ERR_CONFIG, r->path, "%s:%d: %s", r->path, line, text);
    else
        err_set(&one, ERR_CONFIG, r->path, "%s: %s", r->path, text);

    if (r->count == 0 && r->e)
        *r->e = one;
    else if (r->count > 0 && r->more && r->more->count < ARRAY_LEN(r->more->line))
        snprintf(r->more->line[r->more->count++], sizeof r->more->line[0], "%s", one.message);
    r->count++;
    return ERR_CONFIG;
}

bool conf_report_full(const struct conf_report *r)
{
    return r->count > ARRAY_LEN(((struct conf_errors *)0)->line);
}
