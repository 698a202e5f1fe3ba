#include "snapshot/backup.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "conf/conf.h"
#include "snapshot/content.h"
#include "snapshot/plan.h"
#include "snapshot/sqlite_source.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

/* The entry list changes in few places: small chunks. */
static const struct chunker_sizes entry_chunks = {.min = 1024, .average = 4096, .max = 32768};

struct run {
    const struct backup_params *p;
    struct backup_result *result;
    struct pool pool;
    struct plan plan;
    struct pipeline *pipeline;
    struct source_run source;
    struct chunk_index known; /* chunks of the parent's entry list and config */
    size_t entry_count, entry_cap;
    struct entry *entries;
    struct entry_image *images;
};

/* ---- unchanged ---- */

static bool path_is_unchanged(const struct run *run, const char *path)
{
    const struct entry *before = plan_entry(&run->plan, path);
    struct entry_bytes now = {0};
    if (!before || !before->signature.len || before->carried ||
        sqlite_signature(path, &now, NULL) != 0)
        return false;
    bool same =
        now.len == before->signature.len && memcmp(now.data, before->signature.data, now.len) == 0;
    free(now.data);
    return same;
}

static bool config_is_unchanged(const struct run *run);

static bool source_is_unchanged(const struct run *run)
{
    const struct plan *plan = &run->plan;
    size_t paths = 0;
    if (!plan->has_parent || !plan->as_parent || !plan->parent.section.complete)
        return false;
    for (conf_list path = run->p->source->path; *path; path++, paths++)
        if (!path_is_unchanged(run, *path))
            return false;
    return config_is_unchanged(run) && plan->entry_count == paths + 1;
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

/* ---- entries ---- */

static int add_entry(struct run *run, struct entry *entry, struct err *e)
{
    if (mem_grow(&run->entries, &run->entry_cap, run->entry_count + 1, sizeof *run->entries)) {
        entry_free(entry);
        return err_nomem(e);
    }
    run->entries[run->entry_count++] = *entry;
    return 0;
}

static int take_paths(struct run *run, struct err *e)
{
    int rc = 0;
    for (conf_list path = run->p->source->path; rc == 0 && *path; path++) {
        struct entry entry = {0};
        rc = sqlite_take(&run->source, *path, &entry, e);
        if (rc == 0)
            rc = add_entry(run, &entry, e);
    }
    return rc;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->path, ((const struct entry *)b)->path);
}

static bool is_listed(const struct plan *plan, const struct part_run *at)
{
    struct part_ref key = {.epoch = at->epoch, .sequence = at->sequence};
    for (size_t i = plan->listed_count; i > 0; i--)
        if (part_order(&plan->listed[i - 1], &key) == 0)
            return true;
    return false;
}

static int index_chunk(void *arg, const uint8_t id[static CHUNK_ID_SIZE], const struct part_run *at,
                       const uint8_t *data, size_t n, struct err *e)
{
    struct run *run = arg;
    (void)data;
    (void)n;
    if (is_listed(&run->plan, at) && chunk_index_add(&run->known, id, at))
        return err_nomem(e);
    return 0;
}

static const struct entry *config_entry(const struct run *run)
{
    return plan_entry(&run->plan, "syncd.conf");
}

/* The chunks of the parent's entry list and of its copy of the config may be referred to again. */
static int index_parent(struct run *run, struct err *e)
{
    const struct snapshot *s = &run->plan.parent;
    const struct entry *config = config_entry(run);
    OWN_BLOCK_READER struct block_reader *r = NULL;
    if (!run->plan.has_parent)
        return 0;
    struct content list = {s->section.runs, s->section.run_count, s->parts, s->part_count};
    int rc = block_reader_new(&r, e);
    if (rc == 0)
        rc = pool_content(&run->pool, &list, r, index_chunk, run, e);
    if (rc == 0 && config) {
        struct content text = {config->runs, config->run_count, s->parts, s->part_count};
        rc = pool_content(&run->pool, &text, r, index_chunk, run, e);
        rc = rc == ERR_DAMAGED ? 0 : rc; /* then it is shipped again */
    }
    chunk_index_sort(&run->known);
    return rc;
}

