#include "syncd/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/daemon_internal.h"
#include "syncd/job_times.h"
#include "syncd/lock.h"
#include "syncd/report.h"
#include "syncd/show.h"
#include "syncd/signals.h"

#define LOCK_NAME "daemon" /* not X.lock: that is source X's */
#define LOOK_AT_LEAST_EVERY_US (60 * US_PER_S)
#define LOOK_AT_CLOCK_EVERY_US (2 * US_PER_S)
#define SOONEST_US (50 * US_PER_MS)
#define STOP_WITHIN_US (7 * US_PER_S) /* the jobs get 6 s before they are killed */

struct moment daemon_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_BOOTTIME, &ts);
    return (struct moment){.wall_us = clock_now_us(),
                           .elapsed_us = ts.tv_sec * US_PER_S + ts.tv_nsec / 1000};
}

/* ---- what systemd is told ---- */

/* The backup that comes next, of all sources. */
static void put_next(const struct daemon *d, char *ret, size_t size)
{
    struct moment now = daemon_now();
    int64_t first_us = INT64_MAX;
    const char *name = NULL;
    for (size_t i = 0; i < d->conf->source_count; i++) {
        const char *source = d->conf->sources[i].name;
        int64_t at_us = timetable_next_wall(&d->timetable, JOB_BACKUP, source, &now);
        if (at_us && at_us < first_us) {
            first_us = at_us;
            name = source;
        }
    }
    char at[CLOCK_TEXT_SIZE];
    *ret = '\0';
    if (!name)
        return;
    clock_local(first_us, at);
    snprintf(ret, size, "; next: %s at %s", name, at);
}

static void tell_status(struct daemon *d)
{
    char status[sizeof d->status], next[128];
    size_t running = daemon_count_jobs(d);
    put_next(d, next, sizeof next);
    if (d->stopping)
        snprintf(status, sizeof status, "stopping");
    else if (d->clock_until_us)
        snprintf(status, sizeof status, "waiting: %s", clock_doubt_text(d->clock));
    else
        snprintf(status, sizeof status, "%zu source%s, %zu job%s running%s", d->conf->source_count,
                 d->conf->source_count == 1 ? "" : "s", running, running == 1 ? "" : "s", next);
    if (strcmp(status, d->status) == 0)
        return;
    memcpy(d->status, status, sizeof d->status);
    sd_notifyf(0, "STATUS=%s", d->status);
}

/* ---- the clock ---- */

static int init_timetable(struct daemon *d, struct err *e)
{
    uint64_t seed;
    io_random(&seed, sizeof seed);
    timetable_init(&d->timetable, seed);
    return daemon_plan_jobs(d, e);
}

/* By the wrong clock, what is overdue may have seemed to be of today. Nothing runs yet. */
static void plan_anew(struct daemon *d)
{
    struct err e = ERR_INIT;
    timetable_free(&d->timetable);
    if (init_timetable(d, &e))
        log_err(LOG_LEVEL_ERROR, &e);
}

/* Looks at the clock; true while the jobs are to wait for a better one. It is waited for once, at
 * the start: later, one that jumps does not keep backups from being made. */
static bool waits_for_clock(struct daemon *d)
{
    struct clock_facts facts = clock_facts(d->newest_us);
    enum clock_doubt before = d->clock;
    d->clock = clock_doubt_judge(&facts);
    bool over = d->clock == CLOCK_BELIEVED || daemon_now().elapsed_us >= d->clock_until_us;
    if (d->clock_until_us && !over)
        return true;
    if (d->clock_until_us && d->clock != CLOCK_BELIEVED)
        log_msg(LOG_LEVEL_WARNING, "%s: going on, but the times of what is stored are doubtful",
                clock_doubt_text(d->clock));
    else if (d->clock == CLOCK_BEHIND && before == CLOCK_BELIEVED)
        log_msg(LOG_LEVEL_WARNING, "%s: the times of what is stored are doubtful",
                clock_doubt_text(d->clock));
    else if (d->clock == CLOCK_BELIEVED && before != CLOCK_BELIEVED)
        log_msg(LOG_LEVEL_NOTICE, "this machine's clock is set now");
    if (d->clock_until_us && d->clock == CLOCK_BELIEVED)
        plan_anew(d);
    d->clock_until_us = 0;
    return false;
}

