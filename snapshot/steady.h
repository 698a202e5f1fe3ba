/* A clock that no change of this machine's clock moves: what it shows grows by the time that passed
 * for the machine, asleep or not. It is kept in a folder in memory, as what the wall clock showed
 * when it was first asked there; when that is lost it begins anew, and only what has passed since
 * counts. A reboot with the folder kept does no harm either: it may then fall back, never leap. */
#ifndef SYNCD_SNAPSHOT_STEADY_H
#define SYNCD_SNAPSHOT_STEADY_H

#include <stdint.h>

struct steady {
    int64_t from_us; /* where it began */
    int64_t boot_us; /* how long the machine had been up then */
};

/* Reads it, or begins it. Where it cannot be kept it begins with each call. */
void steady_open(const char *dir, struct steady *ret);

int64_t steady_now_us(const struct steady *s);

/* How much time has passed, at the least, since this clock (or an earlier one) showed since_us;
 * less than 0: none has shown that yet. */
int64_t steady_passed_us(const struct steady *s, int64_t since_us);

#endif
