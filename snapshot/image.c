#include "snapshot/held_pages.h"
#include "snapshot/source.h"
#include "syncd/base/err.h"

#define SQLITE_LOCK_BYTE 0x40000000u /* file format documentation, 1.3: the lock-byte page */

int image_open(const struct source_run *run, const char *path, enum image_kind kind,
               uint8_t page_shift, struct image *ret, struct err *e)
{
    struct image m = {.run = run, .skip_page = UINT64_MAX};
    const uint8_t *seed = run->repository->seed;
    m.of.kind = (uint8_t)kind;
    m.of.page_shift = page_shift;
    m.of.id = digest_image_id(seed, path, m.of.kind, page_shift);
    m.page_seed = digest_page_seed(seed);
    if (kind == IMAGE_SQLITE)
        m.skip_page = SQLITE_LOCK_BYTE >> page_shift;
    int rc = run->open_table(run->arg, m.of.id, &m.table, &m.known, e);
    if (rc == 0)
        *ret = m;
    return rc;
}

void image_begin_pass(struct image *m)
{
    m->pass_sum = m->pass_pages = m->pass_shipped = 0;
}

static int ship(struct image *m, uint64_t page, uint64_t fingerprint, const void *data,
                struct err *e)
{
    if (m->aside)
        return held_pages_add(m->aside, page, fingerprint, data, e);
    return pipeline_page(m->run->pipeline, m->of.id, m->of.page_shift, page, fingerprint, data, e);
}

int image_page(struct image *m, uint64_t page, const void *data, struct err *e)
{
    if (page == m->skip_page)
        return 0;
    uint64_t known;
    size_t n = (size_t)1 << m->of.page_shift;
    struct page_hash hash = digest_page(m->page_seed, page, data, n);
    int rc = fingerprints_get(m->table, page, &known, e);
    if (rc == 0 && (known == 0 || known != hash.fingerprint)) {
        rc = ship(m, page, hash.fingerprint, data, e);
        if (rc == 0)
            rc = fingerprints_set(m->table, page, hash.fingerprint, e);
        m->pass_shipped += rc == 0;
    }
    if (rc)
        return rc;
    m->pass_sum += hash.summand;
    m->pass_pages++;
    if (m->run->read)
        m->run->read(m->run->arg, n);
    return 0;
}

void image_end_pass(struct image *m, uint64_t page_count)
{
    m->of.page_count = page_count;
    m->of.sum = m->pass_sum;
}
