/* Which pages of a part are wanted, and which of those the base file has already. */
#include <string.h>

#include "restore/image_fetch_internal.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

/* Claims a page of the block in hand. A block can hold a page twice (two passes): the later counts.
 */
static int claim_page(struct fetch *f, struct fetch_part *p, struct wanted *w,
                      const struct block_walk *walk, bool may_be_twice)
{
    uint64_t page = walk->page;
    for (size_t i = 0; may_be_twice && i < w->claim_count; i++) {
        struct claim *c = &p->claims[w->first_claim + i];
        if (c->page == page) {
            c->raw_offset = walk->raw_offset;
            c->fingerprint = walk->fingerprint;
            return 0;
        }
    }
    if (page >= f->o->entry->image.page_count || page == f->skip_page ||
        fetch_has_bit(f->bits, page))
        return 0;
    if (mem_grow(&p->claims, &p->claim_cap, p->claim_count + 1, sizeof *p->claims))
        return ERR_NOMEM;
    fetch_set_bit(f->bits, page);
    p->claims[p->claim_count++] = (struct claim){page, walk->fingerprint, walk->raw_offset};
    w->claim_count++;
    return 0;
}

static int flush_copied(struct fetch *f, struct err *e)
{
    size_t n = f->copied_count;
    f->copied_count = 0;
    return n ? page_writer_put(&f->writer, f->copied_first, f->copied, n, e) : 0;
}

/* Neighbours are written in one call. */
static int copy_page(struct fetch *f, const struct claim *c, bool *ret_copied, struct err *e)
{
    size_t size = (size_t)1 << f->o->entry->image.page_shift, room = FETCH_JOB_BYTES / size;
    if (f->copied_count == room || f->copied_first + f->copied_count != c->page) {
        int rc = flush_copied(f, e);
        if (rc)
            return rc;
        f->copied_first = c->page;
    }
    uint8_t *page = f->copied + f->copied_count * size;
    if (io_pread_full(*f->o->base_fd, page, size, c->page * size) != (ssize_t)size)
        return 0;
    struct page_hash hash = digest_page(f->page_seed, c->page, page, size);
    if (hash.fingerprint != c->fingerprint)
        return 0;
    f->copied_count++;
    f->result->copied_pages++;
    fetch_count(f, hash.summand, 1);
    *ret_copied = true;
    return 0;
}

/* Takes out of the block's claims what the base file has. */
static int copy_claimed(struct fetch *f, struct fetch_part *p, struct wanted *w, struct err *e)
{
    size_t kept = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && f->copied && i < w->claim_count; i++) {
        struct claim c = p->claims[w->first_claim + i];
        bool copied = false;
        rc = copy_page(f, &c, &copied, e);
        if (!copied)
            p->claims[w->first_claim + kept++] = c;
    }
    if (f->copied) {
        w->claim_count = kept;
        p->claim_count = w->first_claim + kept;
    }
    return rc;
}

static int claim_block(struct fetch *f, struct fetch_part *p, const struct part_meta *m,
                       size_t index, struct err *e)
{
    struct wanted w = {.block = m->blocks[index], .index = index, .first_claim = p->claim_count};
    struct block_walk walk = block_walk_begin(&m->blocks[index]);
    uint64_t highest = 0;
    memcpy(w.digest, w.block.digest, DIGEST_SIZE);
    while (block_walk_next(&walk)) {
        if (claim_page(f, p, &w, &walk, walk.page <= highest))
            return err_nomem(e);
        highest = MAX(highest, walk.page);
    }
    int rc = copy_claimed(f, p, &w, e);
    if (rc || w.claim_count == 0)
        return rc;
    if (mem_grow(&p->wanted, &p->wanted_cap, p->wanted_count + 1, sizeof *p->wanted))
        return err_nomem(e);
    p->wanted[p->wanted_count++] = w;
    return 0;
}

/* From its last block to its first, because the later copy of a page counts; then in the order of
 * the file. */
int fetch_claim(struct fetch *f, struct fetch_part *p, const struct part_meta *m, struct err *e)
{
    int rc = 0;
    p->wanted_count = p->claim_count = 0;
    for (size_t i = m->block_count; rc == 0 && i > 0; i--) {
        const struct part_block *b = &m->blocks[i - 1];
        if (b->kind == BLOCK_PAGES && b->image == f->o->entry->image.id &&
            b->page_shift == f->o->entry->image.page_shift)
            rc = claim_block(f, p, m, i - 1, e);
    }
    if (rc == 0)
        rc = flush_copied(f, e);
    for (size_t i = 0; i < p->wanted_count / 2; i++) {
        struct wanted swap = p->wanted[i];
        p->wanted[i] = p->wanted[p->wanted_count - 1 - i];
        p->wanted[p->wanted_count - 1 - i] = swap;
    }
    return rc;
}
