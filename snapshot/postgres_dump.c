/* A program's stream becomes chunks. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/content.h"
#include "snapshot/dump_summary.h"
#include "snapshot/postgres_source.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/base/process.h"

#define READ_BYTES 65536u
#define PIPE_BYTES (1 << 20)
#define POLL_MS 250
#define LOOK_EVERY_US (2 * US_PER_S) /* for those who wait for us */
#define TOLD_MAX 8

struct streaming {
    const struct postgres_stream *s;
    struct content_writer w;
    struct run_list runs; /* once it has ended */
    struct process child;
    int fd;
    int64_t next_look_us;
    size_t told_count;
    long told[TOLD_MAX]; /* processes of the server that were named already */
    uint8_t *buffer;
};

/* ---- who waits for the dump's locks ---- */

static bool is_told(struct streaming *t, long pid)
{
    for (size_t i = 0; i < t->told_count; i++)
        if (t->told[i] == pid)
            return true;
    if (t->told_count < TOLD_MAX)
        t->told[t->told_count++] = pid;
    return t->told_count == TOLD_MAX;
}

static void tell(const struct streaming *t, const char *pid, const char *user, const char *query)
{
    char text[512];
    snprintf(text, sizeof text,
             "source %s: a statement of %s (process %s) waits for the dump to end, which holds "
             "ACCESS SHARE locks: %.200s",
             t->s->source, user ? user : "somebody", pid, query && *query ? query : "not shown");
    t->s->run->notice(t->s->run->arg, text);
}

static void look_for_waiting(struct streaming *t)
{
    static const char sql[] =
        "SELECT a.pid, a.usename, regexp_replace(a.query, '\\s+', ' ', 'g')"
        " FROM pg_stat_activity a WHERE a.wait_event_type = 'Lock' AND pg_blocking_pids(a.pid) &&"
        " (SELECT array_agg(pid) FROM pg_stat_activity WHERE application_name = $1)";
    OWN_POSTGRES_ROWS struct postgres_rows *r = NULL;
    char name[32];
    const char *const parameters[] = {name, NULL};
    if (!t->s->run->notice || clock_mono_us() < t->next_look_us)
        return;
    snprintf(name, sizeof name, "syncd-%d", (int)getpid());
    if (postgres_query(t->s->conn, "SELECT pg_stat_clear_snapshot()", NULL, NULL, NULL) == 0 &&
        postgres_query(t->s->conn, sql, parameters, &r, NULL) == 0)
        for (size_t i = 0; i < postgres_count(r); i++)
            if (!is_told(t, strtol(postgres_text(r, i, 0), NULL, 10)))
                tell(t, postgres_text(r, i, 0), postgres_text(r, i, 1), postgres_text(r, i, 2));
    t->next_look_us = clock_mono_us() + LOOK_EVERY_US;
}

/* ---- the stream ---- */

static int check_cancelled(const struct streaming *t, struct err *e)
{
    const struct source_run *run = t->s->run;
    if (run->cancel && atomic_load(run->cancel))
        return err_set(e, ERR_CANCELLED, t->s->source, "stopped");
    return pipeline_state(run->pipeline, e);
}

/* 1: bytes or the end are there. */
static int wait_for_bytes(struct streaming *t, struct err *e)
{
    struct pollfd poll_fd = {.fd = t->fd, .events = POLLIN};
    for (;;) {
        int rc = check_cancelled(t, e);
        if (rc)
            return rc;
        look_for_waiting(t);
        int n = poll(&poll_fd, 1, POLL_MS);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return err_sys(e, errno, t->child.name, "cannot wait for %s", t->child.name);
    }
}

static int pump(struct streaming *t, struct err *e)
{
    const struct source_run *run = t->s->run;
    for (;;) {
        int rc = wait_for_bytes(t, e);
        if (rc)
            return rc;
        ssize_t n = read(t->fd, t->buffer, READ_BYTES);
        if (n < 0 && errno != EINTR)
            return err_sys(e, errno, t->child.name, "cannot read what %s writes", t->child.name);
        if (n == 0)
            return content_end(&t->w, &t->runs, e);
        if (n < 0)
            continue;
        if (t->s->summary)
            dump_summary_feed(t->s->summary, t->buffer, (size_t)n);
        rc = content_write(&t->w, t->buffer, (size_t)n, e);
        if (rc)
            return rc;
        if (run->read)
            run->read(run->arg, (uint64_t)n);
    }
}

static int explain(const struct streaming *t, struct err *e)
{
    if (process_said(&t->child, "lock timeout") || process_said(&t->child, "statement timeout")) {
        err_set(e, ERR_BUSY, NULL, "another session holds a table's lock for longer than %d s",
                POSTGRES_LOCK_WAIT_S);
        err_hint(
            e, "An ALTER TABLE, a VACUUM FULL, a transaction left open? The next run tries again.");
    } else if (process_said(&t->child, "PQgetCopyData() failed") ||
               process_said(&t->child, "server closed the connection")) {
        err_hint(e, "The server ended the connection in the middle of the dump: its log says why. "
                    "The next run tries again.");
    } else if (process_said(&t->child, "permission denied")) {
        e->code = ERR_PERMISSION;
        err_hint(e, "GRANT pg_read_all_data TO %s; lets it read everything.",
                 postgres_user(t->s->conn));
    }
    return err_prefix(e, "no snapshot is made");
}

static int start(struct streaming *t, struct err *e)
{
    OWN_POSTGRES_ENVIRONMENT char **env = postgres_environment(t->s->conn, e);
    OWN_FD int write_fd = -1;
    int rc = env ? process_pipe(&t->fd, &write_fd, e) : ERR_NOMEM;
    if (rc)
        return rc;
    fcntl(write_fd, F_SETPIPE_SZ, PIPE_BYTES);
    return process_start(t->s->argv, env, -1, write_fd, &t->child, e);
}

int postgres_stream_take(const struct postgres_stream *s, struct entry *ret, struct err *e)
{
    OWN_MEM uint8_t *buffer = malloc(READ_BYTES);
    struct streaming t = {.s = s, .child = PROCESS_NONE, .fd = -1, .buffer = buffer};
    t.w = (struct content_writer){.pipeline = s->run->pipeline,
                                  .seed = s->run->repository->seed,
                                  .known = s->known,
                                  .anew = s->anew,
                                  .sizes = {.min = s->average_bytes / 4,
                                            .average = s->average_bytes,
                                            .max = s->average_bytes * 8}};
    t.next_look_us = clock_mono_us() + LOOK_EVERY_US;
    int rc = buffer ? start(&t, e) : err_nomem(e);
    if (rc == 0) {
        rc = pump(&t, e);
        /* The end of the stream says nothing: it is the status that does. */
        if (rc == 0 && (rc = process_wait(&t.child, e)) != 0)
            rc = explain(&t, e);
    }
    if (rc == 0) {
        ret->size = t.w.bytes;
        ret->runs = t.runs;
    } else {
        run_list_free(&t.runs);
    }
    process_end(&t.child);
    mem_closep(&t.fd);
    content_free(&t.w);
    return rc;
}
