#include "snapshot/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "conf/conf.h"
#include "snapshot/content.h"
#include "snapshot/plan.h"
#include "snapshot/source.h"
#include "snapshot/spool.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

#define AUDIT_EVERY_US (INT64_C(24) * 3600 * US_PER_S)
#define ATTEMPTS_MAX 5

/* The entry list changes in few places: small chunks. */
static const struct chunker_sizes entry_chunks = {.min = 1024, .average = 4096, .max = 32768};

struct run {
    const struct backup_params *p;
    struct backup_result *result;
    struct pool pool;
    struct spool *parent; /* the parent's entries */
    struct plan plan;
    const struct source_ops *ops;
    void *of; /* the source */
    struct pipeline *pipeline;
    struct source_run source;
    bool audit, has_lost; /* a worker's thread hangs in its store */
    bool keep_list;       /* an attempt with a shorter one found what it carries over left off */
    struct entry config;
    uint64_t next_sequence; /* after an attempt that was given up */
    struct plan_lost lost;
};

/* ---- the config, which goes into each snapshot so that a leader can be rebuilt from a worker ----
 */

static const struct entry *config_before(const struct run *run)
{
    return plan_entry(&run->plan, "syncd.conf");
}

/* The id of the whole text tells whether it is the same. */
static bool config_is_unchanged(const struct run *run)
{
    uint8_t id[CHUNK_ID_SIZE];
    const struct entry *before = config_before(run);
    if (!before || !run->p->config_text || before->size != run->p->config_len)
        return before == NULL && !run->p->config_text;
    digest_chunk_id(run->p->repository->seed, run->p->config_text, run->p->config_len, id);
    return before->signature.len == sizeof id && memcmp(before->signature.data, id, sizeof id) == 0;
}

static void content_begin(const struct run *run, struct content_writer *w)
{
    *w = (struct content_writer){.pipeline = run->pipeline,
                                 .seed = run->p->repository->seed,
                                 .known = run->plan.chunks,
                                 .sizes = entry_chunks};
}

static int write_config(struct run *run, struct content_writer *w, struct err *e)
{
    uint8_t id[CHUNK_ID_SIZE];
    struct entry *n = &run->config;
    *n = (struct entry){.type = ENTRY_CONFIG, .as_of_us = clock_now_us()};
    digest_chunk_id(run->p->repository->seed, run->p->config_text, run->p->config_len, id);
    int rc = content_write(w, run->p->config_text, run->p->config_len, e);
    if (rc == 0)
        rc = content_end(w, &n->runs, e);
    if (rc)
        return rc;
    n->path = strdup("syncd.conf");
    n->signature.data = malloc(sizeof id);
    if (!n->path || !n->signature.data)
        return err_nomem(e);
    memcpy(n->signature.data, id, sizeof id);
    n->signature.len = sizeof id;
    n->size = w->bytes;
    return 0;
}

/* An unchanged one keeps its record, so that the entry list stays the same. */
static int take_config(struct run *run, struct err *e)
{
    struct content_writer w;
    const struct entry *before = config_before(run);
    if (!run->p->config_text)
        return 0;
    if (before && config_is_unchanged(run) && plan_lists(&run->plan, before))
        return entry_copy(before, &run->config, e);
    content_begin(run, &w);
    int rc = write_config(run, &w, e);
    content_free(&w);
    return rc;
}

/* ---- unchanged ---- */

/* When everything was read last, and not only looked at: the time of a file that is gone after a
 * reboot, which then is a reason to read it all. */
static char *audit_mark(const struct run *run)
{
    return io_path(run->p->fingerprint_dir, "scanned");
}

static bool audit_is_due(const struct run *run)
{
    OWN_MEM char *path = audit_mark(run);
    struct stat st;
    if (!path || stat(path, &st) < 0)
        return true;
    int64_t age_us = clock_now_us() - (int64_t)st.st_mtim.tv_sec * US_PER_S;
    return age_us < 0 || age_us >= AUDIT_EVERY_US;
}

static void note_audit(const struct run *run)
{
    OWN_MEM char *path = audit_mark(run);
    OWN_FD int fd = path ? io_open(path, O_WRONLY | O_CREAT | O_NOFOLLOW, 0600) : -1;
    if (fd >= 0)
        io_set_mtime(path, clock_now_us());
}

static bool source_is_unchanged(const struct run *run)
{
    return run->plan.has_parent && run->plan.as_parent && run->plan.parent.section.complete &&
           config_is_unchanged(run) && run->ops->is_unchanged(run->of);
}

