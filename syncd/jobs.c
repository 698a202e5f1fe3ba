#include "syncd/jobs.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/manners.h"
#include "syncd/signals.h"

#define KILL_AFTER_US (6 * US_PER_S)

extern char **environ;

struct job {
    pid_t pid;
    int out_fd;
    struct buf out;
    bool out_too_long, timed_out;
    sd_event *event;
    sd_event_source *child, *reader, *timeout, *killer;
    job_done_fn *done;
    void *arg;
    int64_t begun_us;
    uint64_t ticks;
    int64_t ticks_changed_us;
};

static void free_job(struct job *j)
{
    sd_event_source_disable_unref(j->child);
    sd_event_source_disable_unref(j->reader);
    sd_event_source_disable_unref(j->timeout);
    sd_event_source_disable_unref(j->killer);
    sd_event_unref(j->event);
    if (j->out_fd >= 0)
        io_close(j->out_fd);
    buf_free(&j->out);
    free(j);
}

/* ---- its answer ---- */

/* Takes what is there now; false at the end of the stream. */
static bool read_some(struct job *j)
{
    uint8_t piece[4096];
    ssize_t n = read(j->out_fd, piece, sizeof piece);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (j->out.len + (size_t)n > JOB_ANSWER_MAX)
        j->out_too_long = true;
    else
        buf_put(&j->out, piece, (size_t)n);
    return n > 0;
}

static int on_readable(sd_event_source *s, int fd, uint32_t events, void *arg)
{
    struct job *j = arg;
    (void)fd, (void)events;
    if (!read_some(j))
        sd_event_source_set_enabled(s, SD_EVENT_OFF);
    return 0;
}

/* The rest of what the ended child wrote; not what a grandchild may write yet. */
static json_t *parse_answer(struct job *j)
{
    if (j->out_fd < 0)
        return NULL;
    size_t before;
    do
        before = j->out.len;
    while (read_some(j) && j->out.len > before);
    if (j->out_too_long || j->out.bad || !j->out.len)
        return NULL;
    json_t *v = json_loadb((const char *)j->out.data, j->out.len, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(v))
        return v;
    json_decref(v);
    return NULL;
}

static int on_exit_of_child(sd_event_source *s, const siginfo_t *info, void *arg)
{
    struct job *j = arg;
    (void)s;
    bool by_itself = info->si_code == CLD_EXITED;
    struct job_result r = {.exit_code = by_itself ? info->si_status : -1,
                           .signal = by_itself ? 0 : info->si_status,
                           .timed_out = j->timed_out,
                           .answer = parse_answer(j),
                           .duration_us = clock_mono_us() - j->begun_us};
    j->done(j->arg, &r);
    json_decref(r.answer);
    free_job(j);
    return 0;
}

/* ---- ending it ---- */

static int on_kill_time(sd_event_source *s, uint64_t now, void *arg)
{
    (void)s, (void)now;
    kill(-((struct job *)arg)->pid, SIGKILL);
    return 0;
}

void job_stop(struct job *j)
{
    if (j->killer)
        return;
    kill(-j->pid, SIGTERM);
    if (sd_event_add_time_relative(j->event, &j->killer, CLOCK_MONOTONIC, KILL_AFTER_US, 0,
                                   on_kill_time, j) < 0)
        kill(-j->pid, SIGKILL);
}

void job_abandon(struct job *j)
{
    kill(-j->pid, SIGKILL);
    free_job(j);
}

static int on_timeout(sd_event_source *s, uint64_t now, void *arg)
{
    struct job *j = arg;
    (void)s, (void)now;
    j->timed_out = true;
    job_stop(j);
    return 0;
}

/* ---- starting it ---- */

struct spawn {
    const struct job_params *p;
    int out_fd; /* the pipe's end for its stdout; -1: to stderr */
    pid_t pid;
    int error;
};

static int prepare_spawn(const struct spawn *s, posix_spawn_file_actions_t *actions,
                         posix_spawnattr_t *attributes)
{
    sigset_t none, plain;
    sigemptyset(&none);
    signals_default(&plain);
    sigaddset(&plain, SIGHUP);
    /* A session of its own is also a group of its own, which is what is signalled. */
    int rc = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                      POSIX_SPAWN_SETSID);
    if (rc == 0)
        rc = posix_spawnattr_setsigmask(attributes, &none);
    if (rc == 0)
        rc = posix_spawnattr_setsigdefault(attributes, &plain);
    if (rc == 0)
        rc = posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (rc == 0)
        rc = posix_spawn_file_actions_adddup2(actions, s->out_fd < 0 ? STDERR_FILENO : s->out_fd,
                                              STDOUT_FILENO);
    if (rc == 0 && s->p->config_fd >= 0)
        rc = posix_spawn_file_actions_adddup2(actions, s->p->config_fd, JOB_CONFIG_FD);
    return rc;
}