static void begin_clock(struct daemon *d)
{
    struct moment now = daemon_now();
    struct clock_facts facts = clock_facts(d->newest_us);
    d->clock = clock_doubt_judge(&facts);
    d->clock_until_us = clock_doubt_until_us(d->clock, now.elapsed_us);
    if (d->clock_until_us > now.elapsed_us)
        log_msg(LOG_LEVEL_NOTICE, "%s: waiting up to five minutes for it",
                clock_doubt_text(d->clock));
}

/* ---- the loop ---- */

void daemon_turn(struct daemon *d)
{
    if (d->stopping) {
        if (daemon_count_jobs(d) == 0)
            sd_event_exit(d->event, 0);
        return;
    }
    bool waits = waits_for_clock(d);
    if (!waits)
        daemon_start_jobs(d);
    if (daemon_watch_jobs(d) && d->watchdog_us)
        sd_notify(0, "WATCHDOG=1");
    tell_status(d);
    daemon_tell_states(d);
    struct moment now = daemon_now();
    int64_t latest_us = LOOK_AT_LEAST_EVERY_US;
    if (d->watchdog_us)
        latest_us = MIN(latest_us, (int64_t)(d->watchdog_us / 3));
    if (waits)
        latest_us = MIN(latest_us, LOOK_AT_CLOCK_EVERY_US);
    int64_t due_us = waits ? INT64_MAX : timetable_next(&d->timetable, &now);
    if (d->turns_us != INT64_MAX)
        latest_us = MIN(latest_us, d->turns_us - now.wall_us);
    int64_t next_us = MIN(due_us, now.elapsed_us + latest_us);
    next_us = MAX(next_us, now.elapsed_us + SOONEST_US);
    sd_event_source_set_time(d->wake, (uint64_t)next_us);
    sd_event_source_set_enabled(d->wake, SD_EVENT_ONESHOT);
}

static int on_wake(sd_event_source *s, uint64_t now, void *arg)
{
    (void)s, (void)now;
    daemon_turn(arg);
    return 0;
}

static int on_stop_time(sd_event_source *s, uint64_t now, void *arg)
{
    (void)now, (void)arg;
    return sd_event_exit(sd_event_source_get_event(s), 0);
}

static int on_stop_signal(sd_event_source *s, int fd, uint32_t events, void *arg)
{
    struct daemon *d = arg;
    (void)fd, (void)events;
    sd_event_source_set_enabled(s, SD_EVENT_OFF);
    d->stopping = true;
    sd_notify(0, "STOPPING=1");
    log_msg(LOG_LEVEL_NOTICE, "stopping");
    daemon_stop_jobs(d);
    int rc = sd_event_add_time_relative(d->event, NULL, CLOCK_MONOTONIC, STOP_WITHIN_US, 0,
                                        on_stop_time, d);
    tell_status(d);
    if (rc < 0)
        return sd_event_exit(d->event, 0);
    daemon_turn(d);
    return 0;
}

/* ---- the config ---- */

static void apply_log_level(const struct daemon *d)
{
    static const struct {
        const char *name;
        enum log_level level;
    } levels[] = {{"error", LOG_LEVEL_ERROR},
                  {"warning", LOG_LEVEL_WARNING},
                  {"notice", LOG_LEVEL_NOTICE},
                  {"info", LOG_LEVEL_INFO},
                  {"debug", LOG_LEVEL_DEBUG}};
    for (size_t i = 0; d->own_log_level && i < ARRAY_LEN(levels); i++)
        if (strcmp(d->conf->log_level, levels[i].name) == 0)
            log_set_level(levels[i].level);
}