/* Whether the worker has all of these, as far as is known whole. */
static bool worker_holds(const struct run *run, size_t i, const struct part_ref *refs, size_t count)
{
    const struct backup_params *p = run->p;
    bool holds = listing_holds_all(p->workers[i].listing, refs, count);
    for (size_t k = 0; holds && p->is_damaged && k < count; k++)
        holds = !p->is_damaged(p->arg, p->workers[i].store, &refs[k]);
    return holds;
}

/* What the workers' listings show is marked, so that the record outlives the leader. */
static void mark_unchanged(struct run *run)
{
    const struct snapshot *parent = &run->plan.parent;
    char name[PART_NAME_SIZE], path[SOURCE_NAME_SIZE + PART_NAME_SIZE];
    run->result->unchanged = run->result->complete = true;
    run->result->snapshot = parent->ref;
    run->result->size_bytes = run->plan.size_bytes;
    for (size_t i = 0; i < run->p->worker_count; i++) {
        const struct listing *l = run->p->workers[i].listing;
        const struct listed_part *part = listing_find(l, &parent->ref);
        struct err *err = &run->result->workers[i].err;
        if (!part || part->mark != PART_SNAP ||
            !worker_holds(run, i, parent->parts, parent->part_count)) {
            run->result->workers[i].as_pack = true;
            continue;
        }
        part_name_format(&parent->ref, PART_SNAP, name);
        snprintf(path, sizeof path, "%s/%s", run->p->source->name, name);
        if (run->p->may_publish && run->p->may_publish(run->p->arg, i, err))
            continue;
        run->result->workers[i].stored =
            store_set_mtime(run->p->workers[i].store, path, run->result->as_of_us, err) == 0;
    }
}

/* ---- what the run gets called with ---- */

static int open_table(void *arg, uint64_t image, struct fingerprints **ret, bool *ret_known,
                      struct err *e)
{
    struct run *run = arg;
    return plan_table(&run->plan, image, ret, ret_known, e);
}

static void count_read(void *arg, uint64_t bytes)
{
    struct run *run = arg;
    run->result->read_bytes += bytes;
    if (run->p->read)
        run->p->read(run->p->arg, bytes);
}

static void pass_total(void *arg, uint64_t bytes)
{
    struct run *run = arg;
    if (run->p->total)
        run->p->total(run->p->arg, bytes);
}

static void pass_notice(void *arg, const char *text)
{
    struct run *run = arg;
    if (run->p->notice)
        run->p->notice(run->p->arg, text);
}

/* ---- the run ---- */

static void book_workers(struct run *run, const struct pipeline_result *r)
{
    for (size_t i = 0; i < run->p->worker_count; i++) {
        run->result->workers[i].stored = r->workers[i].stored && r->workers[i].as_snap;
        run->result->workers[i].as_pack = r->workers[i].stored && !r->workers[i].as_snap;
        run->result->workers[i].sent_bytes += r->workers[i].sent_bytes;
        run->result->workers[i].lost |= r->workers[i].lost;
        run->has_lost |= r->workers[i].lost;
        run->result->workers[i].err = r->workers[i].err;
        run->result->sent_bytes = MAX(run->result->sent_bytes, run->result->workers[i].sent_bytes);
    }
}

static void abort_pipeline(struct run *run)
{
    struct pipeline_result r = {0};
    if (!run->pipeline)
        return;
    pipeline_abort(TAKE_PTR(run->pipeline), &r);
    run->next_sequence = r.next_sequence;
    book_workers(run, &r);
}

static void keep_tables(struct run *run)
{
    struct err e = ERR_INIT;
    struct entry_image *images = NULL;
    size_t count = 0;
    int rc = run->ops->images(run->of, &images, &count, &e);
    if (rc == 0)
        rc = plan_keep_tables(&run->plan, &run->result->snapshot, images, count, &e);
    if (rc && run->p->notice)
        run->p->notice(run->p->arg, e.message);
    free(images);
}

/* The entry list; *ret_runs is where it lies, the caller's. */
static int write_entries(struct run *run, uint64_t *ret_bytes, struct part_run **ret_runs,
                         size_t *ret_count, struct err *e)
{
    struct content_writer w;
    struct run_list runs = {0};
    content_begin(run, &w);
    int rc = run->ops->write(run->of, run->config.path ? &run->config : NULL, &w, e);
    if (rc == 0)
        rc = content_end(&w, &runs, e);
    if (rc == 0)
        rc = run_list_array(&runs, SIZE_MAX, ret_runs, ret_count, e);
    *ret_bytes = w.bytes;
    content_free(&w);
    run_list_free(&runs);
    return rc;
}

