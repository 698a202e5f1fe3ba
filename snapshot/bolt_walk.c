#include <stdlib.h>
#include <string.h>

#include "snapshot/bolt_tree.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define FREELIST_FLAG 0x10u
#define COUNT_ELSEWHERE 0xFFFFu /* then the first of the page numbers is their count */

struct walk {
    struct bolt_reader *reader;
    uint64_t limit_pages;
    struct bolt_walked *out;
    int (*visit)(void *arg, const struct bolt_run *run, struct err *e);
    void *arg;
};

void bolt_walked_free(struct bolt_walked *w)
{
    bolt_map_free(&w->reachable);
    bolt_map_free(&w->free);
}

void bolt_stats_add(struct bolt_stats *to, const struct bolt_stats *s)
{
    to->branch_pages += s->branch_pages;
    to->branch_overflow_pages += s->branch_overflow_pages;
    to->leaf_pages += s->leaf_pages;
    to->leaf_overflow_pages += s->leaf_overflow_pages;
    to->keys += s->keys;
    to->depth = MAX(to->depth, s->depth);
    to->branch_alloc += s->branch_alloc;
    to->branch_inuse += s->branch_inuse;
    to->leaf_alloc += s->leaf_alloc;
    to->leaf_inuse += s->leaf_inuse;
    to->buckets += s->buckets;
    to->inline_buckets += s->inline_buckets;
    to->inline_inuse += s->inline_inuse;
}

/* Each page can be reached once, which also bounds the walk. */
static int reach(struct walk *w, const struct bolt_run *run, struct err *e)
{
    for (uint64_t i = 0; i < run->pages; i++) {
        if (bolt_map_has(&w->out->reachable, run->page + i))
            return bolt_damaged(w->reader, run->page + i, e, "is referred to twice");
        bolt_map_set(&w->out->reachable, run->page + i);
    }
    w->out->reachable_pages += run->pages;
    return w->visit ? w->visit(w->arg, run, e) : 0;
}

static int on_enter(void *arg, const struct bolt_frame *f, struct err *e)
{
    struct walk *w = arg;
    if (f->view.page == 0)
        return 0;
    struct bolt_run run = {.page = f->view.page,
                           .pages = f->view.pages,
                           .kind = f->view.is_leaf ? BOLT_PAGE_LEAF : BOLT_PAGE_BRANCH,
                           .count = f->view.count};
    return reach(w, &run, e);
}

static void on_leave(void *arg, const struct bolt_frame *f)
{
    struct walk *w = arg;
    struct bolt_stats *s = &w->out->stats;
    uint64_t used = f->data_end - f->view.at;
    if (f->view.is_leaf)
        s->keys += f->view.count;
    if (f->view.page == 0) {
        s->inline_buckets++;
        s->inline_inuse += used;
    } else if (f->view.is_leaf) {
        s->leaf_pages++;
        s->leaf_overflow_pages += f->view.pages - 1;
        s->leaf_alloc += f->view.bytes;
        s->leaf_inuse += used;
    } else {
        s->branch_pages++;
        s->branch_overflow_pages += f->view.pages - 1;
        s->branch_alloc += f->view.bytes;
        s->branch_inuse += used;
    }
    if (f->own_depth) { /* the root of a bucket */
        s->buckets++;
        s->depth = f->own_depth + f->inner_depth; /* the outermost is left last */
    }
}

static int walk_bucket(struct walk *w, const struct bolt_bucket *b, struct err *e)
{
    struct bolt_steps s;
    bolt_steps_init(&s, w->reader, w->limit_pages);
    s.enter = on_enter;
    s.leave = on_leave;
    s.arg = w;
    int rc = bolt_steps_push_bucket(&s, b, e);
    while (rc == 0) {
        struct bolt_element x;
        bool end;
        rc = bolt_steps_next(&s, &x, &end, e);
        if (rc || end)
            break;
        if (!x.is_bucket)
            continue;
        const struct bolt_frame *f = &s.frames[s.depth - 1];
        struct bolt_item item = {
            .value_at = x.value_at, .value_bytes = x.value_bytes, .is_bucket = true};
        struct bolt_bucket in = {.root_page = f->view.page, .limit_pages = w->limit_pages};
        struct bolt_bucket inner;
        rc = bolt_bucket_open(w->reader, &in, &item, &inner, e);
        if (rc == 0)
            rc = bolt_steps_push_bucket(&s, &inner, e);
    }
    bolt_steps_free(&s);
    return rc;
}

/* Marks one free page; pages that the file never got to hold have no bit. */
static int mark_free(struct walk *w, const struct bolt_meta *meta, struct bolt_map *free_map,
                     uint64_t page, struct err *e)
{
    if (page < 2 || page >= meta->high_water)
        return bolt_damaged(w->reader, meta->freelist_page, e,
                            "is a freelist that names page %llu, but pages are 2 to %llu",
                            (unsigned long long)page, (unsigned long long)meta->high_water - 1);
    if (bolt_map_has(free_map, page))
        return bolt_damaged(w->reader, page, e, "is twice on the freelist");
    if (page < free_map->pages)
        bolt_map_set(free_map, page);
    w->out->free_pages++;
    return 0;
}

