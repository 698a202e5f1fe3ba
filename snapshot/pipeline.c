/* Adding and compressing. See pipeline_internal.h for who owns what. */
#include "snapshot/pipeline.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#include "snapshot/columns.h"
#include "snapshot/pipeline_internal.h"
#include "syncd/base/clock.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

#define QUEUE_BYTES (4u << 20)
#define LEVEL_FULL 1
#define BLOCK_HASH_LOG 16
#define BLOCK_CHAIN_LOG 18 /* of PART_BLOCK_MAX bytes */
#define WAIT_SLICE_US (100 * US_PER_MS)
#define LOST_AFTER_S 10
#define BLAME_LIMIT_US (10 * US_PER_S)
#define DRAINED_US 200000u
/* A part's metadata, of which memory holds two copies, stays within 1.2 MB by this, however small
 * the pages or chunks are and however well they compress. */
#define PART_ITEMS_TARGET 65536u

/* How much effort an increment is worth, by what it has come to so far: the first blocks of a small
 * one travel best small (level 15 saves 3 % over 12 and takes half as long again), a large one must
 * not wait for it. */
static const struct {
    uint64_t up_to_bytes;
    int level;
} efforts[] = {{512u << 10, 15}, {4u << 20, 12}};

static bool cancelled(const struct pipeline *p)
{
    return p->o.cancel && atomic_load(p->o.cancel);
}

/* ---- compressing ---- */

/* A compressing thread's own. */
struct compressor {
    ZSTD_CCtx *zstd;
    struct columns *columns;
};

/* The tables of the high levels are made for more than a block: smaller ones find the same, sooner,
 * in half the memory. 0: zstd's own. */
static bool set_level(struct compressor *c, int level)
{
    bool is_high = level != LEVEL_FULL;
    const struct {
        ZSTD_cParameter name;
        int value;
    } parameters[] = {{ZSTD_c_compressionLevel, level},
                      {ZSTD_c_hashLog, is_high ? BLOCK_HASH_LOG : 0},
                      {ZSTD_c_chainLog, is_high ? BLOCK_CHAIN_LOG : 0}};
    for (size_t i = 0; i < ARRAY_LEN(parameters); i++)
        if (ZSTD_isError(ZSTD_CCtx_setParameter(c->zstd, parameters[i].name, parameters[i].value)))
            return false;
    return true;
}

/* Compresses outside the lock. The message that is made is the slot's until it is queued. */
static int compress_slot(struct slot *s, struct compressor *c, struct err *e)
{
    s->stored = message_new(MESSAGE_DATA, s->raw_bytes);
    if (!s->stored)
        return err_nomem(e);
    const uint8_t *from = s->raw;
    size_t n = 0, from_bytes = 0;
    s->method = BLOCK_COLUMNS;
    if (s->kind == BLOCK_PAGES)
        from_bytes = columns_split(c->columns, s->raw, s->page_shift, s->count, &from);
    if (from_bytes == 0) {
        s->method = BLOCK_ZSTD;
        from_bytes = s->raw_bytes;
    }
    if (s->raw_bytes > 1 && set_level(c, s->level))
        n = ZSTD_compress2(c->zstd, s->stored->data, s->raw_bytes - 1, from, from_bytes);
    if (n == 0 || ZSTD_isError(n))
        s->method = BLOCK_PLAIN;
    if (s->method == BLOCK_PLAIN) {
        n = s->raw_bytes;
        memcpy(s->stored->data, s->raw, n);
    }
    /* The rest of the room is given back, so that queue_bytes is what is really held. */
    struct message *fitting = realloc(s->stored, sizeof *fitting + n);
    if (fitting)
        s->stored = fitting;
    s->stored->n = n;
    s->stored_bytes = (uint32_t)n;
    digest_blake2b(s->stored->data, n, s->digest);
    return 0;
}

static struct slot *next_ready(struct pipeline *p)
{
    struct slot *s = &p->slots[p->compress];
    if (s->state != SLOT_READY)
        return NULL;
    s->state = SLOT_COMPRESSING;
    p->compress = (p->compress + 1) % p->slot_count;
    return s;
}

