#include "syncd/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"

static int read_end = -1;
static int write_end = -1;
static atomic_bool cancelled;
static volatile sig_atomic_t first_signal;

static void on_signal(int number)
{
    int saved = errno;
    if (first_signal) {
        /* The user insists: end as if there had been no handler. */
        struct sigaction plain = {.sa_handler = SIG_DFL};
        sigaction(number, &plain, NULL);
        raise(number);
    } else {
        first_signal = number;
        atomic_store(&cancelled, true);
        ssize_t put = write(write_end, "!", 1);
        (void)put; /* the pipe is empty, so there is room */
    }
    errno = saved;
}

int signals_start(struct err *e)
{
    if (read_end >= 0)
        return 0;
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return err_sys(e, errno, NULL, "cannot make a pipe for signals");
    read_end = ends[0];
    write_end = ends[1];
    struct sigaction handler = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&handler.sa_mask);
    if (sigaction(SIGINT, &handler, NULL) || sigaction(SIGTERM, &handler, NULL) ||
        sigaction(SIGPIPE, &ignore, NULL))
        return err_sys(e, errno, NULL, "cannot handle signals");
    return 0;
}

const int *signals_cancel_fd(void)
{
    return &read_end;
}

const atomic_bool *signals_cancel_flag(void)
{
    return &cancelled;
}

bool signals_cancelled(void)
{
    return atomic_load(&cancelled);
}

int signals_exit_code(int otherwise)
{
    return first_signal ? 128 + first_signal : otherwise;
}

int signals_check(struct err *e)
{
    if (!signals_cancelled())
        return 0;
    return err_set(e, ERR_CANCELLED, NULL, "stopped by %s",
                   first_signal == SIGINT ? "SIGINT" : "SIGTERM");
}

int signals_wait_readable(int fd, int timeout_ms, struct err *e)
{
    int64_t deadline_us = clock_mono_us() + timeout_ms * US_PER_MS;
    for (;;) {
        int left_ms = -1;
        if (timeout_ms >= 0) {
            int64_t left_us = deadline_us - clock_mono_us();
            left_ms = left_us > 0 ? (int)((left_us + US_PER_MS - 1) / US_PER_MS) : 0;
        }
        struct pollfd fds[2] = {{.fd = read_end, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
        int n = poll(fds, 2, left_ms);
        int rc = signals_check(e);
        if (rc)
            return rc;
        if (n < 0 && errno != EINTR)
            return err_sys(e, errno, NULL, "cannot wait");
        if (n > 0 && fds[1].revents)
            return 1;
        if (n == 0)
            return 0;
    }
}

void signals_default(sigset_t *ret)
{
    sigemptyset(ret);
    sigaddset(ret, SIGINT);
    sigaddset(ret, SIGTERM);
    sigaddset(ret, SIGPIPE);
}
