#include "snapshot/content.h"

#include <string.h>

#include "snapshot/chunk_table.h"
#include "snapshot/entry.h"
#include "syncd/base/err.h"

static bool is_known(const struct content_writer *w, const uint8_t *id, struct part_run *ret)
{
    uint64_t most = w->run_bytes_max ? w->run_bytes_max : CONTENT_RUN_BYTES_MAX;
    return w->known && run_writer_bytes(&w->runs) < most && chunk_table_find(w->known, id, ret) &&
           (!w->anew || chunk_table_is_of_run(w->known, ret));
}

static int put_chunk(struct content_writer *w, const uint8_t *p, size_t n, struct err *e)
{
    uint8_t id[CHUNK_ID_SIZE];
    struct part_run at;
    digest_chunk_id(w->seed, p, n, id);
    int rc = 0;
    if (!is_known(w, id, &at)) {
        rc = pipeline_chunk(w->pipeline, id, p, n, &at, e);
        if (rc == 0 && w->known)
            chunk_table_move(w->known, id, &at);
        w->shipped += n;
    }
    return rc ? rc : run_add(&w->runs, &at, e);
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

static int put_entry(void *w, const void *p, size_t n, struct err *e)
{
    return content_write(w, p, n, e);
}

int content_write_entry(struct content_writer *w, const struct entry *n, struct err *e)
{
    return entry_write(n, put_entry, w, e);
}

int content_end(struct content_writer *w, struct run_list *ret, struct err *e)
{
    int rc = w->pending.len ? cut(w, 1, e) : 0;
    return rc ? rc : run_end(&w->runs, ret, e);
}

void content_free(struct content_writer *w)
{
    buf_free(&w->pending);
    run_writer_free(&w->runs);
}
