/* When which job is due. Pure: the caller tells the time, so that a test lives through a month in
 * seconds.
 *
 * Rules. `every` and all waiting go by the clock that never jumps and that counts sleep (elapsed);
 * only a cron schedule looks at the wall clock, and takes a step back of it by more than ten
 * minutes as that time coming again. What was missed, however often, is caught up once. A job never
 * runs twice at once. At most two backups and one other job run at the same time. A failed run is
 * tried again after a growing, capped delay, but never later than its next regular time; a partial
 * one three times, then it waits for that. Jitter of up to a twentieth of the interval, at most a
 * minute, keeps leaders apart that share a worker, without shifting later runs. */
#ifndef SYNCD_TIMETABLE_H
#define SYNCD_TIMETABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/conf.h"
#include "conf/schedule.h"

struct err;

/* X(symbol, name) */
#define JOB_KINDS(X)                                                                               \
    X(JOB_BACKUP, "backup")                                                                        \
    X(JOB_PRUNE, "prune")                                                                          \
    X(JOB_SYNC, "sync")                                                                            \
    X(JOB_VERIFY, "verify")                                                                        \
    X(JOB_DRILL, "drill")

#define JOB_KIND_ENUM(symbol, name) symbol,
enum job_kind { JOB_KINDS(JOB_KIND_ENUM) JOB_KIND_COUNT };
#undef JOB_KIND_ENUM

const char *job_kind_name(enum job_kind kind);

enum job_outcome { JOB_DONE, JOB_PARTIAL, JOB_FAILED };

struct moment {
    int64_t wall_us;    /* since 1970 */
    int64_t elapsed_us; /* never jumps, goes on during sleep (CLOCK_BOOTTIME) */
};

struct timetable_item {
    enum job_kind kind;
    char source[CONF_NAME_MAX + 1]; /* "": a job for all sources */
    int64_t every_us;               /* 0: by the schedule, or only when requested */
    bool has_schedule;
    struct schedule schedule;
    bool wanted, running, requested;
    int64_t planned_elapsed_us;               /* the regular time of an `every` */
    int64_t planned_wall_us, handled_wall_us; /* of a schedule: the next, and the last done */
    int64_t jitter_us;                        /* on top of the regular time */
    int64_t retry_elapsed_us;                 /* 0: none */
    unsigned failures;                        /* in a row */
};

struct timetable {
    struct timetable_item *items;
    size_t count, cap;
    uint64_t random; /* state of the jitter's generator; never 0 */
};

void timetable_init(struct timetable *t, uint64_t seed);
void timetable_free(struct timetable *t);

/* A new config: begin, then set each item that there is to be, then end, which drops the others (a
 * running one when it is done). An item that stays keeps its times if they are still the same. */
void timetable_change_begin(struct timetable *t);
/* `schedule` may be NULL; with every_s 0 too the item only runs when requested. last_wall_us: when
 * it last began; 0: never, then it is first due after first_delay_us. ERR_NOMEM, ERR_CONFIG. */
struct timetable_plan {
    enum job_kind kind;
    const char *source;
    int64_t every_s;
    const char *schedule;
    int64_t last_wall_us;
    int64_t first_delay_us;
};
int timetable_set(struct timetable *t, const struct timetable_plan *plan, const struct moment *now,
                  struct err *e);
void timetable_change_end(struct timetable *t);

/* Makes the item due as soon as it does not run; nothing when there is no such item. */
void timetable_request(struct timetable *t, enum job_kind kind, const char *source);

/* The same, as if it had just failed for the first time: after that delay, and then again and again
 * until it succeeds. Nothing when it runs, or is due by itself or to be tried again anyway. */
void timetable_request_later(struct timetable *t, enum job_kind kind, const char *source,
                             const struct moment *now);

/* The next job that may begin now, marked as running; NULL: none. Valid until the next change. */
const struct timetable_item *timetable_take(struct timetable *t, const struct moment *now);

/* The job has ended. */
void timetable_done(struct timetable *t, enum job_kind kind, const char *source,
                    enum job_outcome outcome, const struct moment *now);

/* When it is next worth to call timetable_take (elapsed_us; INT64_MAX: only after a change or the
 * end of a job). A jump of the wall clock may make it earlier: look at least once a minute. */
int64_t timetable_next(const struct timetable *t, const struct moment *now);

/* When the item will begin by what is known now, on the wall clock; 0: not known (only on request,
 * or no such item). Of a running item: the time after this run. */
int64_t timetable_next_wall(const struct timetable *t, enum job_kind kind, const char *source,
                            const struct moment *now);

#endif