static void *compress_main(void *arg)
{
    struct pipeline *p = arg;
    struct compressor c = {.zstd = ZSTD_createCCtx(), .columns = columns_new()};
    bool ready = c.zstd && c.columns;
    pthread_mutex_lock(&p->lock);
    if (!ready)
        err_nomem(&p->fatal);
    while (!p->stopping && ready) {
        struct slot *s = next_ready(p);
        if (!s) {
            pthread_cond_wait(&p->work, &p->lock);
            continue;
        }
        pthread_mutex_unlock(&p->lock);
        struct err e = ERR_INIT;
        int rc = compress_slot(s, &c, &e);
        pthread_mutex_lock(&p->lock);
        if (rc)
            p->fatal = e;
        s->state = SLOT_DONE;
        if (s->part.sequence == p->part.sequence)
            p->part_estimate -= s->raw_bytes - s->stored_bytes;
        assembler_run(p);
    }
    pthread_cond_broadcast(&p->progress);
    pthread_mutex_unlock(&p->lock);
    ZSTD_freeCCtx(c.zstd);
    columns_free(c.columns);
    return NULL;
}

/* ---- waiting ---- */

/* Ends the pipeline's patience with a worker that keeps idle others waiting. */
static void blame_slow(struct pipeline *p, int64_t slice_us)
{
    bool other_idle = false;
    for (size_t i = 0; i < p->o.worker_count; i++)
        other_idle |= !p->senders[i].detached && !p->senders[i].next;
    for (size_t i = 0; other_idle && i < p->o.worker_count; i++) {
        struct sender *s = &p->senders[i];
        if (s->detached || !s->next)
            continue;
        s->blame_us += slice_us;
        if (s->blame_us <= BLAME_LIMIT_US || s->blame_us <= (clock_mono_us() - p->start_us) / 4)
            continue;
        struct err e = ERR_INIT;
        err_set(&e, ERR_TIMEOUT, p->o.workers[i].store->name,
                "%s is too slow: it made the other worker wait for more than 10 s; it is caught up "
                "afterwards",
                p->o.workers[i].store->name);
        if (p->o.workers[i].cancel_fd)
            eventfd_write(*p->o.workers[i].cancel_fd, 1);
        sender_detach(s, &e);
        assembler_run(p); /* there is room now, and its thread may be stuck in the store */
    }
}

static bool hold_is_over(const struct pipeline *p)
{
    if (!p->holding)
        return false;
    int64_t worked_us = clock_mono_us() - p->hold_start_us - p->hold_waited_us;
    return p->hold_waited_us >= MAX(worked_us, p->hold_grace_us);
}

static int trouble(struct pipeline *p, struct err *e)
{
    if (cancelled(p))
        return err_set(e, ERR_CANCELLED, NULL,
                       "stopped; the next run uses the parts that are whole");
    if (p->fatal.code) {
        *e = p->fatal;
        return e->code;
    }
    if (pipeline_attached(p) == 0) {
        *e = p->senders[p->o.worker_count - 1].result.err;
        return e->code;
    }
    return 0;
}

int pipeline_state(struct pipeline *p, struct err *e)
{
    pthread_mutex_lock(&p->lock);
    int rc = trouble(p, e);
    pthread_mutex_unlock(&p->lock);
    return rc;
}

/* Waits one slice for progress, with the lock held, and books the time. */
static void wait_slice(struct pipeline *p)
{
    int64_t before_us = clock_mono_us();
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += WAIT_SLICE_US * 1000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&p->progress, &p->lock, &until);
    int64_t waited_us = clock_mono_us() - before_us;
    p->hold_waited_us += waited_us;
    blame_slow(p, waited_us);
}

/* ---- adding ---- */

static void begin_part(struct pipeline *p)
{
    p->part_open = true;
    p->part = (struct part_header){
        .epoch = p->o.epoch, .sequence = p->next_sequence++, .time_us = clock_now_us()};
    memcpy(p->part.repository, p->o.repository, REPO_ID_SIZE);
    memcpy(p->part.source, p->o.source, sizeof p->part.source);
    p->part_items = p->part_chunks = 0;
    p->part_estimate = PART_HEADER_SIZE;
}

/* Hands the slot in the making to the compressors; with the lock held. */
static void submit(struct pipeline *p, bool ends_part)
{
    struct slot *s = &p->slots[p->fill];
    p->part_estimate += s->raw_bytes;
    p->part_items += s->count;
    s->ends_part = ends_part || p->part_estimate + PART_BLOCK_MAX > PART_TARGET_BYTES ||
                   p->part_items >= PART_ITEMS_TARGET;
    if (s->ends_part)
        p->part_open = false;
    s->state = SLOT_READY;
    p->fill = (p->fill + 1) % p->slot_count;
    pthread_cond_signal(&p->work);
}

