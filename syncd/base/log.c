#include "syncd/base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "syncd/base/err.h"

static enum log_level threshold = LOG_LEVEL_NOTICE;
static void (*before_line)(void);
static void (*sink_line)(void *arg, enum log_level level, const char *line);
static void *sink_arg;
static log_writer_fn *writer;
static _Thread_local const char *about_source, *about_job;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void log_set_level(enum log_level level)
{
    threshold = level;
}

void log_set_before(void (*before)(void))
{
    before_line = before;
}

void log_set_sink(void (*sink)(void *arg, enum log_level level, const char *line), void *arg)
{
    log_lock();
    sink_line = sink;
    sink_arg = arg;
    log_unlock();
}

void log_set_writer(log_writer_fn *w)
{
    log_lock();
    writer = w;
    log_unlock();
}

void log_about(const char *source, const char *job)
{
    about_source = source;
    about_job = job;
}

void log_lock(void)
{
    pthread_mutex_lock(&lock);
}

void log_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

static void print_line(enum log_level level, const char *text)
{
    log_lock();
    if (before_line)
        before_line();
    if (!writer || !writer(level, text, about_source, about_job)) {
        if (getenv("JOURNAL_STREAM"))
            fprintf(stderr, "<%d>%s\n", (int)level, text);
        else
            fprintf(stderr, "syncd: %s\n", text);
        fflush(stderr);
    }
    if (sink_line)
        sink_line(sink_arg, level, text);
    log_unlock();
}

void log_msg(enum log_level level, const char *fmt, ...)
{
    if (level > threshold)
        return;
    char text[1536];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    print_line(level, text);
}

void log_err(enum log_level level, const struct err *e)
{
    bool named = e->object[0] && !strstr(e->message, e->object);
    log_msg(level, "%s%s%s", named ? e->object : "", named ? ": " : "", e->message);
    if (e->hint[0])
        log_msg(level, "  -> %s", e->hint);
}
