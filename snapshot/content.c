#include "snapshot/content.h"

#include <stdlib.h>
#include <string.h>

#include "syncd/base/err.h"
#include "syncd/base/mem.h"

int chunk_index_add(struct chunk_index *x, const uint8_t id[static CHUNK_ID_SIZE],
                    const struct part_run *at)
{
    if (mem_grow(&x->places, &x->cap, x->count + 1, sizeof *x->places))
        return ERR_NOMEM;
    memcpy(x->places[x->count].id, id, CHUNK_ID_SIZE);
    x->places[x->count++].at = *at;
    return 0;
}

static int compare_places(const void *a, const void *b)
{
    return memcmp(((const struct chunk_place *)a)->id, ((const struct chunk_place *)b)->id,
                  CHUNK_ID_SIZE);
}

void chunk_index_sort(struct chunk_index *x)
{
    if (x->count)
        qsort(x->places, x->count, sizeof *x->places, compare_places);
}

void chunk_index_free(struct chunk_index *x)
{
    free(x->places);
    *x = (struct chunk_index){0};
}

static const struct chunk_place *find(const struct chunk_index *x, const uint8_t *id)
{
    struct chunk_place key;
    if (!x || !x->count)
        return NULL;
    memcpy(key.id, id, CHUNK_ID_SIZE);
    return bsearch(&key, x->places, x->count, sizeof key, compare_places);
}

static int put_chunk(struct content_writer *w, const uint8_t *p, size_t n, struct err *e)
{
    uint8_t id[CHUNK_ID_SIZE];
    struct part_run at;
    digest_chunk_id(w->seed, p, n, id);
    const struct chunk_place *known = find(w->known, id);
    int rc = 0;
    if (known)
        at = known->at;
    else
        rc = pipeline_chunk(w->pipeline, id, p, n, &at, e);
    if (rc == 0 && part_runs_add(&w->runs, &w->run_count, &w->run_cap, &at))
        rc = err_nomem(e);
    return rc;
}

static int cut(struct content_writer *w, int last, struct err *e)
{
    size_t at = 0, n;
    int rc = 0;
    while (rc == 0 && at < w->pending.len &&
           (n = chunker_cut(&w->sizes, w->pending.data + at, w->pending.len - at, last)) > 0) {
        rc = put_chunk(w, w->pending.data + at, n, e);
        at += n;
    }
    memmove(w->pending.data, w->pending.data + at, w->pending.len - at);
    w->pending.len -= at;
    return rc;
}

int content_write(struct content_writer *w, const void *p, size_t n, struct err *e)
{
    buf_put(&w->pending, p, n);
    w->bytes += n;
    if (w->pending.bad)
        return err_nomem(e);
    return w->pending.len >= w->sizes.max ? cut(w, 0, e) : 0;
}

int content_end(struct content_writer *w, struct err *e)
{
    return w->pending.len ? cut(w, 1, e) : 0;
}

void content_free(struct content_writer *w)
{
    buf_free(&w->pending);
    free(w->runs);
    w->runs = NULL;
    w->run_count = w->run_cap = 0;
}
