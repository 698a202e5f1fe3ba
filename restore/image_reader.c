#include "restore/image_reader.h"

#include <inttypes.h>
#include <string.h>

#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define SQLITE_LOCK_BYTE 0x40000000u
#define NOWHERE UINT32_MAX

/* A block that holds pages which count. */
struct page_block {
    uint64_t offset;
    uint32_t part, stored_bytes, raw_bytes;
    uint8_t method;
    uint8_t digest[DIGEST_SIZE];
};

/* A page's place is one number: its block's in the table, times the pages that fit into the largest
 * block, plus its place among the block's pages. */
struct image_reader {
    struct image_reader_params o;
    struct entry_image image;
    unsigned place_bits;
    uint64_t skip_page; /* SQLite's lock page; UINT64_MAX: none */
    size_t parts_left;  /* the older ones, not read yet */
    uint32_t *places;
    size_t block_count, block_cap;
    struct page_block *blocks;
    struct err failed; /* a list that was not taken whole: nothing older may count in its place */
};

static int too_large(const struct image_reader *r, struct err *e)
{
    err_set(e, ERR_LIMIT, r->o.entry->path,
            "%s has %" PRIu64 " pages, which need more than the %zu MiB of memory set aside for "
            "looking inside",
            r->o.entry->path, r->image.page_count, r->o.map_limit_bytes >> 20);
    return err_hint(e, "Restore it with `syncd restore --path PATH --target DIR` and look there.");
}

int image_reader_open(const struct image_reader_params *p, struct image_reader **ret, struct err *e)
{
    OWN_IMAGE_READER struct image_reader *r = mem_alloc(1, sizeof *r);
    if (!r)
        return err_nomem(e);
    r->o = *p;
    r->image = p->entry->image;
    r->place_bits = 18u - r->image.page_shift; /* PART_BLOCK_MAX is 2^18 */
    r->parts_left = p->snapshot->part_count;
    r->skip_page = UINT64_MAX;
    if (r->image.kind == IMAGE_SQLITE)
        r->skip_page = SQLITE_LOCK_BYTE >> r->image.page_shift;
    if (r->image.page_count > p->map_limit_bytes / sizeof *r->places)
        return too_large(r, e);
    r->places = mem_alloc((size_t)r->image.page_count + 1, sizeof *r->places);
    if (!r->places)
        return err_nomem(e);
    memset(r->places, 0xff, (size_t)r->image.page_count * sizeof *r->places); /* NOWHERE */
    *ret = TAKE_PTR(r);
    return 0;
}

void image_reader_close(struct image_reader *r)
{
    if (!r)
        return;
    free(r->places);
    free(r->blocks);
    free(r);
}

void image_reader_closep(struct image_reader **r)
{
    image_reader_close(*r);
    *r = NULL;
}

uint64_t image_reader_size(const struct image_reader *r)
{
    return r->image.page_count << r->image.page_shift;
}

size_t image_reader_parts_read(const struct image_reader *r)
{
    return r->o.snapshot->part_count - r->parts_left;
}

/* ---- the lists ---- */

/* Takes the block's pages that no later block has; of one that it holds twice the later counts. */
static bool take_pages(struct image_reader *r, const struct part_block *b, uint32_t index)
{
    struct block_walk w = block_walk_begin(b);
    bool any = false;
    while (block_walk_next(&w)) {
        if (w.page >= r->image.page_count || w.page == r->skip_page)
            continue;
        uint32_t *place = &r->places[w.page];
        if (*place != NOWHERE && *place >> r->place_bits != index)
            continue;
        *place = index << r->place_bits | w.index;
        any = true;
    }
    return any;
}