/* True when nothing more of this kind fits into the slot in the making. */
static bool slot_is_full(const struct slot *s, enum block_kind kind, uint64_t image, size_t n)
{
    return s->state == SLOT_FILLING &&
           (s->raw_bytes + n > PART_BLOCK_MAX || s->kind != kind ||
            (kind == BLOCK_PAGES && s->image != image) || s->count >= PART_BLOCK_MAX / 64);
}

static int level_for(const struct pipeline *p)
{
    for (size_t i = 0; p->high_effort && i < ARRAY_LEN(efforts); i++)
        if (p->changed_bytes < efforts[i].up_to_bytes)
            return efforts[i].level;
    return LEVEL_FULL;
}

static void open_slot(struct pipeline *p, struct slot *s, enum block_kind kind)
{
    if (!p->part_open)
        begin_part(p);
    s->state = SLOT_FILLING;
    s->part = p->part;
    s->kind = (uint8_t)kind;
    s->count = s->raw_bytes = 0;
    s->last_page = 0;
    s->level = level_for(p);
    buf_reset(&s->numbers);
    buf_reset(&s->fingerprints);
}

/* The slot that n more bytes go into; waits for one. */
static int slot_for(struct pipeline *p, enum block_kind kind, uint64_t image, size_t n,
                    struct slot **ret, struct err *e)
{
    pthread_mutex_lock(&p->lock);
    struct slot *s = &p->slots[p->fill];
    int rc = trouble(p, e);
    /* In a hold that is over, the full slot must not be handed on: it would wait all the same. */
    if (rc == 0 && slot_is_full(s, kind, image, n)) {
        submit(p, false);
        s = &p->slots[p->fill];
    }
    while (rc == 0 && s->state != SLOT_FREE && s->state != SLOT_FILLING) {
        if (hold_is_over(p))
            rc = err_set(e, ERR_BUSY, NULL, "the workers are slower than the source");
        else
            wait_slice(p);
        if (rc == 0)
            rc = trouble(p, e);
    }
    if (rc == 0 && s->state == SLOT_FREE)
        open_slot(p, s, kind);
    pthread_mutex_unlock(&p->lock);
    *ret = s;
    return rc;
}

static int append(struct pipeline *p, struct slot *s, const void *data, size_t n, struct err *e)
{
    if (s->numbers.bad || s->fingerprints.bad)
        return err_nomem(e);
    memcpy(s->raw + s->raw_bytes, data, n);
    s->raw_bytes += (uint32_t)n;
    s->count++;
    p->changed_bytes += n;
    return 0;
}

int pipeline_page(struct pipeline *p, uint64_t image, uint8_t page_shift, uint64_t page,
                  uint64_t fingerprint, const void *data, struct err *e)
{
    struct slot *s;
    size_t n = (size_t)1 << page_shift;
    int rc = slot_for(p, BLOCK_PAGES, image, n, &s, e);
    if (rc)
        return rc;
    s->image = image;
    s->page_shift = page_shift;
    if (s->count == 0)
        buf_put_varint(&s->numbers, page);
    else
        buf_put_zigzag(&s->numbers, (int64_t)(page - s->last_page));
    s->last_page = page;
    buf_put_u64(&s->fingerprints, fingerprint);
    return append(p, s, data, n, e);
}

int pipeline_chunk(struct pipeline *p, const uint8_t id[static CHUNK_ID_SIZE], const void *data,
                   size_t n, struct part_run *ret_at, struct err *e)
{
    struct slot *s;
    int rc = slot_for(p, BLOCK_CHUNKS, 0, n, &s, e);
    if (rc)
        return rc;
    buf_put(&s->numbers, id, CHUNK_ID_SIZE);
    buf_put_varint(&s->numbers, n);
    *ret_at = (struct part_run){.epoch = s->part.epoch,
                                .sequence = s->part.sequence,
                                .first_chunk = p->part_chunks++,
                                .count = 1};
    return append(p, s, data, n, e);
}

void pipeline_hold(struct pipeline *p, int64_t grace_us)
{
    p->holding = true;
    p->hold_start_us = clock_mono_us();
    p->hold_waited_us = 0;
    p->hold_grace_us = grace_us;
}

void pipeline_let_go(struct pipeline *p)
{
    p->holding = false;
}

void pipeline_effort(struct pipeline *p, bool high)
{
    p->high_effort = high;
}

