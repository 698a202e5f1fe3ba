/* How fresh a source is (CONTRACT "MQTT"): facts from the catalog, from workers' listings or both,
 * and what follows from them at a moment.
 *
 * A state is as old as its oldest entry, and known only as far as it is known to be stored. What is
 * not known is never fresh: no max_age, a worker that nothing is known of, a time that lies ahead
 * of this machine's clock by more than ten minutes. */
#ifndef SYNCD_FRESHNESS_H
#define SYNCD_FRESHNESS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "syncd/catalog.h"

struct buf;
struct conf;
struct conf_source;
struct err;

#define FRESHNESS_AHEAD_US (INT64_C(600) * 1000000)   /* further ahead is not believed */
#define FRESHNESS_CLOCK_US (INT64_C(86400) * 1000000) /* further apart: the state is "clock" */

/* X(symbol, name) from best to worst; the names are the contract's. */
#define FRESHNESS_STATES(X)                                                                        \
    X(FRESHNESS_FRESH, "fresh")                                                                    \
    X(FRESHNESS_DEGRADED, "degraded")                                                              \
    X(FRESHNESS_STALE, "stale")                                                                    \
    X(FRESHNESS_NEVER, "never")                                                                    \
    X(FRESHNESS_CLOCK, "clock")

#define FRESHNESS_ENUM(symbol, name) symbol,
enum freshness_state { FRESHNESS_STATES(FRESHNESS_ENUM) };
#undef FRESHNESS_ENUM

const char *freshness_state_name(enum freshness_state state);

struct freshness_worker {
    const char *name; /* the config's */
    /* Facts. */
    int64_t as_of_us; /* of the newest state known to be stored there; 0: none */
    bool has_snapshot;
    uint8_t snapshot[CATALOG_ID];
    int64_t proven_at_us; /* 0: never */
    int64_t behind;       /* stored files that it lacks; -1: not known */
    bool lost;            /* something was stored there, but is not there any more, or unknown */
    int64_t had_us;       /* lost: the as_of_us of what was known to be there; 0: not known */
    bool clock_apart;     /* its clock and this machine's differ by more than a day */
    char error[512];
    /* What follows: FRESH, STALE or NEVER. */
    enum freshness_state state;
    int64_t fresh_until_us; /* 0: not known, not fresh */
};

struct freshness {
    /* Facts. */
    char source[CONF_NAME_MAX + 1];
    int64_t max_age_s; /* 0: not known; then nothing is fresh */
    bool running;
    int64_t next_run_us; /* 0: not known */
    bool has_run;
    struct catalog_run run;       /* the last one that ended */
    int64_t growth_bytes_per_day; /* of the content, lately */
    bool has_growth;
    bool clock_doubtful; /* this machine's clock may be wrong, and so these times */
    uint64_t size_bytes; /* of the content; 0: not known */
    size_t worker_count;
    struct freshness_worker workers[CONF_MAX_WORKERS];
    /* What follows. */
    enum freshness_state state;
    size_t best; /* the worker that as_of and snapshot are from */
    int64_t as_of_us, fresh_until_us, proven_at_us;
};

/* What the catalog knows of a source of the config (NULL: nothing was ever stored). Borrows the
 * workers' names. The catalog's errors. */
int freshness_from_catalog(const struct conf *c, const struct conf_source *s,
                           struct catalog *catalog, struct freshness *ret, struct err *e);

/* How its content grew over the last 30 days of runs, into growth_bytes_per_day. */
int freshness_add_growth(struct freshness *f, struct catalog *catalog, struct err *e);

/* The latest time that the facts speak of; 0: none. */
int64_t freshness_newest_us(const struct freshness *f);

/* Fills in what follows from the facts at this moment. */
void freshness_judge(struct freshness *f, int64_t now_us);

/* The contract's state object; NULL when out of memory. */
json_t *freshness_json(const struct freshness *f);

/* The worst of them: exit code of `status`. 1 (EXIT_NOTHING) for one without a max_age, unless
 * another one is stale. */
int freshness_exit_code(const struct freshness *all, size_t count);

/* freshness_text.c */

/* Prometheus' text format. What is not known is 0, which fires the alerts. */
void freshness_prometheus(const struct freshness *all, size_t count, int64_t now_us,
                          struct buf *to);

enum nagios_code { NAGIOS_OK, NAGIOS_WARNING, NAGIOS_CRITICAL, NAGIOS_UNKNOWN };

/* Nagios' one line with performance data, without its end; answers the exit code. */
enum nagios_code freshness_nagios(const struct freshness *all, size_t count, int64_t now_us,
                                  struct buf *to);

#endif