static int commit(struct run *run, struct err *e)
{
    OWN_MEM struct part_run *runs = NULL;
    size_t run_count = 0;
    uint64_t entry_bytes = 0;
    struct pipeline_result r = {0};
    int rc = write_entries(run, &entry_bytes, &runs, &run_count, e);
    struct snapshot_section section = {.as_of_us = run->result->as_of_us,
                                       .complete = run->result->complete,
                                       .listed_count = run->plan.listed_count,
                                       .listed = run->plan.listed,
                                       .entry_bytes = entry_bytes,
                                       .run_count = run_count,
                                       .runs = runs};
    if (rc == 0) {
        run->result->changed_bytes = pipeline_changed_bytes(run->pipeline);
        rc = pipeline_finish(TAKE_PTR(run->pipeline), &section, &r, e);
        book_workers(run, &r);
    }
    if (rc == 0) {
        run->result->snapshot = r.snapshot;
        run->result->new_part_count = r.part_count;
        keep_tables(run);
    }
    free(r.parts);
    return rc;
}

static int copy_failed(const struct source_totals *s, struct backup_result *ret, struct err *e)
{
    ret->failed = mem_alloc(s->failed_listed, sizeof *ret->failed);
    for (size_t i = 0; ret->failed && i < s->failed_listed; i++) {
        struct backup_failed *f = &ret->failed[ret->failed_listed++];
        f->path = strdup(s->failed[i].path);
        f->reason = strdup(s->failed[i].reason);
        f->hint = strdup(s->failed[i].hint);
        f->lost = s->failed[i].lost;
        if (!f->path || !f->reason || !f->hint)
            return err_nomem(e);
    }
    return ret->failed ? 0 : err_nomem(e);
}

/* What is known once everything has been taken. */
static int sum_up(struct run *run, struct err *e)
{
    const struct source_totals *s = run->ops->totals(run->of);
    struct backup_result *ret = run->result;
    ret->complete = s->failed_count == 0 && s->carried == 0;
    ret->size_bytes = s->size_bytes;
    ret->skew_us = s->last_us - s->first_us;
    if (s->as_of_us)
        ret->as_of_us = s->as_of_us;
    ret->failed_count = s->failed_count;
    ret->carried_count = s->carried;
    int rc = s->failed_listed ? copy_failed(s, ret, e) : 0;
    if (rc)
        return rc;
    if (s->fresh + s->same > 0 || s->failed_count == 0)
        return 0;
    /* A snapshot of nothing but old states would only push better ones out of the retention. */
    *e = s->first;
    return e->code;
}

static int start_pipeline(struct run *run, struct err *e)
{
    const struct backup_params *p = run->p;
    const struct plan *plan = &run->plan;
    struct pipeline_options o = {.epoch = p->epoch,
                                 .next_sequence = plan->next_sequence,
                                 .worker_count = p->worker_count,
                                 .cancel = p->cancel,
                                 .publishing = p->publishing,
                                 .may_begin = p->may_begin,
                                 .may_publish = p->may_publish,
                                 .sent = p->sent,
                                 .arg = p->arg};
    memcpy(o.repository, p->repository->id, REPO_ID_SIZE);
    snprintf(o.source, sizeof o.source, "%s", p->source->name);
    for (size_t i = 0; i < p->worker_count; i++) {
        o.workers[i].store = p->workers[i].store;
        o.workers[i].cancel_fd = p->workers[i].cancel_fd;
        o.workers[i].holds_listed = worker_holds(run, i, plan->listed, plan->listed_count);
    }
    return pipeline_start(&o, &run->pipeline, e);
}

/* From here on the stores are the senders'; the pool must not touch them any more. */
static int take(struct run *run, bool *ret_again, struct err *e)
{
    int rc = start_pipeline(run, e);
    if (rc)
        return rc;
    run->source = (struct source_run){.pipeline = run->pipeline,
                                      .repository = run->p->repository,
                                      .open_table = open_table,
                                      .read = count_read,
                                      .total = pass_total,
                                      .notice = pass_notice,
                                      .arg = run,
                                      .cancel = run->p->cancel};
    bool looked = run->lost.count > 0;
    rc = run->ops->take(run->of, &run->source, &run->plan, run->audit, ret_again, e);
    /* What failed and cannot be carried over from the parent an older snapshot may have whole. */
    if (rc == 0 && !looked && run->lost.count)
        *ret_again = true;
    return rc || *ret_again ? rc : sum_up(run, e);
}

static int ship(struct run *run, bool *ret_again, struct err *e)
{
    int rc = take(run, ret_again, e);
    bool as_before = rc == 0 && !*ret_again && run->audit && run->plan.as_parent &&
                     run->plan.parent.section.complete && config_is_unchanged(run) &&
                     run->ops->is_as_before(run->of) && pipeline_changed_bytes(run->pipeline) == 0;
    if (rc == 0 && !*ret_again && !as_before)
        rc = take_config(run, e);
    if (rc == 0 && !*ret_again && !as_before)
        rc = commit(run, e);
    abort_pipeline(run);
    if (rc == 0 && as_before)
        mark_unchanged(run);
    if (rc == 0 && !*ret_again && run->audit)
        note_audit(run);
    return rc;
}