/* The config's text is one chunk, whose id tells whether it is the same. */
static bool config_is_unchanged(const struct run *run)
{
    uint8_t id[CHUNK_ID_SIZE];
    const struct entry *config = config_entry(run);
    if (!config || !run->p->config_text || config->size != run->p->config_len)
        return config == NULL && !run->p->config_text;
    digest_chunk_id(run->p->repository->seed, run->p->config_text, run->p->config_len, id);
    return config->signature.len == sizeof id && memcmp(config->signature.data, id, sizeof id) == 0;
}

static void content_begin(const struct run *run, struct content_writer *w)
{
    *w = (struct content_writer){.pipeline = run->pipeline,
                                 .seed = run->p->repository->seed,
                                 .known = &run->known,
                                 .sizes = entry_chunks};
}

/* The config goes into each snapshot, so that a leader can be rebuilt from a worker alone. */
static int add_config(struct run *run, struct err *e)
{
    uint8_t id[CHUNK_ID_SIZE];
    struct content_writer w;
    struct entry entry = {.type = ENTRY_CONFIG, .as_of_us = run->result->as_of_us};
    if (!run->p->config_text)
        return 0;
    digest_chunk_id(run->p->repository->seed, run->p->config_text, run->p->config_len, id);
    content_begin(run, &w);
    int rc = content_write(&w, run->p->config_text, run->p->config_len, e);
    if (rc == 0)
        rc = content_end(&w, e);
    entry.path = strdup("syncd.conf");
    entry.signature.data = malloc(sizeof id);
    if (rc == 0 && (!entry.path || !entry.signature.data))
        rc = err_nomem(e);
    if (rc == 0) {
        memcpy(entry.signature.data, id, sizeof id);
        entry.signature.len = sizeof id;
        entry.size = w.bytes;
        entry.run_count = w.run_count;
        entry.runs = TAKE_PTR(w.runs);
        rc = add_entry(run, &entry, e);
    } else {
        entry_free(&entry);
    }
    content_free(&w);
    return rc;
}

static int write_entries(struct run *run, struct content_writer *w, struct err *e)
{
    OWN_BUF struct buf record = BUF_INIT;
    int rc = 0;
    if (run->entry_count)
        qsort(run->entries, run->entry_count, sizeof *run->entries, compare_paths);
    for (size_t i = 0; rc == 0 && i < run->entry_count; i++) {
        buf_reset(&record);
        entry_encode(&run->entries[i], &record);
        rc = record.bad ? err_nomem(e) : content_write(w, record.data, record.len, e);
    }
    return rc ? rc : content_end(w, e);
}

/* ---- the run ---- */

static void book_workers(struct run *run, const struct pipeline_result *r)
{
    for (size_t i = 0; i < run->p->worker_count; i++) {
        run->result->workers[i].stored = r->workers[i].stored && r->workers[i].as_snap;
        run->result->workers[i].as_pack = r->workers[i].stored && !r->workers[i].as_snap;
        run->result->workers[i].sent_bytes = r->workers[i].sent_bytes;
        run->result->workers[i].err = r->workers[i].err;
        run->result->sent_bytes = MAX(run->result->sent_bytes, r->workers[i].sent_bytes);
    }
}

static void keep_fingerprints(struct run *run)
{
    size_t count = 0;
    run->images = mem_alloc(run->entry_count, sizeof *run->images);
    for (size_t i = 0; run->images && i < run->entry_count; i++)
        if (run->entries[i].type == ENTRY_IMAGE)
            run->images[count++] = run->entries[i].image;
    struct err e = ERR_INIT;
    if (plan_keep_tables(&run->plan, &run->result->snapshot, run->images, count, &e) &&
        run->p->notice)
        run->p->notice(run->p->arg, e.message);
}

