/* Child processes of the daemon on its event loop: our own program with a command, or a hook.
 *
 * What a child writes to stderr goes to ours. SIGHUP and SIGCHLD must be blocked in the daemon; a
 * child gets every signal back. It has a process group of its own, so that a terminal's Ctrl-C
 * reaches only the daemon, which then ends its children in order. */
#ifndef SYNCD_JOBS_H
#define SYNCD_JOBS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

struct err;
struct job;

#define JOB_ANSWER_MAX (4u << 20) /* longest stdout that is kept */
#define JOB_CONFIG_FD 3           /* where a child finds job_params.config_fd */

struct job_result {
    int exit_code;  /* -1: ended by `signal` */
    int signal;     /* 0: ended by itself */
    bool timed_out; /* it was ended because of its timeout */
    json_t *answer; /* its stdout, when that is one JSON object; else NULL; borrowed */
    int64_t duration_us;
};

typedef void job_done_fn(void *arg, const struct job_result *r);

struct job_params {
    const char *program;            /* a path, or a name to look for in PATH */
    const char *const *argv;        /* NULL-terminated, argv[0] included */
    const char *const *environment; /* NULL: ours */
    int config_fd;                  /* becomes JOB_CONFIG_FD there; -1: none */
    bool gentle;                    /* nice 10, disk only when it is idle; all it starts as well */
    bool keep_answer;               /* parse stdout; else stdout goes to our stderr */
    int64_t timeout_us;             /* 0: none; after it, the job is stopped */
    job_done_fn *done;              /* told once, from the loop, when it has ended */
    void *arg;
};

/* Starts it. *ret lives until done() has returned. ERR_NOT_FOUND, ERR_PERMISSION, ERR_NOMEM,
 * ERR_IO. Never waits for the child. */
int job_start(sd_event *event, const struct job_params *p, struct job **ret, struct err *e);

/* SIGTERM to its group, SIGKILL when it still runs 6 s later. May be called again. */
void job_stop(struct job *j);

/* Frees what is left of a job that need not be waited for any more (SIGKILL first); done() is not
 * called. Only for the end of the daemon. */
void job_abandon(struct job *j);

/* For how long it has used no processor time: nothing it waits for takes so long without any. Reads
 * /proc; the answer is as fine as the calls are frequent. */
int64_t job_quiet_us(struct job *j);

#endif
