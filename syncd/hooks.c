#include "syncd/hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/signals.h"

#define KILL_AFTER_US (2 * US_PER_S)
#define LAST_WORDS_US (5 * US_PER_S) /* for a hook that begins after a signal */
#define POLL_MS 100

extern char **environ;

/* ---- environment ---- */

static char *assignment(const char *name, const char *value)
{
    char *text = NULL;
    return asprintf(&text, "%s=%s", name, value ? value : "") < 0 ? NULL : text;
}

static bool is_a_fact(const char *entry)
{
    static const char *const names[] = {
        "SYNCD_SOURCE=", "SYNCD_STATE=", "SYNCD_AS_OF=", "SYNCD_ERROR="};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strncmp(entry, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

char **hooks_environment(const struct hook_facts *f)
{
    size_t count = 0, n = 0;
    char as_of[CLOCK_TEXT_SIZE] = "";
    while (environ[count])
        count++;
    char **list = mem_alloc(count + 5, sizeof *list);
    if (!list)
        return NULL;
    if (f->as_of_us > 0)
        clock_rfc3339(f->as_of_us, as_of);
    const char *facts[][2] = {{"SYNCD_SOURCE", f->source},
                              {"SYNCD_STATE", f->state},
                              {"SYNCD_AS_OF", as_of},
                              {"SYNCD_ERROR", f->error}};
    bool ok = true;
    for (size_t i = 0; ok && i < ARRAY_LEN(facts); i++)
        ok = (list[n++] = assignment(facts[i][0], facts[i][1])) != NULL;
    for (size_t i = 0; ok && i < count; i++)
        if (!is_a_fact(environ[i]))
            ok = (list[n++] = strdup(environ[i])) != NULL;
    if (ok)
        return list;
    hooks_environment_free(list);
    return NULL;
}

void hooks_environment_free(char **environment)
{
    for (char **p = environment; p && *p; p++)
        free(*p);
    free(environment);
}

/* ---- running ---- */

static int spawn(char *const *argv, char **environment, pid_t *ret)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, plain;
    sigemptyset(&none);
    signals_default(&plain);
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc)
        return rc;
    rc = posix_spawnattr_init(&attributes);
    if (rc == 0) {
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                  POSIX_SPAWN_SETPGROUP);
        posix_spawnattr_setsigmask(&attributes, &none);
        posix_spawnattr_setsigdefault(&attributes, &plain);
        rc = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        if (rc == 0)
            rc = posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
        if (rc == 0)
            rc = posix_spawnp(ret, argv[0], &actions, &attributes, argv, environment);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

struct wait {
    pid_t pid;
    int pid_fd;
    int64_t deadline_us, kill_us; /* kill_us 0: it has not been told to end yet */
    bool cut, late, cancelled_before;
};

/* Tells it to end when it is time to; SIGKILL when that was of no use. */
static void press(struct wait *w)
{
    int64_t now_us = clock_mono_us();
    if (w->kill_us) {
        if (now_us > w->kill_us)
            kill(-w->pid, SIGKILL);
        return;
    }
    w->late = now_us > w->deadline_us;
    w->cut = !w->late && !w->cancelled_before && signals_cancelled();
    if (!w->late && !w->cut)
        return;
    kill(-w->pid, SIGTERM);
    w->kill_us = now_us + KILL_AFTER_US;
}

static int wait_for(struct wait *w)
{
    int status = 0;
    struct pollfd fd = {.fd = w->pid_fd, .events = POLLIN}; /* -1: poll only waits */
    while (waitpid(w->pid, &status, WNOHANG) == 0) {
        poll(&fd, 1, POLL_MS);
        press(w);
    }
    return status;
}

static int judge(const struct wait *w, int status, const char *name, const char *program,
                 int64_t timeout_s, struct err *e)
{
    if (w->cut)
        return err_set(e, ERR_CANCELLED, program, "%s: %s was ended by a signal", name, program);
    if (w->late) {
        err_set(e, ERR_TIMEOUT, program, "%s: %s did not end within %lld s", name, program,
                (long long)timeout_s);
        return err_hint(e, "hook_timeout sets the longest time");
    }
    if (WIFSIGNALED(status))
        return err_set(e, ERR_REFUSED, program, "%s: %s was killed: %s", name, program,
                       strsignal(WTERMSIG(status)));
    if (WEXITSTATUS(status))
        return err_set(e, ERR_REFUSED, program, "%s: %s ended with %d", name, program,
                       WEXITSTATUS(status));
    return 0;
}

int hooks_run(const char *name, char *const *argv, const struct hook_facts *f, int64_t timeout_s,
              struct err *e)
{
    if (!argv || !argv[0])
        return 0;
    struct wait w = {.cancelled_before = signals_cancelled()};
    char **environment = hooks_environment(f);
    if (!environment)
        return err_nomem(e);
    int error = spawn(argv, environment, &w.pid);
    hooks_environment_free(environment);
    if (error) {
        err_sys(e, error, argv[0], "%s: cannot start %s", name, argv[0]);
        return err_hint(e, "a hook is a program and its arguments; no shell reads it");
    }
    int64_t limit_us = timeout_s * US_PER_S;
    if (w.cancelled_before)
        limit_us = MIN(limit_us, LAST_WORDS_US);
    w.deadline_us = clock_mono_us() + limit_us;
    w.pid_fd = pidfd_open(w.pid, 0);
    int status = wait_for(&w);
    if (w.pid_fd >= 0)
        io_close(w.pid_fd);
    return judge(&w, status, name, argv[0], timeout_s, e);
}
