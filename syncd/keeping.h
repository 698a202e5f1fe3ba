/* Which snapshots of a source stay, on which worker, and why: retention over what the workers hold.
 *
 * Wanted on every worker is what the rules keep of all snapshots, and of those that some worker
 * holds whole, and of those in which nothing is missing: so one that is damaged or partial never
 * costs a good one its place. A worker keeps besides, until what replaces it is there, what the
 * rules keep of its own whole ones; when it is short of space, of its own and the other's together,
 * so that a full worker empties - but of the other's only those that this leader knows it made. Its
 * newest whole one always stays, and so does the newest whole one in which nothing is missing. One
 * that a newer syncd wrote is not this one's to let go. */
#ifndef SYNCD_KEEPING_H
#define SYNCD_KEEPING_H

#include "restore/history.h"

struct conf_keep;
struct err;

struct keeping_params {
    const struct conf_keep *keep;
    int64_t now_us;
    size_t store_count;
    bool tight[POOL_STORES_MAX]; /* the worker is short of space */
    /* Whether this leader's catalog knows the part as its own. */
    bool (*is_ours)(void *arg, const struct part_ref *ref);
    /* Whether the ruling leader goes on from it; what an overruled one wrote is judged by itself.
     * NULL: all are. */
    bool (*is_history)(void *arg, const struct part_ref *ref);
    void *arg;
};

/* Why a snapshot stays; all zero: it goes. */
struct keeping {
    unsigned rules;                 /* 1u << retention_rule */
    unsigned here[POOL_STORES_MAX]; /* rules that keep it on this worker until it has better */
    bool newest[POOL_STORES_MAX];   /* the worker's newest whole one, or the newest complete one */
    bool newest_of_all;
    bool overruled;
};

/* Decides for each snapshot of the history (its wanted and keep) and says why in *ret, which is an
 * array as the history's and the caller's to free. ERR_NOMEM. */
int keeping_decide(const struct keeping_params *p, struct history *h, struct keeping **ret,
                   struct err *e);

/* How the reasons read, one call each; `names` are those of the workers. A snapshot that goes has
 * one, too: "no rule keeps it". */
typedef void keeping_say_fn(void *arg, const char *reason);
void keeping_reasons(const struct keeping *k, const struct history_snapshot *s, size_t store_count,
                     const char *const *names, keeping_say_fn *say, void *arg);

/* Some worker keeps it. */
bool keeping_stays(const struct history_snapshot *s, size_t store_count);

#endif
