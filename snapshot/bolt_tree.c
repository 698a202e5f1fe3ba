#include "snapshot/bolt_tree.h"

#include <stdlib.h>
#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define BRANCH_FLAG 1u
#define LEAF_FLAG 2u
#define BUCKET_FLAG 1u

/* Fills type and count from a page header and holds the elements against the bytes there are. */
static int view_header(const struct bolt_reader *r, const uint8_t *header, struct bolt_view *v,
                       struct err *e)
{
    uint16_t flags = le16_get(header + 8);
    if (flags != BRANCH_FLAG && flags != LEAF_FLAG)
        return bolt_damaged(r, v->page, e, "is neither branch nor leaf (flags %u)", flags);
    v->is_leaf = flags == LEAF_FLAG;
    v->count = le16_get(header + 10);
    if (!v->is_leaf && v->count == 0)
        return bolt_damaged(r, v->page, e, "is a branch without children");
    if (BOLT_PAGE_HEADER + (uint64_t)v->count * BOLT_ELEMENT > v->bytes)
        return bolt_damaged(r, v->page, e, "is too small for its %u elements", v->count);
    return 0;
}

int bolt_view_page(struct bolt_reader *r, uint64_t limit_pages, uint64_t page,
                   struct bolt_view *ret, struct err *e)
{
    uint8_t header[BOLT_PAGE_HEADER];
    if (page < 2 || page >= limit_pages)
        return bolt_damaged(r, page, e, "is referred to, but pages in use are 2 to %llu",
                            (unsigned long long)limit_pages - 1);
    int rc = bolt_read(r, page * r->page_size, header, sizeof header, e);
    if (rc)
        return rc;
    if (le64_get(header) != page)
        return bolt_damaged(r, page, e, "says that it is page %llu",
                            (unsigned long long)le64_get(header));
    struct bolt_view v = {.page = page, .pages = (uint64_t)le32_get(header + 12) + 1};
    if (v.pages > limit_pages - page)
        return bolt_damaged(r, page, e, "overflows past the end of the database");
    v.at = page * r->page_size;
    v.bytes = v.pages * r->page_size;
    rc = view_header(r, header, &v, e);
    if (rc == 0)
        *ret = v;
    return rc;
}

int bolt_view_bucket(struct bolt_reader *r, const struct bolt_bucket *b, struct bolt_view *ret,
                     struct err *e)
{
    uint8_t header[BOLT_PAGE_HEADER];
    if (b->root_page)
        return bolt_view_page(r, b->limit_pages, b->root_page, ret, e);
    struct bolt_view v = {.at = b->inline_at, .bytes = b->inline_bytes};
    if (v.bytes < BOLT_PAGE_HEADER)
        return bolt_damaged(r, 0, e, "an inline bucket is cut short");
    int rc = bolt_read(r, v.at, header, sizeof header, e);
    if (rc == 0)
        rc = view_header(r, header, &v, e);
    if (rc)
        return rc;
    if (!v.is_leaf)
        return bolt_damaged(r, 0, e, "an inline bucket is not a leaf");
    *ret = v;
    return 0;
}

int bolt_view_element(struct bolt_reader *r, const struct bolt_view *v, uint32_t index,
                      struct bolt_element *ret, struct err *e)
{
    uint8_t raw[BOLT_ELEMENT];
    uint64_t at = v->at + BOLT_PAGE_HEADER + (uint64_t)index * BOLT_ELEMENT;
    uint64_t data = v->at + BOLT_PAGE_HEADER + (uint64_t)v->count * BOLT_ELEMENT;
    int rc = bolt_read(r, at, raw, sizeof raw, e);
    if (rc)
        return rc;
    struct bolt_element x = {0};
    if (v->is_leaf) {
        uint32_t flags = le32_get(raw);
        if (flags & ~BUCKET_FLAG)
            return bolt_damaged(r, v->page, e, "has unknown flags at element %u", index);
        x.is_bucket = flags & BUCKET_FLAG;
        x.key_at = at + le32_get(raw + 4);
        x.key_bytes = le32_get(raw + 8);
        x.value_bytes = le32_get(raw + 12);
    } else {
        x.key_at = at + le32_get(raw);
        x.key_bytes = le32_get(raw + 4);
        x.child = le64_get(raw + 8);
    }
    if (x.key_bytes == 0 || x.key_bytes > BOLT_KEY_MAX)
        return bolt_damaged(r, v->page, e, "has a key of %u bytes at element %u", x.key_bytes,
                            index);
    x.value_at = x.key_at + x.key_bytes;
    if (x.key_at < data || x.value_at + x.value_bytes > v->at + v->bytes)
        return bolt_damaged(r, v->page, e, "has element %u outside of itself", index);
    *ret = x;
    return 0;
}

