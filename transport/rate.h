/* A limit on bytes per second, for a store's writes: a token bucket that holds a tenth of a second,
 * kept as the moment at which it will have been paid back. */
#ifndef SYNCD_TRANSPORT_RATE_H
#define SYNCD_TRANSPORT_RATE_H

#include <stddef.h>
#include <stdint.h>

struct rate {
    uint64_t bytes_per_s; /* 0: no limit */
    int64_t paid_back_us; /* on the monotonic clock; 0 at the start */
};

/* How long to wait, from now_us on, before the next bytes may go; 0: at once. */
int64_t rate_delay_us(const struct rate *r, int64_t now_us);

/* n bytes go now. n should be small against a second's worth, or the flow is lumpy. */
void rate_take(struct rate *r, size_t n, int64_t now_us);

#endif
