#include "syncd/ask.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <termios.h>
#include <unistd.h>

#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/progress.h"
#include "syncd/show.h"
#include "syncd/signals.h"

#define ANSWER_MAX 1024 /* with the NUL */
#define TRIES 3

bool ask_has_terminal(void)
{
    OWN_FD int fd = io_open("/dev/tty", O_RDWR | O_NOCTTY, 0);
    return fd >= 0;
}

static int open_terminal(const char *question, const char *flag, int *ret, struct err *e)
{
    int fd = io_open("/dev/tty", O_RDWR | O_NOCTTY, 0);
    if (fd >= 0) {
        *ret = fd;
        return 0;
    }
    err_set(e, ERR_USAGE, NULL, "there is no terminal to ask: %s", question);
    return err_hint(e, "answer with %s", flag);
}

static int say(int fd, const char *text, struct err *e)
{
    if (io_write_all(fd, text, strlen(text)))
        return err_sys(e, errno, NULL, "cannot write to the terminal");
    return 0;
}

/* One line without its newline. ERR_REFUSED at the end of the input, ERR_LIMIT. The terminal hands
 * over whole lines, so one read is one answer. */
static int read_line(int fd, char ret[static ANSWER_MAX], struct err *e)
{
    int rc = signals_wait_readable(fd, -1, e);
    if (rc < 0)
        return rc;
    ssize_t n;
    do
        n = read(fd, ret, ANSWER_MAX - 1);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_sys(e, errno, NULL, "cannot read from the terminal");
    if (n == 0)
        return err_set(e, ERR_REFUSED, NULL, "there was no answer");
    ret[n] = '\0';
    if (ret[n - 1] != '\n' && n == ANSWER_MAX - 1) {
        tcflush(fd, TCIFLUSH);
        return err_set(e, ERR_LIMIT, NULL, "the answer is longer than %d bytes", ANSWER_MAX - 2);
    }
    ret[strcspn(ret, "\n")] = '\0';
    return 0;
}

/* Asks once: the question, made safe, then the answer. */
static int ask_once(int fd, const char *question, const char *after, char ret[static ANSWER_MAX],
                    struct err *e)
{
    OWN_BUF struct buf text = BUF_INIT;
    show_safe(question, &text);
    buf_put_str(&text, after);
    const char *line = buf_cstr(&text);
    if (!line)
        return err_nomem(e);
    progress_hide();
    int rc = say(fd, line, e);
    if (!rc)
        rc = read_line(fd, ret, e);
    if (rc == ERR_CANCELLED)
        say(fd, "\n", NULL); /* the next message gets a line of its own */
    progress_show();
    return rc;
}

int ask_yes(const char *question, const char *flag, bool answered, struct err *e)
{
    if (answered)
        return 0;
    OWN_FD int fd = -1;
    int rc = open_terminal(question, flag, &fd, e);
    char answer[ANSWER_MAX];
    if (!rc)
        rc = ask_once(fd, question, " [y/N] ", answer, e);
    if (rc)
        return rc;
    if (strcasecmp(answer, "y") == 0 || strcasecmp(answer, "yes") == 0)
        return 0;
    return err_set(e, ERR_REFUSED, NULL, "the answer was no: %s", question);
}

int ask_line(const char *question, const char *otherwise, const char *flag, char **ret,
             struct err *e)
{
    OWN_FD int fd = -1;
    int rc = open_terminal(question, flag, &fd, e);
    if (rc)
        return rc;
    OWN_BUF struct buf after = BUF_INIT;
    if (otherwise)
        buf_printf(&after, " [%s]", otherwise);
    buf_put_str(&after, ": ");
    if (!buf_cstr(&after))
        return err_nomem(e);
    char answer[ANSWER_MAX] = "";
    for (int i = 0; i < TRIES && !*answer; i++) {
        rc = ask_once(fd, question, buf_cstr(&after), answer, e);
        if (rc)
            return rc;
        if (!*answer && otherwise)
            break;
    }
    if (!*answer && !otherwise)
        return err_set(e, ERR_REFUSED, NULL, "there was no answer: %s", question);
    char *copy = strdup(*answer ? answer : otherwise);
    if (!copy)
        return err_nomem(e);
    *ret = copy;
    return 0;
}

/* Hides what is typed. Ctrl-Z and Ctrl-\ are off meanwhile: they would leave the terminal silent.
 */
static int silence(int fd, struct termios *ret_before, struct err *e)
{
    struct termios silent;
    if (tcgetattr(fd, ret_before))
        return err_sys(e, errno, NULL, "cannot ask the terminal for its settings");
    silent = *ret_before;
    silent.c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK | ECHONL);
    silent.c_lflag |= ICANON | ISIG;
    silent.c_cc[VSUSP] = _POSIX_VDISABLE;
    silent.c_cc[VQUIT] = _POSIX_VDISABLE;
    if (tcsetattr(fd, TCSAFLUSH, &silent))
        return err_sys(e, errno, NULL, "cannot hide what is typed");
    return 0;
}

int ask_password(const char *question, const char *flag, char **ret, struct err *e)
{
    OWN_FD int fd = -1;
    struct termios before;
    int rc = open_terminal(question, flag, &fd, e);
    if (!rc)
        rc = silence(fd, &before, e);
    if (rc)
        return rc;
    char answer[ANSWER_MAX] = "";
    rc = ask_once(fd, question, ": ", answer, e);
    tcsetattr(fd, TCSAFLUSH, &before);
    if (rc != ERR_CANCELLED)
        say(fd, "\n", NULL); /* the user's own was not shown */
    if (!rc && !*answer)
        rc = err_set(e, ERR_REFUSED, NULL, "no password was given");
    char *copy = rc ? NULL : strdup(answer);
    if (!rc && !copy)
        rc = err_nomem(e);
    explicit_bzero(answer, sizeof answer);
    if (!rc)
        *ret = copy;
    return rc;
}

void ask_wipe(char **secret)
{
    if (*secret)
        explicit_bzero(*secret, strlen(*secret));
    free(*secret);
    *secret = NULL;
}
