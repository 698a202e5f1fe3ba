/* Archives of pg_dump, as a worker could hand them back: what is read of them, whole and in pieces
 * of any length, is the same; and one schema taken out of a good one is a good one again. */
#include <stdlib.h>
#include <string.h>

#include "restore/dump_filter.h"
#include "snapshot/dump_summary.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static json_t *rows_of(const uint8_t *data, size_t size, size_t piece, int *ret_rc)
{
    struct err e = ERR_INIT;
    struct dump_summary *s = dump_summary_new();
    if (!s)
        abort();
    for (size_t at = 0; at < size; at += piece)
        dump_summary_feed(s, data + at, MIN(piece, size - at));
    *ret_rc = dump_summary_end(s, &e);
    json_t *rows = json_incref(dump_summary_rows(s));
    dump_summary_free(s);
    return rows;
}

static int keep(void *arg, const void *p, size_t n, struct err *e)
{
    (void)e;
    buf_put(arg, p, n);
    return 0;
}

static void extract(const uint8_t *data, size_t size)
{
    const char *const schemas[] = {"replicator", NULL};
    struct err e = ERR_INIT;
    OWN_BUF struct buf out = BUF_INIT;
    struct dump_filter *f = dump_filter_new(schemas, keep, &out);
    if (!f)
        abort();
    int rc = dump_filter_feed(f, data, size, &e);
    if (rc == 0)
        rc = dump_filter_end(f, &e);
    dump_filter_free(f);
    int again;
    json_auto_t *of_extract = rows_of(out.data, out.len, 4096, &again);
    if (rc || again || !of_extract)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int whole, pieces;
    json_auto_t *rows = rows_of(data, size, size ? size : 1, &whole);
    json_auto_t *same = rows_of(data, size, 1 + size % 977, &pieces);
    if (whole != pieces || !json_equal(rows, same))
        abort();
    if (whole == 0)
        extract(data, size);
    return 0;
}