static void spawn_now(struct spawn *s)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    s->error = posix_spawn_file_actions_init(&actions);
    if (s->error)
        return;
    s->error = posix_spawnattr_init(&attributes);
    if (s->error == 0) {
        s->error = prepare_spawn(s, &actions, &attributes);
        if (s->error == 0)
            s->error = posix_spawnp(
                &s->pid, s->p->program, &actions, &attributes, (char *const *)(uintptr_t)s->p->argv,
                s->p->environment ? (char *const *)(uintptr_t)s->p->environment : environ);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
}

/* Niceness is a thread's own on Linux, and a child inherits that of the thread that starts it. This
 * thread is only for that: the daemon keeps its own. */
static void *spawn_gently(void *arg)
{
    manners_be_quiet();
    spawn_now(arg);
    return NULL;
}

static int spawn(struct spawn *s, struct err *e)
{
    pthread_t thread;
    if (s->p->gentle) {
        int error =
            pthread_create(&thread, NULL, spawn_gently, s); /* s is the thread's from here */
        if (error)
            s->error = error;
        else
            pthread_join(thread, NULL); /* as short as a spawn */
    } else {
        spawn_now(s);
    }
    return s->error ? err_sys(e, s->error, s->p->program, "cannot start %s", s->p->program) : 0;
}

static int watch(struct job *j, const struct job_params *p)
{
    int rc = sd_event_add_child(j->event, &j->child, j->pid, WEXITED, on_exit_of_child, j);
    if (rc >= 0 && j->out_fd >= 0)
        rc = sd_event_add_io(j->event, &j->reader, j->out_fd, EPOLLIN, on_readable, j);
    if (rc >= 0 && p->timeout_us)
        rc = sd_event_add_time_relative(j->event, &j->timeout, CLOCK_MONOTONIC,
                                        (uint64_t)p->timeout_us, 0, on_timeout, j);
    return rc < 0 ? rc : 0;
}

int job_start(sd_event *event, const struct job_params *p, struct job **ret, struct err *e)
{
    struct spawn s = {.p = p, .out_fd = -1};
    OWN_FD int write_end = -1;
    struct job *j = mem_alloc(1, sizeof *j);
    if (!j)
        return err_nomem(e);
    *j = (struct job){.out_fd = -1,
                      .event = sd_event_ref(event),
                      .done = p->done,
                      .arg = p->arg,
                      .begun_us = clock_mono_us(),
                      .ticks_changed_us = clock_mono_us()};
    int ends[2], rc = 0;
    if (p->keep_answer && pipe2(ends, O_CLOEXEC) < 0)
        rc = err_sys(e, errno, p->program, "cannot make a pipe for %s", p->program);
    if (rc == 0 && p->keep_answer) {
        j->out_fd = ends[0];
        s.out_fd = write_end = ends[1];
        fcntl(j->out_fd, F_SETFL, O_NONBLOCK);
    }
    if (rc == 0)
        rc = spawn(&s, e);
    if (rc) {
        free_job(j);
        return rc;
    }
    j->pid = s.pid;
    rc = watch(j, p);
    if (rc) {
        kill(-j->pid, SIGKILL);
        waitpid(j->pid, NULL, 0);
        free_job(j);
        return err_sys(e, -rc, p->program, "cannot watch %s", p->program);
    }
    *ret = j;
    return 0;
}

/* ---- does it do anything? ---- */

/* Processor time of the process in ticks; 0 when it cannot be told. */
static uint64_t processor_ticks(pid_t pid)
{
    char path[64], text[1024];
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    OWN_FD int fd = io_open(path, O_RDONLY, 0);
    ssize_t n = fd < 0 ? -1 : io_read_full(fd, text, sizeof text - 1);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    const char *after_name = strrchr(text, ')'); /* the name may hold anything */
    if (!after_name || sscanf(after_name, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                              &user, &system) != 2)
        return 0;
    return (uint64_t)user + system;
}

int64_t job_quiet_us(struct job *j)
{
    uint64_t ticks = processor_ticks(j->pid);
    int64_t now_us = clock_mono_us();
    if (ticks != j->ticks) {
        j->ticks = ticks;
        j->ticks_changed_us = now_us;
    }
    return now_us - j->ticks_changed_us;
}
