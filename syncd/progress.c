#include "syncd/progress.h"

#include <langinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/io.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/progress_view.h"
#include "syncd/show.h"

#define FIRST_AFTER_US (300 * US_PER_MS)
#define EVERY_US (100 * US_PER_MS)
#define LINES_MAX (1 + PROGRESS_WORKERS_MAX)

struct progress {
    pthread_t thread;
    pthread_mutex_t mutex; /* of step, text and stop */
    pthread_cond_t wake;
    bool stop;
    bool utf8;
    int64_t started_us;
    char title[PROGRESS_TEXT], step[PROGRESS_TEXT];
    atomic_uint_least64_t done, total;
    struct rate rate; /* the drawing thread's */
    size_t worker_count;
    struct {
        char name[PROGRESS_TEXT], text[PROGRESS_TEXT];
        atomic_uint_least64_t sent;
        struct rate rate;
    } workers[PROGRESS_WORKERS_MAX];
};

/* What is on the terminal; all of it under log_lock. */
static struct {
    struct progress *current;
    unsigned hidden;
    bool ever_drawn;
    int64_t drawn_us;
    size_t line_count; /* 0: nothing is on the screen */
    size_t columns;    /* of the window, when it was drawn */
    size_t widths[LINES_MAX];
} screen;

static size_t columns_of_terminal(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

bool progress_is_possible(void)
{
    const char *terminal = getenv("TERM");
    return isatty(STDERR_FILENO) && terminal && *terminal && strcmp(terminal, "dumb") != 0;
}

/* Goes to the first line of what was drawn. A window that has become narrower has wrapped the lines
 * since, so that each takes more rows. */
static void put_home(struct buf *b, size_t columns)
{
    size_t rows = 0;
    for (size_t i = 0; i < screen.line_count; i++)
        rows += screen.widths[i] > columns ? (screen.widths[i] + columns - 1) / columns : 1;
    if (rows > 1)
        buf_printf(b, "\r\033[%zuA", rows - 1);
    else if (rows == 1)
        buf_put_u8(b, '\r');
}

/* After a stop (Ctrl-Z) the cursor is no longer where it was left: what was drawn stays above. */
static void forget_when_stale(int64_t now_us)
{
    if (now_us - screen.drawn_us > 10 * EVERY_US)
        screen.line_count = 0;
}

static void take_away(void)
{
    forget_when_stale(clock_mono_us());
    if (!screen.line_count)
        return;
    OWN_BUF struct buf b = BUF_INIT;
    put_home(&b, columns_of_terminal());
    buf_put_str(&b, "\033[J");
    io_write_all(STDERR_FILENO, b.data, b.len); /* a terminal that is gone is no loss */
    screen.line_count = 0;
}

/* The lines of `text`, each cleared to the end of its line. */
static void put_lines(struct buf *b, const char *text)
{
    screen.line_count = 0;
    while (screen.line_count < LINES_MAX) {
        size_t len = strcspn(text, "\n");
        char line[1024];
        size_t kept = MIN(len, sizeof line - 1);
        memcpy(line, text, kept);
        line[kept] = '\0';
        screen.widths[screen.line_count++] = show_width(line);
        buf_put(b, text, len);
        buf_put_str(b, "\033[K");
        text += len;
        if (!*text)
            break;
        text++;
        buf_put_u8(b, '\n');
    }
    buf_put_str(b, "\033[J");
}

/* Takes a copy of everything, so that nobody waits for the terminal. */
static void look(struct progress *p, int64_t now_us, struct progress_view *ret)
{
    *ret = (struct progress_view){.worker_count = p->worker_count,
                                  .done_bytes = atomic_load(&p->done),
                                  .total_bytes = atomic_load(&p->total),
                                  .elapsed_us = now_us - p->started_us};
    rate_note(&p->rate, now_us, ret->done_bytes);
    ret->rate = rate_get(&p->rate, now_us, ret->done_bytes);
    pthread_mutex_lock(&p->mutex);
    memcpy(ret->title, p->title, sizeof ret->title);
    memcpy(ret->step, p->step, sizeof ret->step);
    for (size_t i = 0; i < p->worker_count; i++) {
        memcpy(ret->workers[i].name, p->workers[i].name, PROGRESS_TEXT);
        memcpy(ret->workers[i].text, p->workers[i].text, PROGRESS_TEXT);
    }
    pthread_mutex_unlock(&p->mutex);
    for (size_t i = 0; i < p->worker_count; i++) {
        uint64_t sent = atomic_load(&p->workers[i].sent);
        rate_note(&p->workers[i].rate, now_us, sent);
        ret->workers[i].sent_bytes = sent;
        ret->workers[i].rate = rate_get(&p->workers[i].rate, now_us, sent);
    }
}

static bool in_foreground(void)
{
    pid_t group = tcgetpgrp(STDERR_FILENO);
    return group < 0 || group == getpgrp();
}

static void draw(struct progress *p)
{
    int64_t now_us = clock_mono_us();
    struct progress_view view;
    look(p, now_us, &view);
    log_lock();
    forget_when_stale(now_us);
    if (!screen.hidden && in_foreground()) {
        size_t columns = columns_of_terminal();
        OWN_BUF struct buf text = BUF_INIT, b = BUF_INIT;
        progress_view_lines(&view, columns > 1 ? columns - 1 : 1, p->utf8, &text);
        put_home(&b, columns);
        if (columns != screen.columns) /* lines that were wrapped forget it only when cleared */
            buf_put_str(&b, "\033[J");
        screen.columns = columns;
        const char *lines = buf_cstr(&text);
        if (lines)
            put_lines(&b, lines);
        if (!b.bad)
            io_write_all(STDERR_FILENO, b.data, b.len);
        screen.ever_drawn = true;
        screen.drawn_us = now_us;
    }
    log_unlock();
}

static void *draw_until_stopped(void *arg)
{
    struct progress *p = arg;
    int64_t next_us = p->started_us + FIRST_AFTER_US;
    pthread_mutex_lock(&p->mutex);
    while (!p->stop) {
        struct timespec until = {.tv_sec = (time_t)(next_us / US_PER_S),
                                 .tv_nsec = (long)(next_us % US_PER_S * 1000)};
        pthread_cond_timedwait(&p->wake, &p->mutex, &until);
        if (p->stop || clock_mono_us() < next_us)
            continue;
        pthread_mutex_unlock(&p->mutex);
        draw(p);
        next_us = clock_mono_us() + EVERY_US;
        pthread_mutex_lock(&p->mutex);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

static bool start_thread(struct progress *p)
{
    /* Signals are for the main thread, whose waits they are to end. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool ok = pthread_create(&p->thread, NULL, draw_until_stopped, p) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return ok;
}

static void destroy(struct progress *p)
{
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}

static struct progress *make(const char *title, uint64_t total_bytes, size_t worker_count,
                             const char *const *workers)
{
    struct progress *p = mem_alloc(1, sizeof *p);
    if (!p)
        return NULL;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&p->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&p->mutex, NULL);
    p->started_us = clock_mono_us();
    p->utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    show_safe_into(title, p->title, sizeof p->title);
    atomic_init(&p->total, total_bytes);
    p->worker_count = MIN(worker_count, PROGRESS_WORKERS_MAX);
    for (size_t i = 0; i < p->worker_count; i++)
        show_safe_into(workers[i], p->workers[i].name, sizeof p->workers[i].name);
    return p;
}

struct progress *progress_start(bool wanted, const char *title, uint64_t total_bytes,
                                size_t worker_count, const char *const *workers)
{
    if (!wanted || !progress_is_possible())
        return NULL;
    struct progress *p = make(title, total_bytes, worker_count, workers);
    if (!p)
        return NULL;
    log_lock();
    bool taken = screen.current != NULL;
    if (!taken) {
        screen.current = p;
        screen.line_count = 0;
        screen.ever_drawn = false;
        screen.drawn_us = p->started_us;
        log_set_before(take_away);
    }
    log_unlock();
    if (!taken && start_thread(p))
        return p;
    log_lock();
    if (!taken) {
        screen.current = NULL;
        log_set_before(NULL);
    }
    log_unlock();
    destroy(p);
    return NULL;
}

void progress_set_total(struct progress *p, uint64_t total_bytes)
{
    if (p)
        atomic_store(&p->total, total_bytes);
}

void progress_add(struct progress *p, uint64_t bytes)
{
    if (p)
        atomic_fetch_add(&p->done, bytes);
}

void progress_set_done(struct progress *p, uint64_t bytes)
{
    if (p)
        atomic_store(&p->done, bytes);
}

static void set_text(struct progress *p, char *field, const char *text)
{
    char safe[PROGRESS_TEXT];
    show_safe_into(text ? text : "", safe, sizeof safe);
    pthread_mutex_lock(&p->mutex);
    memcpy(field, safe, sizeof safe);
    pthread_mutex_unlock(&p->mutex);
}

void progress_set_step(struct progress *p, const char *text)
{
    if (p)
        set_text(p, p->step, text);
}

void progress_worker_add(struct progress *p, size_t worker, uint64_t bytes)
{
    if (p && worker < p->worker_count)
        atomic_fetch_add(&p->workers[worker].sent, bytes);
}

void progress_worker_set(struct progress *p, size_t worker, uint64_t bytes)
{
    if (p && worker < p->worker_count)
        atomic_store(&p->workers[worker].sent, bytes);
}

void progress_worker_text(struct progress *p, size_t worker, const char *text)
{
    if (p && worker < p->worker_count)
        set_text(p, p->workers[worker].text, text);
}

void progress_hide(void)
{
    log_lock();
    screen.hidden++;
    take_away();
    log_unlock();
}

void progress_show(void)
{
    log_lock();
    if (screen.hidden)
        screen.hidden--;
    log_unlock();
}

void progress_stop(struct progress *p, const char *outcome)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->mutex);
    pthread_join(p->thread, NULL);
    struct progress_view view;
    look(p, clock_mono_us(), &view);
    log_lock();
    take_away();
    if (outcome && screen.ever_drawn && in_foreground()) {
        OWN_BUF struct buf b = BUF_INIT;
        size_t columns = columns_of_terminal();
        progress_view_summary(&view, outcome, columns > 1 ? columns - 1 : 1, &b);
        if (!b.bad)
            io_write_all(STDERR_FILENO, b.data, b.len);
    }
    screen.current = NULL;
    log_set_before(NULL);
    log_unlock();
    destroy(p);
}
