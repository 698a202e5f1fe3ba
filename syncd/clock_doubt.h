/* Whether this machine's clock can be believed. A Raspberry Pi has no clock that runs without
 * power: after a power cut it begins at some time of its past, until the network tells it. */
#ifndef SYNCD_CLOCK_DOUBT_H
#define SYNCD_CLOCK_DOUBT_H

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_WAIT_US (INT64_C(300) * 1000000) /* so long the daemon waits for a better one */

enum clock_doubt {
    CLOCK_BELIEVED,
    CLOCK_UNSET, /* nothing has set it since the start, though something is there to do so */
    CLOCK_BEHIND /* it is earlier than what is known to have been: certainly wrong */
};

struct clock_facts {
    int64_t now_us;
    int64_t newest_us; /* the latest time on record; 0: none */
    bool unset;        /* as far as this machine tells */
    bool is_kept;      /* there is a service on this machine that sets it */
};

/* The facts of this moment. */
struct clock_facts clock_facts(int64_t newest_us);

enum clock_doubt clock_doubt_judge(const struct clock_facts *f);

/* Until when (both by the clock that counts from the machine's start) to wait for a better time,
 * when begun_us is the first moment of doubt; a machine that has been up for longer has waited
 * already, unless its clock is certainly wrong. */
int64_t clock_doubt_until_us(enum clock_doubt doubt, int64_t begun_us);

/* One line for people, without a full stop. */
const char *clock_doubt_text(enum clock_doubt doubt);

#endif
