#include "syncd/base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define SAID_MAX 16384 /* of its first words; more is not looked at */

extern char **environ;

static int open_as(posix_spawn_file_actions_t *actions, int fd, int as)
{
    return fd < 0 ? posix_spawn_file_actions_addopen(actions, as, "/dev/null", O_RDWR, 0)
                  : posix_spawn_file_actions_adddup2(actions, fd, as);
}

static int spawn(const char *const argv[], char *const envp[], int in_fd, int out_fd, int err_fd,
                 pid_t *ret)
{
    static const int handled[] = {SIGHUP, SIGINT, SIGTERM, SIGPIPE, SIGIO, SIGUSR1};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t defaults, none;
    sigemptyset(&none);
    sigemptyset(&defaults);
    for (size_t i = 0; i < ARRAY_LEN(handled); i++)
        sigaddset(&defaults, handled[i]);
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc)
        return rc;
    rc = posix_spawnattr_init(&attr);
    if (rc) {
        posix_spawn_file_actions_destroy(&actions);
        return rc;
    }
    rc = open_as(&actions, in_fd, 0);
    rc = rc ? rc : open_as(&actions, out_fd, 1);
    rc = rc ? rc : open_as(&actions, err_fd, 2);
    rc = rc ? rc : posix_spawnattr_setsigdefault(&attr, &defaults);
    rc = rc ? rc : posix_spawnattr_setsigmask(&attr, &none);
    rc = rc ? rc : posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    if (rc == 0)
        rc = posix_spawnp(ret, argv[0], &actions, &attr, (char *const *)(uintptr_t)argv,
                          envp ? envp : environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

int process_start(const char *const argv[], char *const envp[], int in_fd, int out_fd,
                  struct process *ret, struct err *e)
{
    struct process p = {.said_fd = memfd_create("said", MFD_CLOEXEC)};
    const char *slash = strrchr(argv[0], '/');
    snprintf(p.name, sizeof p.name, "%s", slash ? slash + 1 : argv[0]);
    int rc = p.said_fd < 0 ? errno : spawn(argv, envp, in_fd, out_fd, p.said_fd, &p.pid);
    if (rc) {
        mem_closep(&p.said_fd);
        return err_sys(e, rc, argv[0], "cannot start %s", argv[0]);
    }
    *ret = p;
    return 0;
}

/* What it said, as a string; at most SAID_MAX bytes of it. */
static void read_said(const struct process *p, char ret[static SAID_MAX])
{
    ssize_t n = io_pread_full(p->said_fd, ret, SAID_MAX - 1, 0);
    ret[MAX(n, (ssize_t)0)] = '\0';
}

bool process_said(const struct process *p, const char *text)
{
    char said[SAID_MAX];
    read_said(p, said);
    return strstr(said, text) != NULL;
}

/* "<program>: error: <why>": <why> of the first such line; else the last line. */
static const char *reason_in(char *said)
{
    size_t n = strlen(said);
    while (n > 0 && (said[n - 1] == '\n' || said[n - 1] == ' '))
        said[--n] = '\0';
    char *line = strcasestr(said, "error: ");
    if (line) {
        line += strlen("error: ");
        line += strspn(line, " ");
        line[strcspn(line, "\n")] = '\0';
        return line;
    }
    char *last = strrchr(said, '\n');
    return last ? last + 1 : said;
}

static int reap(struct process *p)
{
    int status = 0;
    while (waitpid(p->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    p->pid = 0;
    return status;
}

int process_wait(struct process *p, struct err *e)
{
    char said[SAID_MAX];
    int status = reap(p);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (WIFSIGNALED(status))
        return err_set(e, ERR_IO, p->name, "%s was ended by signal %d", p->name, WTERMSIG(status));
    read_said(p, said);
    const char *reason = reason_in(said);
    return err_set(e, ERR_IO, p->name, "%s failed (exit %d)%s%s", p->name, WEXITSTATUS(status),
                   *reason ? ": " : "", reason);
}

void process_end(struct process *p)
{
    if (p->pid > 0) {
        kill(p->pid, SIGKILL);
        reap(p);
    }
    mem_closep(&p->said_fd);
}

int process_pipe(int *ret_read, int *ret_write, struct err *e)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_sys(e, errno, NULL, "cannot make a pipe");
    *ret_read = ends[0];
    *ret_write = ends[1];
    return 0;
}