static int read_free_pages(struct walk *w, const struct bolt_meta *meta, uint64_t at,
                           uint64_t count, struct bolt_map *free_map, struct err *e)
{
    uint8_t ids[1024];
    while (count) {
        size_t n = MIN(count, sizeof ids / 8);
        int rc = bolt_read(w->reader, at, ids, n * 8, e);
        for (size_t i = 0; rc == 0 && i < n; i++)
            rc = mark_free(w, meta, free_map, le64_get(ids + i * 8), e);
        if (rc)
            return rc;
        at += n * 8, count -= n;
    }
    return 0;
}

static int walk_freelist(struct walk *w, const struct bolt_meta *meta, struct bolt_map *free_map,
                         struct err *e)
{
    struct bolt_reader *r = w->reader;
    uint64_t page = meta->freelist_page, at = page * r->page_size, room, count;
    uint8_t header[BOLT_PAGE_HEADER + 8];
    if (page < 2 || page >= w->limit_pages)
        return bolt_damaged(r, page, e, "is said to be the freelist, but pages are 2 to %llu",
                            (unsigned long long)w->limit_pages - 1);
    int rc = bolt_read(r, at, header, sizeof header, e);
    if (rc)
        return rc;
    struct bolt_run run = {.page = page,
                           .pages = (uint64_t)le32_get(header + 12) + 1,
                           .kind = BOLT_PAGE_FREELIST,
                           .count = le16_get(header + 10)};
    if (le64_get(header) != page || le16_get(header + 8) != FREELIST_FLAG)
        return bolt_damaged(r, page, e, "is not the freelist that the meta says it is");
    if (run.pages > w->limit_pages - page)
        return bolt_damaged(r, page, e, "overflows past the end of the database");
    room = (run.pages * r->page_size - BOLT_PAGE_HEADER) / 8;
    at += BOLT_PAGE_HEADER;
    count = run.count;
    if (count == COUNT_ELSEWHERE) {
        count = le64_get(header + BOLT_PAGE_HEADER);
        at += 8, room -= 1;
    }
    if (count > room)
        return bolt_damaged(r, page, e, "is a freelist too small for its %llu pages",
                            (unsigned long long)count);
    rc = reach(w, &run, e);
    return rc ? rc : read_free_pages(w, meta, at, count, free_map, e);
}

/* What is both reachable and free would be overwritten by the owner's next commit. */
static int compare_with_free(struct walk *w, const struct bolt_map *free_map, struct err *e)
{
    for (uint64_t page = 2; page < w->limit_pages; page++) {
        bool reachable = bolt_map_has(&w->out->reachable, page);
        bool is_free = bolt_map_has(free_map, page);
        if (reachable && is_free)
            return bolt_damaged(w->reader, page, e, "is in use and on the freelist");
        if (!reachable && !is_free && w->out->lost_pages++ == 0)
            w->out->lost_page = page;
    }
    return 0;
}

static int walk_all(struct walk *w, const struct bolt_meta *meta, struct err *e)
{
    struct bolt_map *free_map = &w->out->free;
    struct bolt_bucket root = bolt_root(w->reader, meta);
    bool has_freelist = meta->freelist_page != BOLT_NO_FREELIST;
    if (w->limit_pages < 3 || meta->root_page == 0)
        return bolt_damaged(w->reader, 0, e, "its meta has no root, or no page to hold it");
    int rc = bolt_map_alloc(&w->out->reachable, w->limit_pages, e);
    if (rc == 0 && has_freelist)
        rc = bolt_map_alloc(free_map, w->limit_pages, e);
    if (rc)
        return rc;
    bolt_map_set(&w->out->reachable, 0);
    bolt_map_set(&w->out->reachable, 1);
    w->out->reachable_pages = 2;
    if (has_freelist)
        rc = walk_freelist(w, meta, free_map, e);
    if (rc == 0)
        rc = walk_bucket(w, &root, e);
    if (rc == 0 && has_freelist)
        rc = compare_with_free(w, free_map, e);
    w->out->stats.buckets -= rc == 0; /* the root */
    return rc;
}

int bolt_walk(struct bolt_reader *r, const struct bolt_meta *meta,
              int (*visit)(void *arg, const struct bolt_run *run, struct err *e), void *arg,
              struct bolt_walked *ret, struct err *e)
{
    struct bolt_walked out = {0};
    struct walk w = {.reader = r,
                     .limit_pages = bolt_image_pages(r, meta),
                     .out = &out,
                     .visit = visit,
                     .arg = arg};
    int rc = walk_all(&w, meta, e);
    if (rc)
        bolt_walked_free(&out);
    else
        *ret = out;
    return rc;
}

int bolt_bucket_stats(struct bolt_reader *r, const struct bolt_bucket *b, struct bolt_stats *ret,
                      struct err *e)
{
    struct bolt_walked out = {0};
    struct walk w = {.reader = r, .limit_pages = b->limit_pages, .out = &out};
    int rc = bolt_map_alloc(&out.reachable, w.limit_pages, e);
    if (rc == 0)
        rc = walk_bucket(&w, b, e);
    if (rc == 0)
        *ret = out.stats;
    bolt_walked_free(&out);
    return rc;
}
