/* The leader's small local record, <state_dir>/catalog.db (SQLite): runs, the parts that this
 * leader published, what each worker is known to hold, and damage that was found. All of it can be
 * rebuilt from a worker or be done without; so a damaged catalog is put aside and a new one begun.
 *
 * A handle may be used by several threads; several processes may use the catalog at once (each
 * waits up to 10 s for another's transaction, then ERR_BUSY). Each call that changes something is
 * one small transaction (about 14 KiB written); a power cut may undo the last, and never tears one.
 * Times are microseconds; 0 means unknown.
 * Errors of all calls: ERR_BUSY, ERR_IO, ERR_NO_SPACE, ERR_PERMISSION, ERR_DAMAGED, ERR_NOMEM. */
#ifndef SYNCD_CATALOG_H
#define SYNCD_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/conf.h"

struct catalog;
struct err;

#define CATALOG_ID 32
#define CATALOG_RUNS_KEPT 1000 /* per source; some more for a while */

/* X(symbol, name): the states of a run; the names are those of MQTT's last_result. */
#define RUN_STATES(X)                                                                              \
    X(RUN_RUNNING, "running")                                                                      \
    X(RUN_OK, "ok")                                                                                \
    X(RUN_UNCHANGED, "unchanged")                                                                  \
    X(RUN_PARTIAL, "partial")                                                                      \
    X(RUN_FAILED, "failed")

#define RUN_STATE_ENUM(symbol, name) symbol,
enum run_state { RUN_STATES(RUN_STATE_ENUM) };
#undef RUN_STATE_ENUM

const char *run_state_name(enum run_state state);

struct catalog_run {
    char source[CONF_NAME_MAX + 1];
    int64_t number; /* of the source's runs, by catalog_run_begin */
    enum run_state state;
    int64_t started_at_us, ended_at_us;
    bool has_snapshot;
    uint8_t snapshot[CATALOG_ID]; /* the one made, or confirmed as unchanged */
    int64_t as_of_us;
    uint64_t size_bytes; /* of the source's content */
    uint64_t bytes_read, bytes_changed, bytes_sent;
    char error[512]; /* "" : none */
};

struct catalog_run_worker {
    char worker[CONF_NAME_MAX + 1];
    bool stored; /* the run's snapshot is stored there, complete and under its final mark */
    char error[512];
};

/* What a worker is known to hold of a source. */
struct catalog_held {
    char worker[CONF_NAME_MAX + 1];
    int64_t as_of_us; /* of the newest state stored there; 0: it is not there any more */
    bool has_snapshot;
    uint8_t snapshot[CATALOG_ID];
    int64_t proven_at_us; /* 0: never */
};

struct catalog_part {
    uint32_t epoch;
    uint64_t sequence;
    uint8_t id[CATALOG_ID];
    uint64_t size_bytes;
    bool is_snapshot;
};

/* Opens, making it when it is missing. A damaged one is renamed to catalog.db.damaged-<UTC> and a
 * new one begun; *ret_notice (may be NULL) then holds one line for the user, freed by the caller,
 * else NULL. ERR_VERSION when a newer syncd made it: it is left alone. state_dir must have passed
 * state_dir_check (lock.h). */
int catalog_open(const char *state_dir, struct catalog **ret, char **ret_notice, struct err *e);

/* An empty one in memory, for where nothing can be written. */
int catalog_open_memory(struct catalog **ret, struct err *e);

/* Opens for reading only, without making or mending anything: ERR_NOT_FOUND when there is none. */
int catalog_open_readonly(const char *state_dir, struct catalog **ret, struct err *e);

void catalog_close(struct catalog *c); /* NULL is fine */

/* Renames the catalog, which nobody has open, because it speaks of another repository; *ret_path is
 * its new name, the caller's, or NULL when there was none. ERR_IO, ERR_PERMISSION. */
int catalog_put_aside(const char *state_dir, char **ret_path, struct err *e);

/* Runs. Begin under the source's lock. */
int catalog_run_begin(struct catalog *c, const char *source, int64_t now_us, int64_t *ret_number,
                      struct err *e);

/* Notes how run->number of run->source ended (all fields of `run`; ended_at_us is set by the
 * caller) and for each of the workers whether it has the snapshot; where stored, that is also noted
 * as what the worker holds (run->as_of_us, run->snapshot). Now and then this forgets the source's
 * oldest runs past CATALOG_RUNS_KEPT. */
int catalog_run_end(struct catalog *c, const struct catalog_run *run,
                    const struct catalog_run_worker *workers, size_t worker_count, struct err *e);

/* Marks runs of the source that never ended as failed with `reason`; call it under the source's
 * lock, when nothing can be running. *ret_count: how many (may be NULL). */
int catalog_run_abandon(struct catalog *c, const char *source, int64_t now_us, const char *reason,
                        size_t *ret_count, struct err *e);

