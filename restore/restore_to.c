#include "restore/restore_to.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "restore/chunk_source.h"
#include "restore/dump_filter.h"
#include "restore/restore_to_internal.h"
#include "snapshot/entry.h"
#include "snapshot/pool.h"
#include "snapshot/spool.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/base/process.h"

#define POLL_MS 250
#define SINK_BYTES 65536u

struct bringing_to {
    const struct restore_to_params *p;
    struct restore_to_result *result;
    struct entry dump;
    struct dump_details details;
    const char **schemas; /* that were chosen; NULL: all of it */
    struct target target;
    struct process maker, taker; /* pg_restore, psql */
    int maker_fd, taker_fd;      /* their stdin */
    struct buf pending;          /* for the maker */
};

/* ---- which dump ---- */

static int keep_dump(void *arg, struct entry *n, struct err *e)
{
    struct bringing_to *b = arg;
    (void)e;
    if (!dump_is_archive(n) || b->dump.path)
        return 0;
    b->dump = *n;
    *n = (struct entry){0};
    return 0;
}

static int find_dump(struct bringing_to *b, struct err *e)
{
    OWN_BLOCK_READER struct block_reader *r = NULL;
    int rc = block_reader_new(&r, e);
    if (rc == 0)
        rc = pool_entries(b->p->pool, b->p->snapshot, r, keep_dump, b, e);
    if (rc)
        return rc;
    if (!b->dump.path) {
        err_set(e, ERR_USAGE, b->p->pool->source, "%s is no PostgreSQL source: there is no dump",
                b->p->pool->source);
        return err_hint(e, "--target DIR or --in-place bring files back.");
    }
    rc = dump_details_read(&b->dump, &b->details, e);
    if (rc == 0)
        rc = dump_details_choose(&b->details, &b->dump, b->p->globs, &b->schemas, e);
    if (rc || !b->schemas || b->schemas[0])
        return rc;
    err_set(e, ERR_NOT_FOUND, b->p->globs[0], "no schema in the dump matches %s", b->p->globs[0]);
    return err_hint(e, "--path takes the name of a schema; without it all are restored.");
}

static int check_programs(const struct bringing_to *b, struct err *e)
{
    int rc = postgres_check_program("pg_restore", b->details.pg_dump, NULL, e);
    return rc ? rc : postgres_check_program("psql", b->details.pg_dump, NULL, e);
}

static void look_at_versions(const struct bringing_to *b)
{
    char text[256];
    int there = postgres_version(b->target.conn ? b->target.conn : b->target.maintenance) / 10000;
    int here = b->details.server / 10000;
    if (there >= here || !b->p->notice)
        return;
    snprintf(text, sizeof text,
             "the dump is of PostgreSQL %d, this server is %d: what an older one does not know "
             "will fail",
             here, there);
    b->p->notice(b->p->arg, text);
}

/* ---- the programs ---- */

/* archive -> pg_restore -> psql. */
static int start(struct bringing_to *b, struct err *e)
{
    static const char *const maker[] = {"pg_restore", "--format=custom", "--file=-", NULL};
    static const char *const taker[] = {"psql", "-X", "-q", "-v", "ON_ERROR_STOP=1",
                                        "-f",   "-",  NULL};
    OWN_POSTGRES_ENVIRONMENT char **env = postgres_environment(b->target.conn, e);
    OWN_FD int maker_in = -1, taker_in = -1;
    int rc = env ? process_pipe(&taker_in, &b->taker_fd, e) : ERR_NOMEM;
    if (rc == 0)
        rc = process_pipe(&maker_in, &b->maker_fd, e);
    if (rc == 0)
        rc = process_start(taker, env, taker_in, -1, &b->taker, e);
    if (rc == 0)
        rc = process_start(maker, env, maker_in, b->taker_fd, &b->maker, e);
    if (rc == 0 && fcntl(b->maker_fd, F_SETFL, O_NONBLOCK) < 0)
        rc = err_sys(e, errno, b->maker.name, "cannot write to %s", b->maker.name);
    return rc;
}

/* All of it, watching for a signal. */
static int write_out(const struct bringing_to *b, int fd, const void *bytes, size_t n,
                     struct err *e)
{
    const uint8_t *p = bytes;
    while (n > 0) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
        if (b->p->cancel && atomic_load(b->p->cancel))
            return err_set(e, ERR_CANCELLED, NULL, "stopped");
        if (poll(&poll_fd, 1, POLL_MS) < 0 && errno != EINTR)
            return err_sys(e, errno, NULL, "cannot wait for PostgreSQL's programs");
        ssize_t done = poll_fd.revents ? write(fd, p, n) : 0;
        if (done < 0 && errno != EINTR && errno != EAGAIN)
            return err_sys(e, errno, NULL, "cannot write to PostgreSQL's programs");
        p += MAX(done, (ssize_t)0);
        n -= (size_t)MAX(done, (ssize_t)0);
    }
    return 0;
}

