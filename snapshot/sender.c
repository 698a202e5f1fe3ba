/* One thread a worker: takes the messages in their order and does them on the worker's store. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "snapshot/pipeline_internal.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

struct message *message_new(enum message_kind kind, size_t n)
{
    struct message *m = malloc(sizeof *m + n);
    if (!m)
        return NULL;
    *m = (struct message){.kind = kind, .n = n, .mtime_us = -1};
    return m;
}

void message_queue(struct pipeline *p, struct message *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < p->o.worker_count; i++) {
        struct sender *s = &p->senders[i];
        if (s->detached)
            continue;
        m->refs++;
        if (!s->next)
            s->next = m;
    }
    if (m->refs == 0) {
        free(m);
        return;
    }
    if (p->last)
        p->last->next = m;
    p->last = m;
    p->queued_bytes += m->n;
    pthread_cond_broadcast(&p->messages);
}

static void message_unref(struct pipeline *p, struct message *m)
{
    if (--m->refs > 0)
        return;
    p->queued_bytes -= m->n;
    p->taken_bytes += m->n;
    if (p->last == m)
        p->last = NULL;
    free(m);
}

/* One reference less to the sender's next message; goes on to the one after. */
static void message_done(struct sender *s)
{
    struct message *m = s->next;
    s->next = m->next;
    message_unref(s->p, m);
}

void sender_detach(struct sender *s, const struct err *why)
{
    if (s->detached)
        return;
    s->detached = true;
    s->result.err = *why;
    while (s->next)
        message_done(s);
    pthread_cond_broadcast(&s->p->progress);
    pthread_cond_broadcast(&s->p->messages);
}

static int begin_file(struct sender *s, struct err *e)
{
    uint8_t random[8];
    char hex[2 * sizeof random + 1];
    const struct pipeline_options *o = &s->p->o;
    int rc = o->may_begin ? o->may_begin(o->arg, s->index, e) : 0;
    if (rc)
        return rc;
    io_random(random, sizeof random);
    hex_encode(random, sizeof random, hex);
    snprintf(s->tmp, sizeof s->tmp, "tmp/%s-%s", s->p->o.source, hex);
    return store_create(s->p->o.workers[s->index].store, s->tmp, &s->file, e);
}

static int end_file(struct sender *s, const struct message *m, struct err *e)
{
    struct pipeline *p = s->p;
    char name[PART_NAME_SIZE], path[SOURCE_NAME_SIZE + PART_NAME_SIZE];
    bool as_snap = m->snapshot && p->o.workers[s->index].holds_listed;
    part_name_format(&m->ref, as_snap ? PART_SNAP : PART_PACK, name);
    snprintf(path, sizeof path, "%s/%s", p->o.source, name);
    int rc = p->o.may_publish ? p->o.may_publish(p->o.arg, s->index, e) : 0;
    if (rc)
        return rc;
    if (p->o.publishing)
        p->o.publishing(p->o.arg, &m->ref, m->snapshot);
    rc = store_publish(s->file, s->tmp, path, m->mtime_us, e);
    if (rc)
        return rc;
    rc = store_close_file(TAKE_PTR(s->file), e);
    if (rc)
        return rc;
    if (m->snapshot) {
        s->result.stored = true;
        s->result.as_snap = as_snap;
    }
    return 0;
}

/* Then nobody listens any more: it may come back from the store long after. */
static int check_wanted(struct sender *s, struct err *e)
{
    pthread_mutex_lock(&s->p->lock);
    bool wanted = !s->detached && !s->p->stopping;
    pthread_mutex_unlock(&s->p->lock);
    return wanted ? 0 : err_set(e, ERR_CANCELLED, NULL, "stopped");
}

static int do_message(struct sender *s, const struct message *m, struct err *e)
{
    int rc = m->kind == MESSAGE_BEGIN ? begin_file(s, e) : 0;
    if (rc == 0 && m->n)
        rc = store_write(s->file, m->data, m->n, e);
    if (rc == 0)
        rc = check_wanted(s, e);
    if (rc == 0 && m->n) {
        s->result.sent_bytes += m->n;
        if (s->p->o.sent)
            s->p->o.sent(s->p->o.arg, s->index, m->n);
    }
    if (rc == 0 && m->kind == MESSAGE_END)
        rc = end_file(s, m, e);
    return rc;
}

/* The unfinished upload goes; when that fails too it is left for prune. */
static void discard_file(struct sender *s)
{
    if (!s->file)
        return;
    store_close_file(TAKE_PTR(s->file), NULL);
    int code = s->result.err.code;
    if (code != ERR_TIMEOUT && code != ERR_CONNECT)
        store_remove(s->p->o.workers[s->index].store, s->tmp, NULL);
}

void *sender_main(void *arg)
{
    struct sender *s = arg;
    struct pipeline *p = s->p;
    pthread_mutex_lock(&p->lock);
    while (!s->detached && !p->stopping) {
        struct message *m = s->next;
        if (!m && p->closing)
            break;
        if (!m) {
            pthread_cond_wait(&p->messages, &p->lock);
            continue;
        }
        /* A detaching thread drops this sender's reference, so take one for the time of work. */
        m->refs++;
        pthread_mutex_unlock(&p->lock);
        struct err e = ERR_INIT;
        int rc = do_message(s, m, &e);
        pthread_mutex_lock(&p->lock);
        message_unref(p, m);
        if (rc)
            sender_detach(s, &e);
        if (!s->detached)
            message_done(s);
        assembler_run(p);
    }
    pthread_mutex_unlock(&p->lock);
    discard_file(s);
    return NULL;
}

size_t pipeline_attached(const struct pipeline *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->o.worker_count; i++)
        n += !p->senders[i].detached;
    return n;
}

bool pipeline_idle(const struct pipeline *p)
{
    for (size_t i = 0; i < p->slot_count; i++)
        if (p->slots[i].state != SLOT_FREE && p->slots[i].state != SLOT_FILLING)
            return false;
    for (size_t i = 0; i < p->o.worker_count; i++)
        if (!p->senders[i].detached && p->senders[i].next)
            return false;
    return true;
}
