#include "syncd/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void clean_line(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
}

__attribute__((format(printf, 4, 0))) static void
set_fields(struct err *e, int code, const char *object, const char *fmt, va_list ap)
{
    e->code = code;
    e->hint[0] = '\0';
    snprintf(e->object, sizeof e->object, "%s", object ? object : "");
    vsnprintf(e->message, sizeof e->message, fmt, ap);
    clean_line(e->object);
    clean_line(e->message);
}

int err_set(struct err *e, int code, const char *object, const char *fmt, ...)
{
    if (!e)
        return code;
    va_list ap;
    va_start(ap, fmt);
    set_fields(e, code, object, fmt, ap);
    va_end(ap);
    return code;
}

static int code_of_errno(int errnum)
{
    switch (errnum) {
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_SPACE;
    case ENOENT:
        return ERR_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return ERR_PERMISSION;
    case ENOMEM:
        return ERR_NOMEM;
    case EEXIST:
    case ENOTEMPTY:
        return ERR_EXISTS;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    default:
        return ERR_IO;
    }
}

int err_sys(struct err *e, int errnum, const char *object, const char *fmt, ...)
{
    int code = code_of_errno(errnum);
    if (!e)
        return code;
    va_list ap;
    va_start(ap, fmt);
    set_fields(e, code, object, fmt, ap);
    va_end(ap);
    size_t len = strlen(e->message);
    snprintf(e->message + len, sizeof e->message - len, ": %s", strerror(errnum));
    return code;
}

int err_hint(struct err *e, const char *fmt, ...)
{
    if (!e)
        return ERR_INTERNAL;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->hint, sizeof e->hint, fmt, ap);
    va_end(ap);
    clean_line(e->hint);
    return e->code;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
    if (!e)
        return ERR_INTERNAL;
    char tail[sizeof e->message];
    memcpy(tail, e->message, sizeof tail);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->message, sizeof e->message, fmt, ap);
    va_end(ap);
    size_t len = strlen(e->message);
    snprintf(e->message + len, sizeof e->message - len, ": %s", tail);
    clean_line(e->message);
    return e->code;
}

const char *err_name(int code)
{
    switch (code) {
    case 0:
        return "ok";
#define ERR_CASE(symbol, number, name)                                                             \
    case symbol:                                                                                   \
        return name;
        ERR_TABLE(ERR_CASE)
#undef ERR_CASE
    default:
        return "internal";
    }
}

int err_nomem(struct err *e)
{
    return err_set(e, ERR_NOMEM, NULL, "out of memory");
}
