/* TCP to a worker, with a deadline on every wait. */
#ifndef SYNCD_TRANSPORT_NET_H
#define SYNCD_TRANSPORT_NET_H

#include <stdint.h>

struct err;

/* Until when a wait may last, on the monotonic clock, and what ends it before. */
struct net_wait {
    int64_t deadline_us;
    const int *cancel_fd; /* becomes readable: stop; or NULL */
};

/* Waits until fd is ready for `events` (POLLIN, POLLOUT) or has failed. Returns 0, ERR_TIMEOUT or
 * ERR_CANCELLED. fd -1 waits for the other two only. */
int net_poll(int fd, short events, const struct net_wait *w);

/* Looks up the host and connects to the first of its addresses that answers. *ret_fd is a
 * non-blocking socket with TCP_NODELAY and keepalive, the caller's to close. Errors: ERR_CONNECT
 * (no such name, refused, no route), ERR_TIMEOUT, ERR_CANCELLED, each with a hint. */
int net_connect(const char *host, uint16_t port, const struct net_wait *w, int *ret_fd,
                struct err *e);

#endif
