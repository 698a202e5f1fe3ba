#include "terminal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "syncd/base/clock.h"

#define PATIENCE_US (10 * US_PER_S)

static pid_t fork_without_terminal(int *ret_fd)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        setsid(); /* leaves the terminal that the tests may run on */
        dup2(ends[1], 2);
        close(ends[0]);
    }
    close(ends[1]);
    *ret_fd = ends[0];
    return pid;
}

void terminal_start(struct terminal *t, unsigned short columns, int (*body)(void))
{
    *t = (struct terminal){.fd = -1};
    struct winsize size = {.ws_row = 24, .ws_col = columns};
    t->pid = columns ? forkpty(&t->fd, NULL, NULL, &size) : fork_without_terminal(&t->fd);
    assert_true(t->pid >= 0);
    if (t->pid == 0)
        _exit(body());
}

/* Takes in what is there, waiting for at most 100 ms; false at the end. */
static bool take_in(struct terminal *t)
{
    struct pollfd p = {.fd = t->fd, .events = POLLIN};
    if (poll(&p, 1, 100) <= 0)
        return true;
    ssize_t n = read(t->fd, t->seen + t->len, sizeof t->seen - 1 - t->len);
    if (n > 0)
        t->len += (size_t)n;
    t->seen[t->len] = '\0';
    return n > 0 || (n < 0 && errno == EINTR);
}

size_t terminal_expect(struct terminal *t, size_t from, const char *text)
{
    int64_t deadline_us = clock_mono_us() + PATIENCE_US;
    const char *found;
    bool more = true;
    while (!(found = strstr(t->seen + from, text)) && more && clock_mono_us() < deadline_us)
        more = take_in(t);
    if (!found) {
        kill(t->pid, SIGKILL);
        fail_msg("\"%s\" was not shown, but: %s", text, t->seen + from);
    }
    return (size_t)(found - t->seen) + strlen(text);
}

void terminal_type(struct terminal *t, const char *text)
{
    assert_int_equal(write(t->fd, text, strlen(text)), (ssize_t)strlen(text));
}

bool terminal_echoes(const struct terminal *t)
{
    struct termios settings;
    assert_int_equal(tcgetattr(t->fd, &settings), 0);
    return (settings.c_lflag & ECHO) != 0;
}

int terminal_end(struct terminal *t)
{
    int64_t deadline_us = clock_mono_us() + PATIENCE_US;
    int status;
    pid_t pid;
    while ((pid = waitpid(t->pid, &status, WNOHANG)) == 0) {
        if (clock_mono_us() > deadline_us) {
            kill(t->pid, SIGKILL);
            waitpid(t->pid, &status, 0);
            fail_msg("the child did not end; it showed: %s", t->seen);
        }
        take_in(t);
    }
    while (take_in(t) && clock_mono_us() < deadline_us) {
        struct pollfd p = {.fd = t->fd, .events = POLLIN};
        if (poll(&p, 1, 0) <= 0)
            break;
    }
    close(t->fd);
    t->fd = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