uint64_t pipeline_changed_bytes(const struct pipeline *p)
{
    return p->changed_bytes;
}

static int wait_idle(struct pipeline *p, struct err *e)
{
    int rc;
    while ((rc = trouble(p, e)) == 0 && !pipeline_idle(p))
        wait_slice(p);
    return rc;
}

/* What is between the caller and the slowest worker, as it will travel. */
static uint64_t backlog_bytes(const struct pipeline *p)
{
    uint64_t n = p->queued_bytes;
    for (size_t i = 0; i < p->slot_count; i++) {
        const struct slot *s = &p->slots[i];
        if (s->state == SLOT_DONE)
            n += s->stored_bytes;
        else if (s->state != SLOT_FREE && s->state != SLOT_FILLING)
            n += s->raw_bytes;
    }
    return n;
}

static bool backlog_is_short(const struct pipeline *p)
{
    uint64_t elapsed_us = (uint64_t)MAX(clock_mono_us() - p->start_us, INT64_C(1));
    return backlog_bytes(p) <= p->taken_bytes * DRAINED_US / elapsed_us;
}

int pipeline_drain(struct pipeline *p, struct err *e)
{
    pthread_mutex_lock(&p->lock);
    int rc = trouble(p, e);
    if (rc == 0 && p->slots[p->fill].state == SLOT_FILLING)
        submit(p, true);
    while (rc == 0 && !pipeline_idle(p) && !backlog_is_short(p)) {
        wait_slice(p);
        rc = trouble(p, e);
    }
    pthread_mutex_unlock(&p->lock);
    return rc;
}

/* ---- beginning and end ---- */

static void free_messages(struct pipeline *p)
{
    for (size_t i = 0; i < p->o.worker_count; i++) {
        struct err e = ERR_INIT;
        err_set(&e, ERR_CANCELLED, NULL, "stopped");
        struct err before = p->senders[i].result.err;
        sender_detach(&p->senders[i], &e);
        p->senders[i].result.err = before;
    }
}

/* A store that may hang is not waited for: what its thread uses then stays where it is. */
static void join_sender(struct sender *s)
{
    struct store *store = s->p->o.workers[s->index].store;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += LOST_AFTER_S;
    if (!store->may_hang || pthread_clockjoin_np(s->thread, NULL, CLOCK_MONOTONIC, &until) == 0) {
        if (!store->may_hang)
            pthread_join(s->thread, NULL);
        return;
    }
    pthread_detach(s->thread);
    pthread_mutex_lock(&s->p->lock);
    struct err e = ERR_INIT;
    err_set(&e, ERR_TIMEOUT, store->name, "%s: its file system hangs", store->name);
    sender_detach(s, &e);
    s->result.lost = s->p->has_lost = true;
    pthread_mutex_unlock(&s->p->lock);
}

/* Ends the threads: at once, or the senders after what is queued. */
static void stop_threads(struct pipeline *p, bool at_once)
{
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    p->stopping = at_once;
    pthread_cond_broadcast(&p->work);
    pthread_cond_broadcast(&p->messages);
    pthread_mutex_unlock(&p->lock);
    for (size_t i = 0; i < p->o.worker_count; i++)
        if (p->senders[i].started)
            join_sender(&p->senders[i]);
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->threads_started; i++)
        pthread_join(p->threads[i], NULL);
}

static void destroy(struct pipeline *p)
{
    if (p->has_lost)
        return;
    free_messages(p);
    for (size_t i = 0; i < p->slot_count; i++) {
        free(p->slots[i].raw);
        free(p->slots[i].stored);
        buf_free(&p->slots[i].numbers);
        buf_free(&p->slots[i].fingerprints);
    }
    buf_free(&p->out_meta);
    free(p->parts);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->progress);
    pthread_cond_destroy(&p->messages);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static int start_threads(struct pipeline *p, struct err *e)
{
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < p->thread_count; i++, p->threads_started++)
        if ((rc = pthread_create(&p->threads[i], NULL, compress_main, p)))
            break;
    for (size_t i = 0; rc == 0 && i < p->o.worker_count; i++) {
        rc = pthread_create(&p->senders[i].thread, NULL, sender_main, &p->senders[i]);
        p->senders[i].started = rc == 0;
    }
    return rc ? err_sys(e, rc, NULL, "cannot start a thread") : 0;
}

