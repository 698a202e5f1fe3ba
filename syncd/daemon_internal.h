/* What the files of the daemon share. All of it belongs to the main thread. */
#ifndef SYNCD_DAEMON_INTERNAL_H
#define SYNCD_DAEMON_INTERNAL_H

#include <jansson.h>
#include <systemd/sd-event.h>

#include "syncd/clock_doubt.h"
#include "syncd/timetable.h"

struct err;
struct job;
struct mqtt;

#define DAEMON_HOOKS_MAX 8 /* on_change that run at once */
#define DAEMON_JOBS_MAX 8  /* more than the timetable lets run at once */

/* A job that runs; the config may have changed since. */
struct daemon_job {
    struct daemon *daemon;
    enum job_kind kind;
    char source[CONF_NAME_MAX + 1]; /* "": of all */
    struct job *job;                /* NULL: this place is free */
    bool stopped;                   /* it hangs */
};

/* What was last said of a kind of job, so that it is said once. */
struct daemon_note {
    enum job_kind kind;
    char source[CONF_NAME_MAX + 1];
    char *text; /* NULL: all was well */
};

struct daemon_hook {
    char source[CONF_NAME_MAX + 1];
    struct job *job; /* NULL: this place is free */
};

/* What was last told of a source. */
struct daemon_state {
    char source[CONF_NAME_MAX + 1];
    int64_t told_elapsed_us;
};

struct daemon {
    sd_event *event;
    sd_event_source *wake;
    const char *config_path;
    bool own_log_level; /* the config decides it */
    struct conf *conf;
    int config_fd; /* the text that conf was read from, for the jobs */
    int lock_fd;
    struct timetable timetable;
    json_t *times; /* job_times.h */
    struct daemon_job jobs[DAEMON_JOBS_MAX];
    struct daemon_note *notes;
    size_t note_count, note_cap;
    struct daemon_hook hooks[DAEMON_HOOKS_MAX];
    struct daemon_state *states;
    size_t state_count, state_cap;
    struct mqtt *mqtt, *pioreactor; /* NULL: not wanted */
    int64_t metrics_elapsed_us;     /* when they were last written; 0: never */
    size_t metrics_jobs;            /* how many jobs ran then */
    bool metrics_failed;
    bool stopping;
    enum clock_doubt clock;
    int64_t clock_until_us; /* elapsed: no job begins before it, but for a better clock; 0: none */
    int64_t newest_us;      /* the latest time that the catalog knows */
    int64_t turns_us;       /* wall: the next state runs out by itself then; INT64_MAX: none does */
    uint64_t watchdog_us;   /* 0: nobody watches */
    char status[256];       /* last told to systemd */
};

struct moment daemon_now(void);

/* daemon.c: looks what is to be done now and when to look again. */
void daemon_turn(struct daemon *d);

/* daemon_jobs.c */

/* Puts the jobs of d->conf into the timetable. */
int daemon_plan_jobs(struct daemon *d, struct err *e);

/* Starts what is due. */
void daemon_start_jobs(struct daemon *d);

size_t daemon_count_jobs(const struct daemon *d);
bool daemon_has_job(const struct daemon *d, enum job_kind kind, const char *source);
void daemon_stop_jobs(struct daemon *d);    /* they end soon */
void daemon_abandon_jobs(struct daemon *d); /* at once, and frees the notes */

/* Stops jobs that hang; false while one does not even end then. */
bool daemon_watch_jobs(struct daemon *d);

/* daemon_state.c */

int daemon_start_mqtt(struct daemon *d, struct err *e); /* what the config wants; does not wait */
void daemon_stop_mqtt(struct daemon *d);
void daemon_change_mqtt(struct daemon *d, const struct conf *old); /* d->conf is new */

/* Publishes the state of each source when it has changed, or every 5 minutes; runs on_change. */
void daemon_tell_states(struct daemon *d);
void daemon_free_states(struct daemon *d);

#endif