void bolt_steps_init(struct bolt_steps *s, struct bolt_reader *r, uint64_t limit_pages)
{
    *s = (struct bolt_steps){.reader = r, .limit_pages = limit_pages};
}

void bolt_steps_free(struct bolt_steps *s)
{
    free(s->frames);
    free(s->key);
    free(s->last);
    *s = (struct bolt_steps){0};
}

static int steps_push(struct bolt_steps *s, const struct bolt_view *v, bool is_root, struct err *e)
{
    if (s->depth >= BOLT_DEPTH_MAX)
        return bolt_damaged(s->reader, v->page, e, "lies more than %u pages and buckets deep",
                            BOLT_DEPTH_MAX);
    if (mem_grow(&s->frames, &s->frames_cap, s->depth + 1, sizeof *s->frames))
        return err_nomem(e);
    struct bolt_frame *f = &s->frames[s->depth];
    *f = (struct bolt_frame){.view = *v, .root = (uint32_t)s->depth};
    f->data_end = v->at + BOLT_PAGE_HEADER + (uint64_t)v->count * BOLT_ELEMENT;
    if (!is_root)
        f->root = s->frames[s->depth - 1].root;
    struct bolt_frame *root = &s->frames[f->root];
    root->own_depth = MAX(root->own_depth, (uint32_t)s->depth - f->root + 1);
    s->depth++;
    return s->enter ? s->enter(s->arg, f, e) : 0;
}

int bolt_steps_push_bucket(struct bolt_steps *s, const struct bolt_bucket *b, struct err *e)
{
    struct bolt_view v;
    int rc = bolt_view_bucket(s->reader, b, &v, e);
    if (rc)
        return rc;
    s->last_is = BOLT_LAST_NONE;
    return steps_push(s, &v, true, e);
}

static int compare(const uint8_t *a, size_t an, const uint8_t *b, size_t bn)
{
    int c = memcmp(a, b, MIN(an, bn));
    return c ? c : (an > bn) - (an < bn);
}

static int load_key(struct bolt_steps *s, const struct bolt_element *x, struct err *e)
{
    if (mem_grow(&s->key, &s->key_cap, x->key_bytes, 1))
        return err_nomem(e);
    return bolt_read(s->reader, x->key_at, s->key, x->key_bytes, e);
}

/* Makes the key that was loaded the last one. */
static void keep_key(struct bolt_steps *s, const struct bolt_element *x, bool is_leaf)
{
    uint8_t *key = s->last;
    size_t cap = s->last_cap;
    s->last = s->key, s->last_cap = s->key_cap;
    s->key = key, s->key_cap = cap;
    s->last_bytes = x->key_bytes;
    s->last_is = is_leaf ? BOLT_LAST_KEY : BOLT_LAST_SEPARATOR;
}

/* Reads the element's key and holds it against the last one: above it, or, for the first in a page,
 * not below the separator that led here. */
static int check_order(struct bolt_steps *s, const struct bolt_view *v, uint32_t index,
                       const struct bolt_element *x, struct err *e)
{
    int rc = load_key(s, x, e);
    if (rc)
        return rc;
    if (s->last_is != BOLT_LAST_NONE) {
        int c = compare(s->key, x->key_bytes, s->last, s->last_bytes);
        bool may_equal = index == 0 && s->last_is == BOLT_LAST_SEPARATOR;
        if (c < 0 || (c == 0 && !may_equal))
            return bolt_damaged(s->reader, v->page, e, "has its keys out of order at element %u",
                                index);
    }
    keep_key(s, x, v->is_leaf);
    return 0;
}