static int make_slots(struct pipeline *p, struct err *e)
{
    for (size_t i = 0; i < p->slot_count; i++) {
        p->slots[i].raw = malloc(PART_BLOCK_MAX);
        if (!p->slots[i].raw)
            return err_nomem(e);
    }
    return 0;
}

int pipeline_start(const struct pipeline_options *o, struct pipeline **ret, struct err *e)
{
    struct pipeline *p = mem_alloc(1, sizeof *p);
    if (!p)
        return err_nomem(e);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    pthread_condattr_t monotonic;
    p->o = *o;
    p->o.queue_bytes = o->queue_bytes ? o->queue_bytes : QUEUE_BYTES;
    p->thread_count = o->threads ? o->threads : (unsigned)MAX(cores, 1L);
    p->thread_count = MIN(p->thread_count, (unsigned)THREADS_MAX);
    p->slot_count = 2 * (size_t)p->thread_count + 1;
    p->next_sequence = o->next_sequence;
    for (size_t i = 0; i < o->worker_count; i++) {
        p->senders[i].p = p;
        p->senders[i].index = i;
    }
    p->high_effort = true;
    p->start_us = clock_mono_us();
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->progress, &monotonic);
    pthread_cond_init(&p->messages, NULL);
    pthread_condattr_destroy(&monotonic);
    int rc = make_slots(p, e);
    if (rc == 0)
        rc = start_threads(p, e);
    if (rc) {
        pipeline_abort(p, NULL);
        return rc;
    }
    *ret = p;
    return 0;
}

static void collect(struct pipeline *p, struct pipeline_result *ret)
{
    ret->next_sequence = p->next_sequence;
    ret->changed_bytes = p->changed_bytes;
    ret->stored_bytes = p->stored_bytes;
    for (size_t i = 0; i < p->o.worker_count; i++)
        ret->workers[i] = p->senders[i].result;
}

/* The snapshot's own list: the parts given and then those of this run. */
static int full_section(struct pipeline *p, const struct snapshot_section *given,
                        struct snapshot_section *ret, struct err *e)
{
    *ret = *given;
    ret->listed_count = given->listed_count + p->part_count;
    ret->listed = mem_alloc(ret->listed_count, sizeof *ret->listed);
    if (!ret->listed)
        return err_nomem(e);
    if (given->listed_count)
        memcpy(ret->listed, given->listed, given->listed_count * sizeof *ret->listed);
    if (p->part_count)
        memcpy(ret->listed + given->listed_count, p->parts, p->part_count * sizeof *ret->listed);
    return 0;
}

/* Compresses what is left and waits until all of it is with the assembler. */
static int flush(struct pipeline *p, struct err *e)
{
    int rc = trouble(p, e);
    if (rc == 0 && p->slots[p->fill].state == SLOT_FILLING)
        submit(p, false);
    return rc ? rc : wait_idle(p, e);
}

static int close_snapshot(struct pipeline *p, const struct snapshot_section *given, struct err *e)
{
    struct snapshot_section section;
    pthread_mutex_lock(&p->lock);
    int rc = flush(p, e);
    if (rc == 0)
        rc = full_section(p, given, &section, e);
    if (rc == 0) {
        if (!p->out_open) {
            begin_part(p);
            rc = assembler_begin_part(p, &p->part, e);
        }
        if (rc == 0)
            rc = assembler_close_part(p, &section, e);
        free(section.listed);
    }
    if (rc == 0)
        rc = wait_idle(p, e);
    pthread_mutex_unlock(&p->lock);
    return rc;
}

int pipeline_finish(struct pipeline *p, const struct snapshot_section *section,
                    struct pipeline_result *ret, struct err *e)
{
    *ret = (struct pipeline_result){0};
    pipeline_let_go(p);
    int rc = close_snapshot(p, section, e);
    if (rc) {
        pipeline_abort(p, ret);
        return rc;
    }
    stop_threads(p, false);
    collect(p, ret);
    ret->snapshot = p->parts[p->part_count - 1];
    ret->part_count = p->part_count;
    ret->parts = TAKE_PTR(p->parts);
    destroy(p);
    for (size_t i = 0; i < PIPELINE_WORKERS_MAX; i++)
        if (ret->workers[i].stored)
            return 0;
    return err_set(e, ERR_INTERNAL, NULL, "the snapshot was stored nowhere");
}

void pipeline_abort(struct pipeline *p, struct pipeline_result *ret)
{
    if (!p)
        return;
    stop_threads(p, true);
    if (ret)
        collect(p, ret);
    destroy(p);
}
