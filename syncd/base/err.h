/* Errors: one table of codes, and a value that carries what a person needs to know.
 *
 * Every function of syncd that can fail returns 0 or one of the negative codes below and fills the
 * caller's `struct err`: what failed, on which object, why, and - where the user can act - a hint.
 * Libraries never print; the caller that decides prints or logs once. */
#ifndef SYNCD_BASE_ERR_H
#define SYNCD_BASE_ERR_H

/* X(symbol, number, name in JSON) - the one table of error codes. */
#define ERR_TABLE(X)                                                                               \
    X(ERR_INTERNAL, -1, "internal")                                                                \
    X(ERR_NOMEM, -2, "no-memory")                                                                  \
    X(ERR_IO, -3, "io")                                                                            \
    X(ERR_NO_SPACE, -4, "no-space")                                                                \
    X(ERR_NOT_FOUND, -5, "not-found")                                                              \
    X(ERR_EXISTS, -6, "exists")                                                                    \
    X(ERR_PERMISSION, -7, "permission")                                                            \
    X(ERR_TIMEOUT, -8, "timeout")                                                                  \
    X(ERR_CONNECT, -9, "connect")                                                                  \
    X(ERR_AUTH, -10, "auth")                                                                       \
    X(ERR_HOST_KEY, -11, "host-key")                                                               \
    X(ERR_UNSUPPORTED, -12, "unsupported")                                                         \
    X(ERR_CONFIG, -13, "config")                                                                   \
    X(ERR_USAGE, -14, "usage")                                                                     \
    X(ERR_DAMAGED, -15, "damaged")                                                                 \
    X(ERR_VERSION, -16, "version")                                                                 \
    X(ERR_FOREIGN, -17, "foreign")                                                                 \
    X(ERR_FENCED, -18, "fenced")                                                                   \
    X(ERR_BUSY, -19, "busy")                                                                       \
    X(ERR_CHANGED, -20, "changed")                                                                 \
    X(ERR_SOURCE, -21, "source")                                                                   \
    X(ERR_CANCELLED, -22, "cancelled")                                                             \
    X(ERR_LIMIT, -23, "limit")                                                                     \
    X(ERR_REFUSED, -24, "refused")                                                                 \
    X(ERR_CLOCK, -25, "clock")

#define ERR_ENUM(symbol, number, name) symbol = number,
enum err_code { ERR_TABLE(ERR_ENUM) };
#undef ERR_ENUM

struct err {
    int code;          /* 0: none; else one of enum err_code */
    char object[192];  /* what it is about: a path, a worker, a source; may be "" */
    char message[512]; /* one line, no newline: what failed, why, what happens next */
    char hint[384];    /* one line: what the user can do; may be "" */
};

#define ERR_INIT ((struct err){0})

/* Fills *e (which may be NULL) and returns `code`. `object` may be NULL. Control characters in the
 * result are replaced, so that a hostile file name cannot drive a terminal. */
int err_set(struct err *e, int code, const char *object, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* The same with ": <strerror(errnum)>" at the end; the code follows from errnum (ENOSPC, EDQUOT ->
 * ERR_NO_SPACE, ENOENT -> ERR_NOT_FOUND, EACCES/EPERM/EROFS -> ERR_PERMISSION, ENOMEM -> ERR_NOMEM,
 * EEXIST -> ERR_EXISTS, ETIMEDOUT -> ERR_TIMEOUT, else ERR_IO). */
int err_sys(struct err *e, int errnum, const char *object, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Sets the hint of an error that is already set; returns its code. */
int err_hint(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "<context>: " before the message of an error that is already set; returns its code. */
int err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The name of a code as JSON shows it ("no-space"); "ok" for 0, "internal" for an unknown one. */
const char *err_name(int code);

int err_nomem(struct err *e);

#endif