static int commit(struct run *run, struct err *e)
{
    struct content_writer w;
    struct pipeline_result r = {0};
    content_begin(run, &w);
    int rc = write_entries(run, &w, e);
    struct snapshot_section section = {.as_of_us = run->result->as_of_us,
                                       .complete = run->result->complete,
                                       .listed_count = run->plan.listed_count,
                                       .listed = run->plan.listed,
                                       .entry_bytes = w.bytes,
                                       .run_count = w.run_count,
                                       .runs = w.runs};
    if (rc == 0) {
        run->result->changed_bytes = pipeline_changed_bytes(run->pipeline);
        rc = pipeline_finish(TAKE_PTR(run->pipeline), &section, &r, e);
        book_workers(run, &r);
    }
    if (rc == 0) {
        run->result->snapshot = r.snapshot;
        run->result->new_part_count = r.part_count;
        keep_fingerprints(run);
    }
    free(r.parts);
    content_free(&w);
    return rc;
}

static void sum_up(struct run *run)
{
    run->result->complete = true;
    for (size_t i = 0; i < run->entry_count; i++) {
        const struct entry *n = &run->entries[i];
        run->result->size_bytes += entry_size(n);
        run->result->complete &= n->carried == NULL;
        if (i == 0 || n->as_of_us < run->result->as_of_us)
            run->result->as_of_us = n->as_of_us;
    }
}

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

static int start_pipeline(struct run *run, struct err *e)
{
    const struct backup_params *p = run->p;
    struct pipeline_options o = {.epoch = p->epoch,
                                 .next_sequence = run->plan.next_sequence,
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
        o.workers[i].holds_listed = worker_holds(run, i, run->plan.listed, run->plan.listed_count);
    }
    return pipeline_start(&o, &run->pipeline, e);
}

/* From here on the stores are the senders'; the pool must not touch them any more. */
static int ship(struct run *run, struct err *e)
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
    rc = take_paths(run, e);
    if (rc == 0) {
        sum_up(run);
        rc = add_config(run, e);
    }
    if (rc == 0)
        rc = commit(run, e);
    if (run->pipeline) {
        struct pipeline_result r = {0};
        pipeline_abort(TAKE_PTR(run->pipeline), &r);
        book_workers(run, &r);
    }
    return rc;
}

static int check_folder(struct run *run, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < run->p->worker_count; i++)
        if (run->p->workers[i].listing->count == 0)
            rc = store_make_dir(run->p->workers[i].store, run->p->source->name, e);
    return rc;
}

static int run_source(struct run *run, struct err *e)
{
    struct plan_options o = {.pool = &run->pool,
                             .fingerprint_dir = run->p->fingerprint_dir,
                             .is_ours = run->p->is_ours,
                             .is_damaged = run->p->is_damaged,
                             .arg = run->p->arg};
    int rc = plan_make(&o, run->p->epoch, run->p->min_sequence, &run->plan, e);
    if (rc)
        return rc;
    run->result->as_of_us = clock_now_us();
    if (source_is_unchanged(run)) {
        run->result->unchanged = run->result->complete = true;
        run->result->snapshot = run->plan.parent.ref;
        for (size_t i = 0; i < run->plan.entry_count; i++)
            run->result->size_bytes += entry_size(&run->plan.entries[i]);
        mark_unchanged(run);
        return 0;
    }
    rc = plan_prepare(&run->plan, e);
    if (rc == 0)
        rc = index_parent(run, e);
    if (rc == 0)
        rc = check_folder(run, e);
    pool_close(&run->pool);
    run->result->consolidated = run->plan.consolidates;
    return rc ? rc : ship(run, e);
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
    plan_free(&run.plan);
    chunk_index_free(&run.known);
    for (size_t i = 0; i < run.entry_count; i++)
        entry_free(&run.entries[i]);
    free(run.entries);
    free(run.images);
    return rc;
}
