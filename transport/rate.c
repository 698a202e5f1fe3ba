#include "transport/rate.h"

#include "syncd/base/clock.h"

#define BURST_US (100 * US_PER_MS)

int64_t rate_delay_us(const struct rate *r, int64_t now_us)
{
    int64_t ahead = r->paid_back_us - now_us;
    return r->bytes_per_s && ahead > BURST_US ? ahead - BURST_US : 0;
}

void rate_take(struct rate *r, size_t n, int64_t now_us)
{
    if (!r->bytes_per_s)
        return;
    if (r->paid_back_us < now_us)
        r->paid_back_us = now_us;
    r->paid_back_us += (int64_t)((double)n / (double)r->bytes_per_s * (double)US_PER_S);
}