/* The jobs read the very text that this config was made from, whatever becomes of the file. */
static int keep_text(const struct conf *c, int *ret_fd, struct err *e)
{
    OWN_FD int fd = memfd_create("syncd.conf", MFD_CLOEXEC);
    if (fd < 0 || io_write_all(fd, c->text, c->text_len))
        return err_sys(e, errno, c->file, "cannot keep the config in memory");
    *ret_fd = TAKE_FD(fd);
    return 0;
}

static int read_config(const char *path, struct conf **ret, int *ret_fd, struct conf_errors *more,
                       struct err *e)
{
    struct conf *c = NULL;
    int rc = conf_read(path, &c, more, e);
    if (rc == ERR_NOT_FOUND || rc == ERR_PERMISSION) /* no config is a mistake of the config, too */
        rc = e->code = ERR_CONFIG;
    if (rc == 0)
        rc = conf_require(c, e);
    if (rc == 0)
        rc = keep_text(c, ret_fd, e);
    if (rc)
        conf_free(c);
    else
        *ret = c;
    return rc;
}

static int replace_config(struct daemon *d, struct err *e)
{
    struct conf *fresh = NULL, *old = d->conf;
    int fd = -1;
    int rc = read_config(d->config_path, &fresh, &fd, NULL, e);
    if (rc)
        return rc;
    if (strcmp(fresh->state_dir, old->state_dir) != 0) {
        conf_free(fresh);
        io_close(fd);
        return err_set(e, ERR_CONFIG, d->config_path,
                       "state_dir cannot be changed while the daemon runs; restart it");
    }
    d->conf = fresh;
    rc = daemon_plan_jobs(d, e);
    if (rc) { /* out of memory: back to the old plan, whose items are still there */
        struct err ignored = ERR_INIT;
        d->conf = old;
        daemon_plan_jobs(d, &ignored);
        conf_free(fresh);
        io_close(fd);
        return rc;
    }
    daemon_change_mqtt(d, old);
    conf_free(old);
    io_close(d->config_fd);
    d->config_fd = fd;
    return 0;
}

static int on_hangup(sd_event_source *s, const struct signalfd_siginfo *info, void *arg)
{
    struct daemon *d = arg;
    struct err e = ERR_INIT;
    (void)s, (void)info;
    if (d->stopping)
        return 0;
    sd_notify(0, "RELOADING=1");
    if (replace_config(d, &e)) {
        log_err(LOG_LEVEL_ERROR, &e);
        log_msg(LOG_LEVEL_ERROR, "the config was not taken over: going on with the old one");
    } else {
        apply_log_level(d);
        log_msg(LOG_LEVEL_NOTICE, "took over the config: %zu source%s", d->conf->source_count,
                show_plural(d->conf->source_count));
    }
    sd_notify(0, "READY=1");
    daemon_turn(d);
    return 0;
}

/* ---- starting ---- */

