/* Retention: which of a source's snapshots are kept, and by which rule. Pure: no I/O, no clock.
 *
 * Snapshots count in their order, (epoch, sequence), never sorted by time; so a clock that jumped
 * moves none of them. keep_last keeps the newest N. keep_hourly and the like keep the newest one of
 * each of the newest N hours (days, ...; UTC, weeks from Monday) in which there is any: nothing
 * grows old because the leader was off. N is the length of the longest row of periods each older
 * than the one after it: those of a clock that jumped are kept as well, up to N of them, but take
 * no other's place. keep_within keeps everything from the first one on that is no older than the
 * newest minus the duration; what claims to be from the future neither counts as the newest nor
 * begins that.
 *
 * Judging what was kept once more keeps all of it, and what was dropped once is not kept again when
 * newer ones come (with a clock that only goes forward). */
#ifndef SYNCD_RETENTION_H
#define SYNCD_RETENTION_H

#include <stddef.h>
#include <stdint.h>

struct conf_keep;

/* X(symbol, name): the rules; a name is that of the reason. */
#define RETENTION_RULES(X)                                                                         \
    X(RETENTION_LAST, "last")                                                                      \
    X(RETENTION_WITHIN, "within")                                                                  \
    X(RETENTION_HOURLY, "hourly")                                                                  \
    X(RETENTION_DAILY, "daily")                                                                    \
    X(RETENTION_WEEKLY, "weekly")                                                                  \
    X(RETENTION_MONTHLY, "monthly")                                                                \
    X(RETENTION_YEARLY, "yearly")

#define RETENTION_ENUM(symbol, name) symbol,
enum retention_rule { RETENTION_RULES(RETENTION_ENUM) RETENTION_RULE_COUNT };
#undef RETENTION_ENUM

struct retention_item {
    int64_t time_us; /* when it was taken; any value */
    unsigned groups; /* bits of the caller's choice */
    unsigned rules;  /* of the answer: 1u << rule for each rule that keeps it; 0: dropped */
    int64_t scratch; /* retention_judge's */
};

#define RETENTION_FUTURE_US (INT64_C(86400) * 1000000) /* later than now by more: not believed */

/* Judges the items (ascending in their order) that are in `group`, as if there were no others, and
 * adds to their `rules`. The newest is not kept but by a rule: that is the caller's. */
void retention_judge(const struct conf_keep *keep, int64_t now_us, unsigned group,
                     struct retention_item *items, size_t count);

#define RETENTION_REASON_SIZE 64

/* "daily 2026-11-20", "weekly 2026-W47", "last". */
void retention_reason(enum retention_rule rule, int64_t time_us,
                      char ret[static RETENTION_REASON_SIZE]);

#endif
