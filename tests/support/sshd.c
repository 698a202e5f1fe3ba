#include "tests/support/sshd.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "syncd/base/clock.h"
#include "syncd/base/mem.h"

extern char **environ;

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "test support: ");
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
    exit(1);
}

pid_t test_spawn(const char *const argv[], const char *log)
{
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (log) {
        posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        posix_spawn_file_actions_adddup2(&actions, 1, 2);
    }
    pid_t pid;
    int rc = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (rc)
        die("cannot start %s: %s", argv[0], strerror(rc));
    return pid;
}

int test_run(const char *const argv[])
{
    int status;
    pid_t pid = test_spawn(argv, NULL);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            die("cannot wait for %s", argv[0]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

uint16_t test_free_port(void)
{
    struct sockaddr_in a = loopback(0);
    socklen_t len = sizeof a;
    OWN_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) < 0)
        die("no free port: %s", strerror(errno));
    return ntohs(a.sin_port);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void test_remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void write_config(const struct sshd *s, const char *config)
{
    char path[128];
    snprintf(path, sizeof path, "%s/sshd_config", s->folder);
    FILE *f = fopen(path, "w");
    if (!f)
        die("cannot write %s", path);
    fprintf(f,
            "%s\nPort %u\nListenAddress 127.0.0.1\nHostKey %s/host_ed25519\n"
            "HostKey %s/host_ecdsa\nPidFile none\nAuthorizedKeysFile %s/authorized_keys\n"
            "StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\n"
            "MaxStartups 100\nLogLevel ERROR\n%s\n",
            config ? config : "", (unsigned)s->port, s->folder, s->folder, s->folder,
            config && strstr(config, "Subsystem") ? "" : "Subsystem sftp internal-sftp");
    fclose(f);
}

static void make_key(const char *folder, const char *name, const char *type)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    const char *const argv[] = {"ssh-keygen", "-q", "-t", type, "-N", "", "-f", path, NULL};
    if (test_run(argv))
        die("ssh-keygen failed");
}

/* `to` becomes `before` and then the contents of `from`. */
static void copy_text(const char *folder, const char *from, const char *to, const char *before)
{
    char path[128], text[1024];
    snprintf(path, sizeof path, "%s/%s", folder, from);
    FILE *in = fopen(path, "r");
    size_t n = in ? fread(text, 1, sizeof text, in) : 0;
    snprintf(path, sizeof path, "%s/%s", folder, to);
    FILE *out = fopen(path, "w");
    if (!in || !out)
        die("cannot copy %s to %s", from, to);
    fprintf(out, "%s%.*s", before, (int)n, text);
    fclose(in);
    fclose(out);
}

static bool answers(uint16_t port)
{
    struct sockaddr_in a = loopback(port);
    OWN_FD int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char c;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return connect(fd, (struct sockaddr *)&a, sizeof a) == 0 && poll(&p, 1, 5000) == 1 &&
           read(fd, &c, 1) == 1;
}

int test_wait_port(uint16_t port, pid_t pid)
{
    int64_t deadline = clock_mono_us() + 10 * US_PER_S;
    while (!answers(port)) {
        if (waitpid(pid, NULL, WNOHANG) == pid || clock_mono_us() > deadline)
            return -1;
        poll(NULL, 0, 20);
    }
    return 0;
}

void sshd_restart(struct sshd *s)
{
    char config[128], log[128];
    snprintf(config, sizeof config, "%s/sshd_config", s->folder);
    snprintf(log, sizeof log, "%s/log", s->folder);
    /* sshd insists on an absolute path for itself; as root it also wants this folder. */
    if (geteuid() == 0)
        mkdir("/run/sshd", 0755);
    const char *const argv[] = {"/usr/sbin/sshd", "-D", "-e", "-f", config, NULL};
    s->pid = test_spawn(argv, log);
    if (test_wait_port(s->port, s->pid))
        die("sshd did not start: see %s", log);
}

void sshd_start(struct sshd *s, const char *config)
{
    *s = (struct sshd){.port = test_free_port()};
    snprintf(s->folder, sizeof s->folder, "/tmp/syncd-test-sshd-XXXXXX");
    if (!mkdtemp(s->folder))
        die("cannot make a folder under /tmp");
    snprintf(s->key, sizeof s->key, "%s/key", s->folder);
    snprintf(s->known_hosts, sizeof s->known_hosts, "%s/known_hosts", s->folder);
    make_key(s->folder, "host_ed25519", "ed25519");
    make_key(s->folder, "host_ecdsa", "ecdsa");
    make_key(s->folder, "key", "ed25519");
    char name[64];
    snprintf(name, sizeof name, "[127.0.0.1]:%u ", (unsigned)s->port);
    copy_text(s->folder, "host_ed25519.pub", "known_hosts", name);
    copy_text(s->folder, "key.pub", "authorized_keys", "");
    write_config(s, config);
    sshd_restart(s);
}

static pid_t parent_of(pid_t pid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    OWN_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n <= 0)
        return -1;
    text[n] = '\0';
    const char *after_name = strrchr(text, ')');
    int parent = -1;
    if (!after_name || sscanf(after_name + 1, " %*c %d", &parent) != 1)
        return -1;
    return parent;
}