static int take_block(struct image_reader *r, size_t part, const struct part_block *b,
                      struct err *e)
{
    size_t used = (size_t)r->image.page_count * sizeof *r->places;
    if (r->block_count >= NOWHERE >> r->place_bits ||
        (r->block_count + 1) * 2 * sizeof *r->blocks > r->o.map_limit_bytes - used)
        return too_large(r, e);
    if (!take_pages(r, b, (uint32_t)r->block_count))
        return 0;
    if (mem_grow(&r->blocks, &r->block_cap, r->block_count + 1, sizeof *r->blocks))
        return err_nomem(e);
    struct page_block *to = &r->blocks[r->block_count++];
    *to = (struct page_block){.offset = b->offset,
                              .part = (uint32_t)part,
                              .stored_bytes = b->stored_bytes,
                              .raw_bytes = b->raw_bytes,
                              .method = b->method};
    memcpy(to->digest, b->digest, DIGEST_SIZE);
    return 0;
}

/* Reads the list of the newest part that was not read yet. Its last block comes first: of a page
 * that a part holds twice the later counts. */
static int read_list(struct image_reader *r, struct err *e)
{
    const struct part_file *f;
    size_t part = r->parts_left - 1;
    int rc = pool_part(r->o.pool, &r->o.snapshot->parts[part], &f, e);
    if (rc)
        return rc;
    for (size_t i = f->meta->block_count; rc == 0 && i > 0; i--) {
        const struct part_block *b = &f->meta->blocks[i - 1];
        if (b->kind == BLOCK_PAGES && b->image == r->image.id &&
            b->page_shift == r->image.page_shift)
            rc = take_block(r, part, b, e);
    }
    if (rc == 0)
        r->parts_left = part;
    return rc;
}

static int find_page(struct image_reader *r, uint64_t page, uint32_t *ret, struct err *e)
{
    int rc = r->failed.code;
    while (rc == 0 && r->places[page] == NOWHERE && r->parts_left)
        rc = read_list(r, &r->failed);
    if (rc && e)
        *e = r->failed;
    *ret = r->places[page];
    if (rc == 0 && *ret == NOWHERE)
        rc = err_set(e, ERR_DAMAGED, r->o.entry->path,
                     "%s: no part that its snapshot lists holds page %" PRIu64, r->o.entry->path,
                     page);
    return rc;
}

/* ---- the pages ---- */

static int copy_from_page(struct image_reader *r, uint64_t page, uint32_t from, void *p, size_t n,
                          struct err *e)
{
    uint32_t place;
    const uint8_t *raw;
    if (page == r->skip_page) {
        memset(p, 0, n);
        return 0;
    }
    int rc = find_page(r, page, &place, e);
    if (rc)
        return rc;
    const struct page_block *b = &r->blocks[place >> r->place_bits];
    struct part_block block = {.kind = BLOCK_PAGES,
                               .method = b->method,
                               .page_shift = r->image.page_shift,
                               .stored_bytes = b->stored_bytes,
                               .raw_bytes = b->raw_bytes,
                               .offset = b->offset,
                               .digest = b->digest};
    rc = block_cache_get(r->o.blocks, &r->o.snapshot->parts[b->part], &block, &raw, e);
    if (rc)
        return rc;
    uint32_t index = place & ((1u << r->place_bits) - 1);
    memcpy(p, raw + ((size_t)index << r->image.page_shift) + from, n);
    return 0;
}

int image_reader_read(struct image_reader *r, uint64_t offset, void *p, size_t n, struct err *e)
{
    uint64_t size = image_reader_size(r);
    uint32_t page_size = 1u << r->image.page_shift;
    uint8_t *to = p;
    int rc = 0;
    if (offset > size || n > size - offset)
        return err_set(e, ERR_DAMAGED, r->o.entry->path, "%s ends at byte %" PRIu64,
                       r->o.entry->path, size);
    for (size_t now; rc == 0 && n; n -= now) {
        uint32_t from = (uint32_t)(offset & (page_size - 1));
        now = MIN(n, (size_t)(page_size - from));
        rc = copy_from_page(r, offset >> r->image.page_shift, from, to, now, e);
        offset += now;
        to += now;
    }
    return rc;
}
