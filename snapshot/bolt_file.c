#include "snapshot/bolt_file.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/bolt_tree.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define MAGIC 0xED0CDAEDu
#define VERSION 2u
#define META_FLAG 4u
#define CACHE_BYTES (1u << 20)
#define META_TRIES 3 /* a meta read while it is written looks damaged */

/* Offsets in a meta. */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 4,
    AT_PAGE_SIZE = 8,
    AT_ROOT = 16,
    AT_SEQUENCE = 24,
    AT_FREELIST = 32,
    AT_HIGH_WATER = 40,
    AT_TXID = 48,
    AT_CHECKSUM = 56
};

int bolt_damaged(const struct bolt_reader *r, uint64_t page, struct err *e, const char *fmt, ...)
{
    char what[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    if (page)
        err_set(e, ERR_DAMAGED, r->input.name, "the bolt database is damaged: page %llu %s",
                (unsigned long long)page, what);
    else
        err_set(e, ERR_DAMAGED, r->input.name, "the bolt database is damaged: %s", what);
    return err_hint(e, "compare with what `bbolt check` says while its owner is stopped");
}

static bool is_page_size(uint64_t n)
{
    return n >= BOLT_PAGE_SIZE_MIN && n <= BOLT_PAGE_SIZE_MAX && (n & (n - 1)) == 0;
}

bool bolt_sniff(const void *head, size_t n)
{
    const uint8_t *p = head;
    if (n >= BOLT_PAGE_HEADER + 8 && le32_get(p + BOLT_PAGE_HEADER + AT_MAGIC) == MAGIC &&
        le32_get(p + BOLT_PAGE_HEADER + AT_VERSION) == VERSION)
        return true;
    for (uint32_t size = BOLT_PAGE_SIZE_MIN; size <= BOLT_PAGE_SIZE_MAX; size *= 2) {
        const uint8_t *meta = p + size + BOLT_PAGE_HEADER;
        if (n < size + BOLT_PAGE_HEADER + BOLT_META_BYTES)
            return false;
        if (le32_get(meta + AT_MAGIC) == MAGIC && le32_get(meta + AT_VERSION) == VERSION &&
            le32_get(meta + AT_PAGE_SIZE) == size)
            return true;
    }
    return false;
}

static uint64_t fnv64a(const uint8_t *p, size_t n)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

/* Whether it passes its checksum. (bbolt also takes a checksum of 0 for "none", but has never
 * written one.) */
static bool meta_decode(const uint8_t raw[BOLT_META_BYTES], struct bolt_meta *ret)
{
    if (le32_get(raw + AT_MAGIC) != MAGIC || le32_get(raw + AT_VERSION) != VERSION ||
        le64_get(raw + AT_CHECKSUM) != fnv64a(raw, AT_CHECKSUM))
        return false;
    memcpy(ret->raw, raw, BOLT_META_BYTES);
    ret->page_size = le32_get(raw + AT_PAGE_SIZE);
    ret->root_page = le64_get(raw + AT_ROOT);
    ret->root_sequence = le64_get(raw + AT_SEQUENCE);
    ret->freelist_page = le64_get(raw + AT_FREELIST);
    ret->high_water = le64_get(raw + AT_HIGH_WATER);
    ret->txid = le64_get(raw + AT_TXID);
    return true;
}

static int input_read(const struct bolt_input *in, uint64_t offset, void *p, size_t n,
                      struct err *e)
{
    return in->read(in->arg, offset, p, n, e);
}

/* *ret_valid is false, without an error, when there is no good meta at the offset. */
static int meta_read(const struct bolt_input *in, uint64_t page_offset, struct bolt_meta *ret,
                     bool *ret_valid, struct err *e)
{
    uint8_t raw[BOLT_META_BYTES];
    *ret_valid = false;
    if (in->size_bytes < page_offset + BOLT_PAGE_HEADER + BOLT_META_BYTES)
        return 0;
    int rc = input_read(in, page_offset + BOLT_PAGE_HEADER, raw, sizeof raw, e);
    if (rc == 0)
        *ret_valid = meta_decode(raw, ret);
    return rc;
}

static int find_page_size(struct bolt_reader *r, struct err *e)
{
    struct bolt_meta meta;
    bool valid;
    for (int i = 0; i < META_TRIES; i++) {
        int rc = meta_read(&r->input, 0, &meta, &valid, e);
        if (rc)
            return rc;
        if (valid) {
            r->page_size = meta.page_size;
            return 0;
        }
        for (uint32_t n = BOLT_PAGE_SIZE_MIN; n <= BOLT_PAGE_SIZE_MAX; n *= 2) {
            rc = meta_read(&r->input, n, &meta, &valid, e);
            if (rc)
                return rc;
            if (valid && meta.page_size == n) {
                r->page_size = n;
                return 0;
            }
        }
    }
    return bolt_damaged(r, 0, e, "neither of its metas passes its checksum");
}

int bolt_open(const struct bolt_input *input, struct bolt_reader **ret, struct err *e)
{
    OWN_BOLT struct bolt_reader *r = mem_alloc(1, sizeof *r);
    if (!r)
        return err_nomem(e);
    r->input = *input;
    int rc = find_page_size(r, e);
    if (rc)
        return rc;
    if (!is_page_size(r->page_size))
        return err_set(e, ERR_UNSUPPORTED, input->name,
                       "a bolt database with pages of %u bytes; known are powers of two from %u "
                       "to %u",
                       r->page_size, BOLT_PAGE_SIZE_MIN, BOLT_PAGE_SIZE_MAX);
    r->pages = input->size_bytes / r->page_size;
    r->cache_slots = MIN(CACHE_BYTES / r->page_size, r->pages + 1);
    r->cache_tags = mem_alloc(r->cache_slots, sizeof *r->cache_tags);
    r->cache = mem_alloc(r->cache_slots, r->page_size);
    if (!r->cache_tags || !r->cache)
        return err_nomem(e);
    *ret = TAKE_PTR(r);
    return 0;
}

void bolt_close(struct bolt_reader *r)
{
    if (!r)
        return;
    free(r->cache_tags);
    free(r->cache);
    free(r);
}

void bolt_closep(struct bolt_reader **r)
{
    bolt_close(*r);
    *r = NULL;
}

uint32_t bolt_page_size(const struct bolt_reader *r)
{
    return r->page_size;
}

/* The bytes of a page, valid until the next call. */
static int cached_page(struct bolt_reader *r, uint64_t page, const uint8_t **ret, struct err *e)
{
    size_t slot = page % r->cache_slots;
    uint8_t *p = r->cache + slot * r->page_size;
    if (r->cache_tags[slot] != page + 1) {
        r->cache_tags[slot] = 0;
        int rc = input_read(&r->input, page * r->page_size, p, r->page_size, e);
        if (rc)
            return rc;
        r->cache_tags[slot] = page + 1;
    }
    *ret = p;
    return 0;
}

int bolt_read(struct bolt_reader *r, uint64_t offset, void *p, size_t n, struct err *e)
{
    uint64_t end = r->pages * r->page_size;
    uint8_t *to = p;
    if (offset > end || n > end - offset)
        return bolt_damaged(r, 0, e, "something lies past its end");
    while (n) {
        uint64_t page = offset / r->page_size, in_page = offset % r->page_size;
        const uint8_t *from;
        /* Long values would only push the tree out of the cache. */
        if (in_page == 0 && n >= r->page_size) {
            size_t whole = n - n % r->page_size;
            int rc = input_read(&r->input, offset, to, whole, e);
            if (rc)
                return rc;
            to += whole, offset += whole, n -= whole;
            continue;
        }
        size_t part = MIN(n, (size_t)(r->page_size - in_page));
        int rc = cached_page(r, page, &from, e);
        if (rc)
            return rc;
        memcpy(to, from + in_page, part);
        to += part, offset += part, n -= part;
    }
    return 0;
}

int bolt_read_meta(struct bolt_reader *r, struct bolt_meta *ret, struct err *e)
{
    memset(r->cache_tags, 0, r->cache_slots * sizeof *r->cache_tags);
    for (int i = 0; i < META_TRIES; i++) {
        struct bolt_meta found[2], *newest = NULL;
        for (unsigned slot = 0; slot < 2; slot++) {
            struct bolt_meta *m = &found[slot];
            bool valid;
            int rc = meta_read(&r->input, (uint64_t)slot * r->page_size, m, &valid, e);
            if (rc)
                return rc;
            if (valid && m->page_size == r->page_size && (!newest || m->txid > newest->txid))
                newest = m;
        }
        if (newest) {
            *ret = *newest;
            return 0;
        }
    }
    return bolt_damaged(r, 0, e, "neither of its metas passes its checksum");
}

bool bolt_meta_same(const struct bolt_meta *a, const struct bolt_meta *b)
{
    return memcmp(a->raw, b->raw, BOLT_META_BYTES) == 0;
}

void bolt_make_meta(struct bolt_meta *meta)
{
    uint8_t *raw = meta->raw;
    memset(raw, 0, BOLT_META_BYTES);
    le32_put(raw + AT_MAGIC, MAGIC);
    le32_put(raw + AT_VERSION, VERSION);
    le32_put(raw + AT_PAGE_SIZE, meta->page_size);
    le64_put(raw + AT_ROOT, meta->root_page);
    le64_put(raw + AT_SEQUENCE, meta->root_sequence);
    le64_put(raw + AT_FREELIST, meta->freelist_page);
    le64_put(raw + AT_HIGH_WATER, meta->high_water);
    le64_put(raw + AT_TXID, meta->txid);
    le64_put(raw + AT_CHECKSUM, fnv64a(raw, AT_CHECKSUM));
}

void bolt_encode_meta(const struct bolt_meta *meta, unsigned slot, uint8_t *ret_page)
{
    memset(ret_page, 0, meta->page_size);
    le64_put(ret_page, slot);
    le32_put(ret_page + 8, META_FLAG); /* u16 flags, u16 count 0 */
    memcpy(ret_page + BOLT_PAGE_HEADER, meta->raw, BOLT_META_BYTES);
}

uint64_t bolt_image_pages(const struct bolt_reader *r, const struct bolt_meta *meta)
{
    return MIN(meta->high_water, r->pages);
}

void bolt_map_free(struct bolt_map *m)
{
    free(m->bits);
    *m = (struct bolt_map){0};
}

int bolt_map_alloc(struct bolt_map *m, uint64_t pages, struct err *e)
{
    m->bits = mem_alloc(pages / 8 + 1, 1);
    m->pages = m->bits ? pages : 0;
    return m->bits ? 0 : err_nomem(e);
}

bool bolt_map_has(const struct bolt_map *m, uint64_t page)
{
    return page < m->pages && (m->bits[page / 8] >> (page % 8) & 1);
}

void bolt_map_set(struct bolt_map *m, uint64_t page)
{
    m->bits[page / 8] |= (uint8_t)(1u << (page % 8));
}

uint64_t bolt_map_next(const struct bolt_map *m, uint64_t from, uint64_t max_pages,
                       uint64_t *ret_pages)
{
    uint64_t n = 0;
    while (from < m->pages && !bolt_map_has(m, from))
        from += m->bits[from / 8] || from % 8 ? 1 : 8;
    if (from >= m->pages)
        from = m->pages;
    while (n < max_pages && bolt_map_has(m, from + n))
        n++;
    *ret_pages = n;
    return from;
}