/* Only descendants of the process that this test started are meant. */
static void signal_children(pid_t pid, int signal_number)
{
    DIR *d = opendir("/proc");
    if (!d)
        return;
    for (struct dirent *entry; (entry = readdir(d));) {
        pid_t child = (pid_t)strtol(entry->d_name, NULL, 10);
        if (child > 1 && parent_of(child) == pid) {
            signal_children(child, signal_number);
            kill(child, signal_number);
        }
    }
    closedir(d);
}

void sshd_signal_sessions(struct sshd *s, int signal_number)
{
    signal_children(s->pid, signal_number);
}

void sshd_kill(struct sshd *s)
{
    if (s->pid <= 0)
        return;
    kill(s->pid, SIGSTOP); /* so that it takes no connection in between */
    signal_children(s->pid, SIGKILL);
    kill(s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
}

void sshd_stop(struct sshd *s)
{
    sshd_kill(s);
    test_remove_tree(s->folder);
}

/* One direction of a relayed connection: what was read waits here until it is due. */
#define RELAY_PIECES 4096
struct direction {
    int from, to;
    struct piece {
        int64_t due_us;
        size_t n, done;
        char *data;
    } pieces[RELAY_PIECES];
    size_t first, count;
    bool ended;
};

static void relay_read(struct direction *d, int64_t delay_us)
{
    char data[65536];
    ssize_t n = recv(d->from, data, sizeof data, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    struct piece *p = &d->pieces[(d->first + d->count++) % RELAY_PIECES];
    *p = (struct piece){.due_us = clock_mono_us() + delay_us, .n = n > 0 ? (size_t)n : 0};
    p->data = malloc(p->n + 1);
    if (p->n)
        memcpy(p->data, data, p->n);
    else
        d->ended = true;
}

/* Passes on what is due; false when the connection is over. */
static bool relay_write(struct direction *d, int64_t now_us)
{
    while (d->count) {
        struct piece *p = &d->pieces[d->first];
        if (p->due_us > now_us)
            return true;
        if (p->n == 0)
            return false;
        ssize_t n = send(d->to, p->data + p->done, p->n - p->done, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        p->done += (size_t)n;
        if (p->done < p->n)
            return true;
        free(p->data);
        d->first = (d->first + 1) % RELAY_PIECES;
        d->count--;
    }
    return true;
}

static void relay_connection(int a, int b, int64_t delay_us)
{
    int on = 1;
    setsockopt(a, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(b, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    static struct direction d[2];
    d[0] = (struct direction){.from = a, .to = b};
    d[1] = (struct direction){.from = b, .to = a};
    for (;;) {
        int64_t now_us = clock_mono_us(), next_us = now_us + US_PER_S;
        struct pollfd p[2];
        for (int i = 0; i < 2; i++) {
            if (!relay_write(&d[i], now_us))
                return;
            bool room = d[i].count < RELAY_PIECES && !d[i].ended;
            p[i] = (struct pollfd){.fd = d[i].from, .events = room ? POLLIN : 0};
        }
        for (int i = 0; i < 2; i++) {
            if (d[i].count == 0)
                continue;
            int64_t due_us = d[i].pieces[d[i].first].due_us;
            if (due_us <= now_us) /* the receiver is full */
                p[1 - i].events |= POLLOUT;
            else
                next_us = MIN(next_us, due_us);
        }
        struct timespec wait = {.tv_nsec = (long)(next_us - now_us) * 1000 % 1000000000};
        if (ppoll(p, 2, &wait, NULL) < 0)
            return;
        for (int i = 0; i < 2; i++)
            if (p[i].revents & (POLLIN | POLLHUP | POLLERR) && !d[i].ended &&
                d[i].count < RELAY_PIECES)
                relay_read(&d[i], delay_us);
    }
}

void relay_start(struct relay *r, uint16_t port, int64_t delay_us)
{
    struct sockaddr_in a = loopback(0), target = loopback(port);
    socklen_t len = sizeof a;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof a) < 0 ||
        listen(listener, 8) < 0 || getsockname(listener, (struct sockaddr *)&a, &len) < 0)
        die("no relay: %s", strerror(errno));
    r->port = ntohs(a.sin_port);
    r->pid = fork();
    if (r->pid == 0) {
        signal(SIGCHLD, SIG_IGN);
        for (;;) {
            int from = accept(listener, NULL, NULL);
            if (from >= 0 && fork() == 0) {
                int to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
                if (connect(to, (struct sockaddr *)&target, sizeof target) == 0)
                    relay_connection(from, to, delay_us);
                _exit(0);
            }
            close(from);
        }
    }
    close(listener);
}

void relay_stop(struct relay *r)
{
    if (r->pid <= 0)
        return;
    kill(r->pid, SIGSTOP);
    signal_children(r->pid, SIGKILL);
    kill(r->pid, SIGKILL);
    waitpid(r->pid, NULL, 0);
    r->pid = 0;
}