/* A worker that cannot make the source's folder costs the other nothing: what ails it is told when
 * its sender comes to it. */
static int check_folders(struct run *run, struct err *e)
{
    struct err why = ERR_INIT;
    bool any = false;
    for (size_t i = 0; i < run->p->worker_count; i++)
        any |= run->p->workers[i].listing->count > 0 ||
               store_make_dir(run->p->workers[i].store, run->p->source->name, &why) == 0;
    if (any && why.code != ERR_CANCELLED && why.code != ERR_NOMEM)
        return 0;
    *e = why;
    return why.code;
}

static int make_plan(struct run *run, bool no_leftovers, struct err *e)
{
    run->keep_list |= run->plan.wants_left_off;
    struct plan_options o = {.pool = &run->pool,
                             .fingerprint_dir = run->p->fingerprint_dir,
                             .entries = run->parent,
                             .no_leftovers = no_leftovers,
                             .keep_list = run->keep_list,
                             .lost = &run->lost,
                             .is_ours = run->p->is_ours,
                             .is_damaged = run->p->is_damaged,
                             .arg = run->p->arg};
    uint64_t min_sequence = MAX(run->p->min_sequence, run->next_sequence);
    plan_free(&run->plan);
    spool_empty(run->parent);
    return plan_make(&o, run->p->epoch, min_sequence, &run->plan, e);
}

/* Looks for changes. *ret_unchanged: there are none, and that is marked. */
static int look(struct run *run, bool *ret_unchanged, struct err *e)
{
    struct source_options o = {.source = run->p->source,
                               .own_dir = run->p->state_dir,
                               .dir = run->p->fingerprint_dir,
                               .parent = run->parent,
                               .has_parent = run->plan.has_parent,
                               .cancel = run->p->cancel};
    run->ops = run->p->source->postgres ? &postgres_source_ops : &tree_source_ops;
    run->result->as_of_us = clock_now_us();
    int rc = run->ops->open(&o, &run->of, e);
    if (rc == 0)
        rc = run->ops->look(run->of, &run->plan, e);
    if (rc)
        return rc;
    run->audit = audit_is_due(run);
    *ret_unchanged = !run->audit && source_is_unchanged(run);
    if (*ret_unchanged)
        mark_unchanged(run);
    return 0;
}

static int run_source(struct run *run, struct err *e)
{
    bool unchanged = false, again = true;
    int rc = spool_open(run->p->fingerprint_dir, &run->parent, e);
    if (rc == 0)
        rc = make_plan(run, false, e);
    if (rc == 0)
        rc = look(run, &unchanged, e);
    if (rc || unchanged)
        return rc;
    rc = check_folders(run, e);
    for (int i = 0; rc == 0 && again; i++) {
        again = false;
        if (i > 0)
            rc = make_plan(run, true, e);
        if (rc == 0)
            rc = plan_prepare(&run->plan, e);
        pool_close(&run->pool);
        run->result->consolidated = run->plan.consolidates;
        if (rc == 0)
            rc = ship(run, &again, e);
        if (rc == 0 && again && run->has_lost)
            rc = err_set(e, ERR_TIMEOUT, run->p->source->name, "the file system of a worker hangs");
        if (rc == 0 && again && i + 1 == ATTEMPTS_MAX)
            rc = err_set(e, ERR_INTERNAL, run->p->source->name,
                         "databases of source %s fail one after the other", run->p->source->name);
    }
    return rc;
}

int backup_run(const struct backup_params *p, struct backup_result *ret, struct err *e)
{
    struct run run = {.p = p, .result = ret};
    *ret = (struct backup_result){0};
    run.pool = (struct pool){.repository = p->repository,
                             .source = p->source->name,
                             .ruler = p->ruler,
                             .store_count = p->worker_count,
                             .arg = p->arg};
    for (size_t i = 0; i < p->worker_count; i++) {
        run.pool.at[i].store = p->workers[i].store;
        run.pool.at[i].listing = p->workers[i].listing;
    }
    int rc = run_source(&run, e);
    pool_close(&run.pool);
    if (run.ops)
        run.ops->close(run.of);
    plan_free(&run.plan);
    spool_close(run.parent);
    plan_lost_free(&run.lost);
    entry_free(&run.config);
    return rc;
}

void backup_result_free(struct backup_result *r)
{
    for (size_t i = 0; i < r->failed_listed; i++) {
        free(r->failed[i].path);
        free(r->failed[i].reason);
        free(r->failed[i].hint);
    }
    free(TAKE_PTR(r->failed));
    r->failed_listed = 0;
}