static int sink(void *arg, const void *p, size_t n, struct err *e)
{
    struct bringing_to *b = arg;
    buf_put(&b->pending, p, n);
    if (b->pending.bad)
        return err_nomem(e);
    if (b->pending.len < SINK_BYTES)
        return 0;
    int rc = write_out(b, b->maker_fd, b->pending.data, b->pending.len, e);
    buf_reset(&b->pending);
    return rc;
}

struct feeding {
    struct bringing_to *b;
    struct dump_filter *filter; /* or NULL */
};

static int take_bytes(void *arg, const uint8_t *p, size_t n, struct err *e)
{
    struct feeding *f = arg;
    if (f->b->p->progress)
        f->b->p->progress(f->b->p->arg, n);
    return f->filter ? dump_filter_feed(f->filter, p, n, e) : sink(f->b, p, n, e);
}

static int feed(struct bringing_to *b, struct err *e)
{
    struct chunk_source *chunks = NULL;
    struct feeding f = {.b = b};
    struct chunk_source_options o = {
        .pool = b->p->pool, .snapshot = b->p->snapshot, .dir = spool_dir(), .cancel = b->p->cancel};
    int rc = chunk_source_new(&o, &chunks, e);
    if (rc == 0 && b->schemas && !(f.filter = dump_filter_new(b->schemas, sink, b)))
        rc = err_nomem(e);
    if (rc == 0)
        rc = chunk_source_read(chunks, &b->dump.runs, NULL, take_bytes, &f, e);
    if (rc == 0 && f.filter)
        rc = dump_filter_end(f.filter, e);
    if (rc == 0)
        rc = write_out(b, b->maker_fd, b->pending.data, b->pending.len, e);
    dump_filter_free(f.filter);
    chunk_source_free(chunks);
    return rc;
}

/* Whichever of the two failed first: the other then only lost its neighbour. */
static int reason(struct bringing_to *b, int rc, struct err *e)
{
    struct err of_taker = ERR_INIT, of_maker = ERR_INIT;
    if (rc == ERR_CANCELLED || rc == ERR_DAMAGED || rc == ERR_NOMEM)
        return rc;
    mem_closep(&b->maker_fd);
    mem_closep(&b->taker_fd);
    int maker = b->maker.pid ? process_wait(&b->maker, &of_maker) : 0;
    int taker = b->taker.pid ? process_wait(&b->taker, &of_taker) : 0;
    if (taker)
        *e = of_taker;
    else if (maker)
        *e = of_maker;
    return e->code;
}

/* The dump's end is the maker's status; psql has no COMMIT before that. */
static int pass(struct bringing_to *b, struct err *e)
{
    OWN_BUF struct buf script = BUF_INIT;
    int rc = script_begin(b->p, &b->details, b->schemas, b->target.conn, &script, e);
    if (rc == 0)
        rc = write_out(b, b->taker_fd, script.data, script.len, e);
    if (rc == 0)
        rc = feed(b, e);
    mem_closep(&b->maker_fd);
    if (rc == 0)
        rc = process_wait(&b->maker, e);
    buf_reset(&script);
    if (rc == 0)
        rc = script_end(b->p, &b->details, b->schemas, b->result, &script, e);
    if (rc == 0)
        rc = write_out(b, b->taker_fd, script.data, script.len, e);
    mem_closep(&b->taker_fd);
    return rc ? rc : process_wait(&b->taker, e);
}

static int bring(struct bringing_to *b, struct err *e)
{
    if (b->p->total)
        b->p->total(b->p->arg, b->dump.size);
    int rc = start(b, e);
    if (rc == 0)
        rc = pass(b, e);
    if (rc == 0)
        return 0;
    rc = reason(b, rc, e);
    err_prefix(e, "%s is as it was", b->result->database);
    return rc;
}

static int run(struct bringing_to *b, struct err *e)
{
    int rc = find_dump(b, e);
    if (rc == 0)
        rc = check_programs(b, e);
    if (rc)
        return rc;
    snprintf(b->result->path, sizeof b->result->path, "%s", b->dump.path);
    b->result->bytes = b->dump.size;
    b->result->as_of_us = b->dump.as_of_us;
    rc = target_open(b->p, &b->details, b->schemas, &b->target, b->result, e);
    if (rc == 0)
        look_at_versions(b);
    if (rc == 0 && !b->p->dry_run)
        rc = bring(b, e);
    return rc;
}

int restore_to_run(const struct restore_to_params *p, struct restore_to_result *ret, struct err *e)
{
    struct bringing_to b = {.p = p,
                            .result = ret,
                            .maker = PROCESS_NONE,
                            .taker = PROCESS_NONE,
                            .maker_fd = -1,
                            .taker_fd = -1};
    *ret = (struct restore_to_result){0};
    int rc = run(&b, e);
    mem_closep(&b.maker_fd);
    mem_closep(&b.taker_fd);
    process_end(&b.maker);
    process_end(&b.taker);
    target_close(&b.target, ret, rc == 0 && !p->rehearse);
    buf_free(&b.pending);
    free(b.schemas);
    dump_details_free(&b.details);
    entry_free(&b.dump);
    return rc;
}