/* The newest runs of the source, newest first, at most `limit`; *ret is the caller's to free.
 * Running ones are left out unless asked for. */
int catalog_runs(struct catalog *c, const char *source, bool with_running, size_t limit,
                 struct catalog_run **ret, size_t *ret_count, struct err *e);

/* The workers of one run, by name. *ret is the caller's to free. */
int catalog_run_workers(struct catalog *c, const char *source, int64_t number,
                        struct catalog_run_worker **ret, size_t *ret_count, struct err *e);

/* Parts. Notes some that were (or are about to be) published, in one transaction; what is noted
 * already is fine and costs no write. The source's last sequence is raised to theirs. */
int catalog_parts_add(struct catalog *c, const char *source, const struct catalog_part *parts,
                      size_t count, struct err *e);

/* Whether this leader published exactly that part. false as well when it cannot be told. */
bool catalog_part_is_ours(struct catalog *c, const char *source, uint32_t epoch, uint64_t sequence,
                          const uint8_t id[CATALOG_ID]);

/* All of them, in their order; *ret is the caller's to free. */
int catalog_parts(struct catalog *c, const char *source, struct catalog_part **ret,
                  size_t *ret_count, struct err *e);

/* Forgets parts that no worker holds any more; one transaction for all of them. Unknown ones are
 * fine. The last sequence stays. */
int catalog_parts_forget(struct catalog *c, const char *source, const struct catalog_part *parts,
                         size_t count, struct err *e);

/* The highest sequence that was ever used or raised to; 0: none. It never goes back. */
int catalog_sequence(struct catalog *c, const char *source, uint64_t *ret, struct err *e);
int catalog_sequence_raise(struct catalog *c, const char *source, uint64_t at_least, struct err *e);

/* What workers hold. */
int catalog_held(struct catalog *c, const char *source, struct catalog_held **ret,
                 size_t *ret_count, struct err *e);
/* Outside of a run: after sync, or learned from a listing. */
int catalog_held_set(struct catalog *c, const char *source, const char *worker, int64_t as_of_us,
                     const uint8_t snapshot[CATALOG_ID], struct err *e);
/* The worker was found not to hold what it was known to hold. */
int catalog_held_lost(struct catalog *c, const char *source, const char *worker, struct err *e);
/* A look at the worker shows that it holds `is` (nothing whole, where that has no snapshot). Noted
 * only where the catalog still says what it said before the look, `was`. */
int catalog_held_learn(struct catalog *c, const char *source, const char *worker,
                       const struct catalog_held *was, const struct catalog_held *is,
                       struct err *e);
/* A drill showed that this worker's copy of that snapshot does not come back. So it is until it is
 * proven, a run finds it in order, or (clear) something was mended there. */
int catalog_unproven_add(struct catalog *c, const char *source, const char *worker,
                         const uint8_t snapshot[CATALOG_ID], int64_t now_us, struct err *e);
bool catalog_unproven_has(struct catalog *c, const char *source, const char *worker,
                          const uint8_t snapshot[CATALOG_ID]);
int catalog_unproven_clear(struct catalog *c, const char *source, const char *worker,
                           struct err *e);
/* That worker's copy of that snapshot was proven. Proofs are forgotten after 400
 * days. */
int catalog_proven_set(struct catalog *c, const char *source, const char *worker,
                       const uint8_t snapshot[CATALOG_ID], int64_t proven_at_us, struct err *e);
/* When that snapshot was last proven on any worker; 0: never, or it cannot be told. */
int64_t catalog_proven_at(struct catalog *c, const char *source,
                          const uint8_t snapshot[CATALOG_ID]);

/* Damage: `part` is the part's stem; marking again keeps the first time. */
struct catalog_damage {
    char worker[CONF_NAME_MAX + 1];
    char source[CONF_NAME_MAX + 1];
    char part[128];
    int64_t since_us;
};
int catalog_damage_add(struct catalog *c, const char *worker, const char *source, const char *part,
                       int64_t now_us, struct err *e);
int catalog_damage_clear(struct catalog *c, const char *worker, const char *source,
                         const char *part, struct err *e);
bool catalog_damage_has(struct catalog *c, const char *worker, const char *source,
                        const char *part);
/* When a worker's copy of a part was last read whole, 0: never, or it cannot be told; and that it
 * was at now_us. Marks older than before_us are forgotten: those parts are gone. */
int64_t catalog_verified_at(struct catalog *c, const char *worker, const char *source,
                            const char *part);
int catalog_verified_set(struct catalog *c, const char *worker, const char *source,
                         const char *part, int64_t now_us, struct err *e);
int catalog_verified_forget(struct catalog *c, const char *source, int64_t before_us,
                            struct err *e);

/* `source` NULL: of all. *ret is the caller's to free. */
int catalog_damages(struct catalog *c, const char *source, struct catalog_damage **ret,
                    size_t *ret_count, struct err *e);

#endif