static int take_daemon_lock(struct daemon *d, struct err *e)
{
    const char *dir = d->conf->state_dir;
    char text[32];
    int rc = state_dir_check(dir, e);
    if (rc == 0)
        rc = state_dir_open_file(dir, LOCK_NAME, O_RDWR, &d->lock_fd, e);
    if (rc)
        return rc;
    if (flock(d->lock_fd, LOCK_EX | LOCK_NB)) {
        ssize_t n = io_pread_full(d->lock_fd, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = '\0';
        text[strcspn(text, "\n")] = '\0';
        err_set(e, ERR_BUSY, dir, "another syncd runs on %s already (process %s)", dir, text);
        return err_hint(e, "stop that one, or give this one a state_dir of its own");
    }
    snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (io_ftruncate(d->lock_fd, 0) == 0)
        io_pwrite_all(d->lock_fd, text, strlen(text), 0); /* only for the message above */
    return 0;
}

/* What an earlier daemon or a power cut left as running is none any more, unless its lock is
 * held. */
static void put_right(struct daemon *d)
{
    struct catalog *c = NULL;
    struct err e = ERR_INIT;
    OWN_MEM char *notice = NULL;
    if (catalog_open(d->conf->state_dir, &c, &notice, &e)) {
        log_err(LOG_LEVEL_WARNING, &e);
        return;
    }
    if (notice)
        log_msg(LOG_LEVEL_WARNING, "%s", notice);
    for (size_t i = 0; i < d->conf->source_count; i++) {
        struct lock_options o = {.state_dir = d->conf->state_dir,
                                 .source = d->conf->sources[i].name,
                                 .what = "start of the daemon"};
        struct lock *l = NULL;
        if (lock_take(&o, &l, &e) == 0 &&
            catalog_run_abandon(c, o.source, clock_now_us(),
                                "it was cut off (power, crash or kill)", NULL, &e))
            log_err(LOG_LEVEL_WARNING, &e);
        lock_release(l);
    }
    catalog_close(c);
}

static int make_loop(struct daemon *d, struct err *e)
{
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGHUP);
    sigaddset(&blocked, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    int rc = sd_event_new(&d->event);
    if (rc >= 0)
        rc = sd_event_add_signal(d->event, NULL, SIGHUP, on_hangup, d);
    if (rc >= 0)
        rc = sd_event_add_io(d->event, NULL, *signals_cancel_fd(), EPOLLIN, on_stop_signal, d);
    if (rc >= 0)
        rc = sd_event_add_time(d->event, &d->wake, CLOCK_BOOTTIME, 0, SOONEST_US, on_wake, d);
    return rc < 0 ? err_sys(e, -rc, NULL, "cannot make the event loop") : 0;
}

static int prepare(struct daemon *d, struct report *report, struct err *e)
{
    struct conf_errors more = {0};
    int rc = read_config(d->config_path, &d->conf, &d->config_fd, &more, e);
    for (size_t i = 0; rc && i < more.count; i++) {
        struct err line = ERR_INIT;
        err_set(&line, ERR_CONFIG, d->config_path, "%s", more.line[i]);
        report_error(report, &line);
    }
    if (rc == 0)
        rc = take_daemon_lock(d, e);
    if (rc)
        return rc;
    apply_log_level(d);
    d->times = job_times_read(d->conf->state_dir);
    if (!d->times)
        return err_nomem(e);
    put_right(d);
    rc = make_loop(d, e);
    if (rc == 0)
        rc = init_timetable(d, e);
    if (rc == 0)
        rc = daemon_start_mqtt(d, e);
    if (rc)
        return rc;
    daemon_tell_states(d); /* also finds out the latest time on record */
    begin_clock(d);
    return 0;
}

int daemon_run(const char *config_path, bool own_log_level, struct report *report, struct err *e)
{
    struct daemon d = {
        .config_path = config_path, .own_log_level = own_log_level, .config_fd = -1, .lock_fd = -1};
    mallopt(M_ARENA_MAX, 1);
    if (sd_watchdog_enabled(0, &d.watchdog_us) <= 0)
        d.watchdog_us = 0;
    int rc = prepare(&d, report, e);
    if (rc == 0) {
        malloc_trim(0); /* what starting took is not needed for waiting */
        log_msg(LOG_LEVEL_NOTICE, "running, %zu source%s", d.conf->source_count,
                d.conf->source_count == 1 ? "" : "s");
        sd_notify(0, "READY=1");
        rc = sd_event_loop(d.event);
        rc = rc < 0 ? err_sys(e, -rc, NULL, "the event loop failed") : 0;
    }
    daemon_stop_mqtt(&d);
    daemon_abandon_jobs(&d);
    daemon_free_states(&d);
    timetable_free(&d.timetable);
    json_decref(d.times);
    sd_event_source_disable_unref(d.wake);
    sd_event_unref(d.event);
    conf_free(d.conf);
    if (d.config_fd >= 0)
        io_close(d.config_fd);
    if (d.lock_fd >= 0)
        io_close(d.lock_fd);
    return rc;
}