/* Back in a leaf after a bucket inside it, whose keys have taken the place of the leaf's. */
static int steps_pop(struct bolt_steps *s, struct err *e)
{
    struct bolt_frame *f = &s->frames[--s->depth];
    bool was_root = f->root == s->depth;
    if (s->leave)
        s->leave(s->arg, f);
    if (s->depth == 0 || !was_root)
        return 0;
    struct bolt_frame *under = &s->frames[s->depth - 1], *root = &s->frames[under->root];
    struct bolt_element x;
    root->inner_depth = MAX(root->inner_depth, f->own_depth + f->inner_depth);
    int rc = bolt_view_element(s->reader, &under->view, under->next - 1, &x, e);
    if (rc == 0)
        rc = load_key(s, &x, e);
    if (rc == 0)
        keep_key(s, &x, true);
    return rc;
}

int bolt_steps_next(struct bolt_steps *s, struct bolt_element *ret, bool *ret_end, struct err *e)
{
    *ret_end = false;
    while (s->depth) {
        struct bolt_frame *f = &s->frames[s->depth - 1];
        struct bolt_element x;
        struct bolt_view child;
        int rc;
        if (f->next == f->view.count) {
            rc = steps_pop(s, e);
            if (rc)
                return rc;
            continue;
        }
        uint32_t index = f->next++;
        rc = bolt_view_element(s->reader, &f->view, index, &x, e);
        if (rc)
            return rc;
        /* bbolt writes them one behind the other; overlapping ones could make a small file cost
         * hours. */
        if (x.key_at < f->data_end)
            return bolt_damaged(s->reader, f->view.page, e, "has overlapping elements at %u",
                                index);
        f->data_end = x.value_at + x.value_bytes;
        rc = check_order(s, &f->view, index, &x, e);
        if (rc)
            return rc;
        if (f->view.is_leaf) {
            *ret = x;
            return 0;
        }
        rc = bolt_view_page(s->reader, s->limit_pages, x.child, &child, e);
        if (rc == 0)
            rc = steps_push(s, &child, false, e);
        if (rc)
            return rc;
    }
    *ret_end = true;
    return 0;
}

/* How many elements of the page have keys below the given one (or, with `or_equal`, not above). */
static int count_below(struct bolt_steps *s, const struct bolt_view *v, const void *key,
                       size_t key_bytes, bool or_equal, uint32_t *ret, struct err *e)
{
    uint32_t low = 0, high = v->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct bolt_element x;
        int rc = bolt_view_element(s->reader, v, middle, &x, e);
        if (rc == 0)
            rc = load_key(s, &x, e);
        if (rc)
            return rc;
        int c = compare(s->key, x.key_bytes, key, key_bytes);
        if (c < 0 || (c == 0 && or_equal))
            low = middle + 1;
        else
            high = middle;
    }
    *ret = low;
    return 0;
}

int bolt_steps_seek(struct bolt_steps *s, const void *key, size_t key_bytes, struct err *e)
{
    for (;;) {
        struct bolt_frame *f = &s->frames[s->depth - 1];
        struct bolt_view child;
        struct bolt_element x;
        uint32_t below;
        int rc = count_below(s, &f->view, key, key_bytes, !f->view.is_leaf, &below, e);
        if (rc)
            return rc;
        /* In a branch the last separator not above the key leads on; below all of them lies the
         * first child. */
        f->next = f->view.is_leaf || below ? below : 1;
        if (f->next) {
            rc = bolt_view_element(s->reader, &f->view, f->next - 1, &x, e);
            if (rc == 0)
                rc = load_key(s, &x, e);
            if (rc)
                return rc;
            keep_key(s, &x, f->view.is_leaf);
        }
        if (f->view.is_leaf)
            return 0;
        rc = bolt_view_page(s->reader, s->limit_pages, x.child, &child, e);
        if (rc == 0)
            rc = steps_push(s, &child, false, e);
        if (rc)
            return rc;
    }
}
