#include "syncd/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/signals.h"

#define READ_BYTES 4096

extern char **environ;

static int spawn(const char *const argv[], int output_fd, pid_t *ret, struct err *e)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t defaults, none;
    signals_default(&defaults);
    sigemptyset(&none);
    if (posix_spawn_file_actions_init(&actions))
        return err_nomem(e);
    if (posix_spawnattr_init(&attr)) {
        posix_spawn_file_actions_destroy(&actions);
        return err_nomem(e);
    }
    int rc = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    rc = rc ? rc : posix_spawn_file_actions_adddup2(&actions, output_fd, 1);
    rc = rc ? rc : posix_spawn_file_actions_adddup2(&actions, output_fd, 2);
    rc = rc ? rc : posix_spawnattr_setsigdefault(&attr, &defaults);
    rc = rc ? rc : posix_spawnattr_setsigmask(&attr, &none);
    rc = rc ? rc : posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    if (rc == 0)
        rc = posix_spawnp(ret, argv[0], &actions, &attr, (char *const *)(uintptr_t)argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    return rc ? err_sys(e, rc, argv[0], "cannot start %s", argv[0]) : 0;
}

/* Until the deadline; 0 when fd can be read. */
static int wait_for(int fd, int64_t deadline_us, const char *name, struct err *e)
{
    int64_t left_ms = (deadline_us - clock_mono_us()) / US_PER_MS;
    int rc = signals_wait_readable(fd, left_ms > 0 ? (int)left_ms : 0, e);
    if (rc == 0)
        return err_set(e, ERR_TIMEOUT, name, "%s did not end in time and was stopped", name);
    return rc < 0 ? rc : 0;
}

static int read_output(int fd, int64_t deadline_us, const char *name, struct buf *output,
                       struct err *e)
{
    size_t begin = output->len;
    for (;;) {
        int rc = wait_for(fd, deadline_us, name, e);
        uint8_t *at = rc ? NULL : buf_extend(output, READ_BYTES);
        if (rc || !at)
            return rc ? rc : err_nomem(e);
        ssize_t n;
        do
            n = read(fd, at, READ_BYTES);
        while (n < 0 && errno == EINTR);
        output->len -= READ_BYTES - (size_t)MAX(n, (ssize_t)0);
        if (n < 0)
            return err_sys(e, errno, name, "cannot read what %s says", name);
        if (n == 0)
            return 0;
        if (output->len - begin > CHILD_OUTPUT_MAX)
            return err_set(e, ERR_LIMIT, name, "%s says more than %d bytes", name,
                           CHILD_OUTPUT_MAX);
    }
}

/* "<program> failed: <its last line>" */
static int failed(const char *name, int status, struct buf *output, size_t begin, struct err *e)
{
    while (output->len > begin && strchr("\r\n ", output->data[output->len - 1]))
        output->len--;
    const char *text = buf_cstr(output);
    if (!text)
        return err_nomem(e);
    const char *newline = output->len > begin ? strrchr(text + begin, '\n') : NULL;
    const char *line = newline ? newline + 1 : text + begin;
    if (WIFSIGNALED(status))
        return err_set(e, ERR_IO, name, "%s was ended by signal %d", name, WTERMSIG(status));
    return err_set(e, ERR_IO, name, "%s failed (exit %d)%s%s", name, WEXITSTATUS(status),
                   *line ? ": " : "", line);
}

int child_run(const char *const argv[], int timeout_ms, struct buf *output, struct err *e)
{
    int64_t deadline_us = clock_mono_us() + timeout_ms * US_PER_MS;
    OWN_FD int read_fd = -1, write_fd = -1, pid_fd = -1;
    int ends[2], status = 0;
    pid_t pid = -1;
    size_t begin = output->len;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_sys(e, errno, argv[0], "cannot start %s", argv[0]);
    read_fd = ends[0];
    write_fd = ends[1];
    int rc = spawn(argv, write_fd, &pid, e);
    if (rc)
        return rc;
    mem_closep(&write_fd); /* or the output would never end */
    rc = read_output(read_fd, deadline_us, argv[0], output, e);
    if (rc == 0) {
        pid_fd = pidfd_open(pid, 0);
        rc = pid_fd < 0 ? err_sys(e, errno, argv[0], "cannot wait for %s", argv[0])
                        : wait_for(pid_fd, deadline_us, argv[0], e);
    }
    if (rc)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (rc == 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
        rc = failed(argv[0], status, output, begin, e);
    return rc;
}
