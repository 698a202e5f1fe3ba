#include "transport/net.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

/* An address that swallows packets must leave time for the ones after it. */
#define CONNECT_EACH_US (10 * US_PER_S)

int net_poll(int fd, short events, const struct net_wait *w)
{
    for (;;) {
        struct pollfd p[2] = {{.fd = fd, .events = events},
                              {.fd = w->cancel_fd ? *w->cancel_fd : -1, .events = POLLIN}};
        int64_t left_us = w->deadline_us - clock_mono_us();
        int left_ms = (int)MIN((MAX(left_us, (int64_t)0) + 999) / 1000, (int64_t)INT_MAX);
        int n = poll(p, 2, left_ms);
        if (n < 0 && errno != EINTR)
            return ERR_TIMEOUT; /* ENOMEM: nothing will come of it */
        if (n > 0 && p[1].revents)
            return ERR_CANCELLED;
        if (n > 0)
            return 0;
        if (left_us <= 0)
            return ERR_TIMEOUT;
    }
}

/* getaddrinfo knows no deadline, so it runs in a thread of its own, which is left behind when it is
 * late. Whoever lets go last frees this. */
struct lookup {
    char host[256];
    char port[8];
    int done_fd;
    int rc;
    int errnum;
    struct addrinfo *list;
    atomic_bool done; /* set before done_fd becomes readable; orders what is above */
    atomic_int holders;
};

static void lookup_release(struct lookup *l)
{
    if (atomic_fetch_sub(&l->holders, 1) != 1)
        return;
    if (l->list)
        freeaddrinfo(l->list);
    if (l->done_fd >= 0)
        close(l->done_fd);
    free(l);
}

static void lookup_releasep(struct lookup **l)
{
    if (*l)
        lookup_release(*l);
}

static void *lookup_run(void *arg)
{
    struct lookup *l = arg;
    const struct addrinfo want = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    l->rc = getaddrinfo(l->host, l->port, &want, &l->list);
    l->errnum = errno;
    if (l->rc)
        l->list = NULL;
    atomic_store(&l->done, true);
    eventfd_write(l->done_fd, 1);
    lookup_release(l);
    return NULL;
}

static int lookup_start(struct lookup *l)
{
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all, before;
    if (pthread_attr_init(&attr))
        return -1;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigfillset(&all); /* signals are for the threads that know what to do with them */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    atomic_fetch_add(&l->holders, 1);
    int rc = pthread_create(&thread, &attr, lookup_run, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (rc)
        atomic_fetch_sub(&l->holders, 1);
    return rc ? -1 : 0;
}

static int lookup_failed(const struct lookup *l, struct err *e)
{
    int rc;
    if (l->rc == EAI_SYSTEM)
        rc = err_set(e, ERR_CONNECT, l->host, "the name %s cannot be looked up: %s", l->host,
                     strerror(l->errnum));
    else
        rc = err_set(e, ERR_CONNECT, l->host, "the name %s cannot be looked up: %s", l->host,
                     gai_strerror(l->rc));
    err_hint(e, "is the name right, and is the network up? Names that end in .local need mDNS "
                "(Debian: libnss-mdns); an address works without");
    return rc;
}

static int wait_failed(int rc, const char *host, const char *what, struct err *e)
{
    if (rc == ERR_CANCELLED)
        return err_set(e, rc, host, "stopped while %s %s", what, host);
    err_set(e, rc, host, "no answer in time while %s %s", what, host);
    err_hint(e, "is the machine on, and can this one reach it?");
    return rc;
}

static int lookup(const char *host, uint16_t port, const struct net_wait *w, struct lookup **ret,
                  struct err *e)
{
    CLEANUP(lookup_releasep) struct lookup *l = mem_alloc(1, sizeof *l);
    if (!l)
        return err_nomem(e);
    atomic_init(&l->holders, 1);
    snprintf(l->host, sizeof l->host, "%s", host);
    snprintf(l->port, sizeof l->port, "%u", (unsigned)port);
    l->done_fd = -1;
    const struct addrinfo address = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    if (getaddrinfo(l->host, l->port, &address, &l->list) == 0) {
        *ret = TAKE_PTR(l);
        return 0;
    }
    l->list = NULL;
    l->done_fd = eventfd(0, EFD_CLOEXEC);
    if (l->done_fd < 0 || lookup_start(l))
        return err_set(e, ERR_NOMEM, host, "cannot start looking up the name %s", host);
    int rc = net_poll(l->done_fd, POLLIN, w);
    if (rc || !atomic_load(&l->done))
        return wait_failed(rc ? rc : ERR_TIMEOUT, host, "looking up the name", e);
    if (l->rc)
        return lookup_failed(l, e);
    *ret = TAKE_PTR(l);
    return 0;
}

/* 0 with *ret_fd set, an errno, or one of our (negative) codes. */
static int connect_one(const struct addrinfo *a, const struct net_wait *w, int *ret_fd)
{
    OWN_FD int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno;
    if (connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
        if (errno != EINPROGRESS)
            return errno;
        struct net_wait each = *w;
        each.deadline_us = clock_mono_us() + CONNECT_EACH_US;
        if (each.deadline_us > w->deadline_us || !a->ai_next)
            each.deadline_us = w->deadline_us;
        int rc = net_poll(fd, POLLOUT, &each);
        if (rc)
            return rc == ERR_TIMEOUT ? ETIMEDOUT : rc;
        int errnum = 0;
        socklen_t len = sizeof errnum;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &errnum, &len) < 0)
            return errno;
        if (errnum)
            return errnum;
    }
    *ret_fd = TAKE_FD(fd);
    return 0;
}

/* A worker that loses power while we wait for our own source must not be found out only at the
 * next write; and the answers are small packets that nobody should collect. */
static void set_options(int fd)
{
    static const struct {
        int level, name, value;
    } options[] = {{IPPROTO_TCP, TCP_NODELAY, 1},
                   {SOL_SOCKET, SO_KEEPALIVE, 1},
                   {IPPROTO_TCP, TCP_KEEPIDLE, 30},
                   {IPPROTO_TCP, TCP_KEEPINTVL, 10},
                   {IPPROTO_TCP, TCP_KEEPCNT, 3}};
    for (size_t i = 0; i < ARRAY_LEN(options); i++)
        setsockopt(fd, options[i].level, options[i].name, &options[i].value,
                   sizeof options[i].value);
}

int net_connect(const char *host, uint16_t port, const struct net_wait *w, int *ret_fd,
                struct err *e)
{
    CLEANUP(lookup_releasep) struct lookup *l = NULL;
    int rc = lookup(host, port, w, &l, e);
    if (rc)
        return rc;
    int errnum = EHOSTUNREACH, fd = -1;
    for (const struct addrinfo *a = l->list; a && fd < 0; a = a->ai_next) {
        errnum = connect_one(a, w, &fd);
        if (errnum < 0)
            return wait_failed(errnum, host, "connecting to", e);
    }
    if (fd >= 0) {
        set_options(fd);
        *ret_fd = fd;
        return 0;
    }
    if (errnum == ETIMEDOUT)
        return wait_failed(ERR_TIMEOUT, host, "connecting to", e);
    rc = err_set(e, ERR_CONNECT, host, "cannot connect to %s port %u: %s", host, (unsigned)port,
                 strerror(errnum));
    err_hint(e, errnum == ECONNREFUSED ? "is sshd running there, and is the port right?"
                                       : "is the machine on, and can this one reach it?");
    return rc;
}
