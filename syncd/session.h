/* What commands have in common: the config, the state_dir with catalog and identity, and the
 * workers, connected side by side. */
#ifndef SYNCD_SESSION_H
#define SYNCD_SESSION_H

#include "conf/conf.h"
#include "snapshot/pool.h"
#include "snapshot/repository.h"
#include "syncd/base/err.h"

struct catalog;
struct command_args;
struct report;
struct store;

struct session_worker {
    const struct conf_worker *conf;
    struct store *store; /* NULL: does not answer, see err */
    struct err err;      /* why it takes no part; code 0: it does */
    int cancel_event;    /* eventfd: ends what the store is doing */
    int cancel_fd;       /* readable on that and on a signal */
    const int *cancel;   /* &cancel_fd of the session's own, whoever holds a copy of this */
    bool has_repository;
    struct repository repository;
    struct epoch epoch; /* the ruling one there; number 0: none */
    uint32_t highest_epoch;
    struct listing listing; /* of the source that was asked for last */
};

struct session {
    struct conf *conf;
    struct catalog *catalog;
    bool has_repository; /* known from state_dir, or from a worker */
    struct repository repository;
    bool has_token;
    uint8_t token[TOKEN_SIZE];
    struct epoch
        own; /* the last that this machine took by `adopt`, from state_dir; number 0: none */
    struct epoch
        ruler;      /* by all workers and state_dir; number 0: none, or before session_connect */
    uint32_t epoch; /* the ruling one, ours; 0 before session_check_leader */
    bool has_lost;  /* session_lose: what its thread may still use is never freed */
    size_t worker_count;
    struct session_worker workers[CONF_MAX_WORKERS];
};

/* Reads the config (-c), checks state_dir, opens the catalog (*ret->catalog stays NULL without
 * `with_catalog`), reads repository and token. Errors of the config beyond the first go to the
 * report. */
int session_open(const struct command_args *args, struct report *report, bool with_catalog,
                 struct session **ret, struct err *e);
void session_close(struct session *s); /* NULL is fine */

/* The two halves of it: the config alone (the caller's, for conf_free), and a session on a config,
 * which becomes the session's own, also when this fails. */
int session_read_config(const struct command_args *args, struct report *report, struct conf **ret,
                        struct err *e);
/* Puts *e and all further findings but the last into the report; the last is then in *e. */
void session_config_errors(struct report *report, const struct conf_errors *more, struct err *e);
int session_new(struct conf *conf, bool with_catalog, struct session **ret, struct err *e);

/* A session on workers alone, without state_dir and catalog; `conf` becomes the session's own, also
 * when this fails. The caller opens the workers' stores before session_connect. */
int session_new_bare(struct conf *conf, struct session **ret, struct err *e);

/* Connects to all workers, but those that have a store or an error already, at once, and reads
 * repository and epoch of each. A worker that cannot take part has its err set; the answer is an
 * error only when none can. Waits at most 30 s. */
int session_connect(struct session *s, struct err *e);

/* Makes w->cancel_fd, for a store that the caller opens. */
int session_make_cancel_fd(struct session_worker *w, struct err *e);

/* Connects one worker, without looking at its repository. */
int session_connect_worker(struct session *s, struct session_worker *w, struct err *e);

/* Closes the worker's store: it takes no further part. */
void session_leave_out(struct session_worker *w);

/* The worker's store hangs in a thread that nobody waits for: it takes no further part, and is not
 * closed either. */
void session_lose(struct session *s, struct session_worker *w);

/* Connects again, once, a worker whose connection broke or was given up during the run. */
int session_reconnect(struct session *s, struct session_worker *w, struct err *e);

/* Whether min_free leaves room for add_bytes more on the worker: ERR_NO_SPACE. 0 when its server
 * cannot tell. Asks the worker. */
int session_check_room(const struct session_worker *w, struct store *store, uint64_t add_bytes,
                       struct err *e);

/* This machine may write: it holds the ruling token. ERR_FENCED, with both ways on, else. Sets
 * s->epoch. A worker that was away when this machine took over gets its epoch now; where that
 * fails it is left out with its err. */
int session_check_leader(struct session *s, struct err *e);

/* Whether nobody took the worker over since session_connect: to be asked before something gets its
 * final name there, and before something is deleted. ERR_FENCED; the store's errors. May be called
 * by the thread that uses the worker's store. */
int session_still_leads(const struct session *s, const struct session_worker *w,
                        struct store *store, struct err *e);

/* Which epoch rules, from what the workers and state_dir say; session_connect does it. */
void session_find_ruler(struct session *s);

/* Reads the source's listing on each connected worker, side by side; one that fails is left out. */
int session_list(struct session *s, const char *source, struct err *e);

/* The pool of a source over the connected workers; valid until the next session_list. */
void session_pool(struct session *s, const char *source, struct pool *ret);

/* How many workers take part. */
size_t session_attached(const struct session *s);

/* Paths of the leader's own files; the caller's. */
char *session_state_path(const struct session *s, const char *name);
char *session_identity_file(const struct session *s, const struct conf_worker *w);
char *session_known_hosts(const struct session *s, const struct conf_worker *w);

/* Writes repository, token and s->own into state_dir, durably. */
int session_save_repository(struct session *s, struct err *e);
int session_save_token(struct session *s, struct err *e);
int session_save_epoch(struct session *s, struct err *e);

#endif
