#include "syncd/found.h"

#include <stdio.h>
#include <string.h>

#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/session.h"
#include "transport/store.h"

void found_free(struct found *f)
{
    free(f->sources);
    *f = (struct found){0};
}

const struct found_source *found_find(const struct found *f, const char *name)
{
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->sources[i].name, name) == 0)
            return &f->sources[i];
    return NULL;
}

/* FORMAT.md 1: what a source may be called. */
static bool is_source_name(const char *name)
{
    static const char first[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    size_t n = strlen(name);
    return n > 0 && n < SOURCE_NAME_SIZE && strchr(first, *name) &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == n &&
           strcmp(name, "tmp") != 0 && strcmp(name, "epoch") != 0;
}

static int add_name(void *arg, const char *name, const struct store_stat *st, struct err *e)
{
    struct found *f = arg;
    if (st->kind != STORE_DIR || !is_source_name(name) || found_find(f, name))
        return 0;
    if (f->count >= FOUND_SOURCES_MAX)
        return err_set(e, ERR_LIMIT, NULL, "the repository holds more than %d sources",
                       FOUND_SOURCES_MAX);
    if (mem_grow(&f->sources, &f->cap, f->count + 1, sizeof *f->sources))
        return err_nomem(e);
    struct found_source *one = &f->sources[f->count++];
    *one = (struct found_source){0};
    snprintf(one->name, sizeof one->name, "%s", name);
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct found_source *)a)->name, ((const struct found_source *)b)->name);
}

static void take_part(struct found_source *f, size_t worker, const struct listed_part *p)
{
    if (!f->has_part || part_order(&p->ref, &f->last) > 0)
        f->last = p->ref;
    f->has_part = true;
    if (p->mark != PART_SNAP)
        return;
    int order = f->has_snapshot ? part_order(&p->ref, &f->newest) : 1;
    if (order > 0) {
        f->newest = p->ref;
        f->known_us = 0;
        memset(f->on, 0, sizeof f->on);
    }
    if (order >= 0) {
        f->on[worker] = true;
        f->known_us = MAX(f->known_us, p->mtime_us);
    }
    f->has_snapshot = true;
}

static void take_listings(const struct session *s, struct found_source *f)
{
    for (size_t i = 0; i < s->worker_count; i++) {
        const struct listing *l = &s->workers[i].listing;
        for (size_t k = 0; s->workers[i].store && k < l->count; k++)
            if (l->parts[k].mark != PART_BAD && epoch_has(&s->ruler, f->name, &l->parts[k].ref))
                take_part(f, i, &l->parts[k]);
    }
}

int found_read(struct session *s, struct found *ret, struct err *e)
{
    OWN_FOUND struct found f = {0};
    int rc = 0;
    for (size_t i = 0; i < s->worker_count; i++) {
        struct session_worker *w = &s->workers[i];
        if (!w->store || (rc = store_list(w->store, "", add_name, &f, &w->err)) == 0)
            continue;
        if (rc == ERR_LIMIT || rc == ERR_NOMEM) {
            *e = w->err;
            return rc;
        }
        session_leave_out(w);
    }
    if (f.count)
        qsort(f.sources, f.count, sizeof *f.sources, compare_names);
    rc = 0;
    for (size_t i = 0; rc == 0 && i < f.count; i++) {
        rc = session_list(s, f.sources[i].name, e);
        if (rc == 0)
            take_listings(s, &f.sources[i]);
    }
    if (rc)
        return rc;
    *ret = f;
    f = (struct found){0};
    return 0;
}
