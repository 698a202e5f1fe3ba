/* Reading bolt (bbolt) database files: their metas, a full check of the tree, and a look inside.
 *
 * The file is reached through a read function of the caller, so that it may be a live file, a
 * restored one or a snapshot on a worker. Nothing found in it is trusted: every pointer, length,
 * count and depth is checked before use, no page is walked twice, and memory is bounded by 1 MiB of
 * cached pages, two keys, and two bits per page while walking.
 *
 * On a live file everything read between two calls of bolt_read_meta() is a real state of the
 * database if both give the same meta, and may be any mixture if they do not, including one that
 * looks damaged: so ask again before believing an ERR_DAMAGED. (bbolt never writes to what the
 * newest meta reaches. One commit later it may: the pages freed by the first are reused by the
 * second, whose meta is written last.) No lock is ever taken.
 *
 * Functions return 0 or a code of err.h. ERR_DAMAGED: the file contradicts itself. What the read
 * function returns is passed on. A reader serves one thread at a time. */
#ifndef SYNCD_SNAPSHOT_BOLT_FILE_H
#define SYNCD_SNAPSHOT_BOLT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define BOLT_PAGE_SIZE_MIN 1024u
#define BOLT_PAGE_SIZE_MAX 65536u
#define BOLT_META_BYTES 64u
#define BOLT_KEY_MAX 32768u                         /* bytes in a key: bbolt's own limit */
#define BOLT_DEPTH_MAX 1024u                        /* pages and buckets one inside the other */
#define BOLT_SNIFF_BYTES (BOLT_PAGE_SIZE_MAX + 80u) /* enough for every page size */

/* True when the first n bytes of a file are those of a bolt database, which needs no checksum, so
 * that a meta just being written does not hide it: meta 0 decides from 24 bytes on; meta 1, sought
 * at each page size, from BOLT_SNIFF_BYTES on. Files of bolt before version 2 (2014) are not
 * recognised. */
bool bolt_sniff(const void *head, size_t n);

struct bolt_input {
    int (*read)(void *arg, uint64_t offset, void *p, size_t n, struct err *e); /* n bytes or fail */
    void *arg;
    uint64_t size_bytes;
    const char *name; /* for messages; must outlive the reader */
};

struct bolt_reader;

/* Finds the page size (from meta 0, else from a meta 1 at one of the page sizes) and makes a
 * reader. ERR_DAMAGED: no meta passes its checksum; ERR_UNSUPPORTED: a page size that is no power
 * of two from 1 to 64 KiB. */
int bolt_open(const struct bolt_input *input, struct bolt_reader **ret, struct err *e);
void bolt_close(struct bolt_reader *r); /* NULL is fine */
void bolt_closep(struct bolt_reader **r);
#define OWN_BOLT __attribute__((cleanup(bolt_closep)))

uint32_t bolt_page_size(const struct bolt_reader *r);

#define BOLT_NO_FREELIST UINT64_MAX

struct bolt_meta {
    uint8_t raw[BOLT_META_BYTES]; /* as stored: two metas are the same when these are */
    uint32_t page_size;
    uint64_t root_page, root_sequence;
    uint64_t freelist_page; /* BOLT_NO_FREELIST: the owner does not store it */
    uint64_t high_water;    /* no page from this number on is in use */
    uint64_t txid;
};

/* The newest meta that passes its checksum, read afresh; forgets all cached pages. */
int bolt_read_meta(struct bolt_reader *r, struct bolt_meta *ret, struct err *e);
bool bolt_meta_same(const struct bolt_meta *a, const struct bolt_meta *b);

/* Makes meta->raw, with its checksum, from the other fields: of a database that is written anew. */
void bolt_make_meta(struct bolt_meta *meta);

/* Fills page `slot` (0 or 1; meta's page_size bytes) with the meta. With the same meta in both
 * pages, as this library's copies have it, bbolt uses page 0 and writes its next commit over the
 * page of that commit's parity, as it always does, so that one whole meta is there at any time. */
void bolt_encode_meta(const struct bolt_meta *meta, unsigned slot, uint8_t *ret_page);

/* How many pages a copy of the state `meta` has: those below the high-water mark that the file
 * really holds (its last ones may be free and never written). bbolt's own copies end there too. */
uint64_t bolt_image_pages(const struct bolt_reader *r, const struct bolt_meta *meta);

/* One bit per page. */
struct bolt_map {
    uint8_t *bits;
    uint64_t pages;
};

void bolt_map_free(struct bolt_map *m);
bool bolt_map_has(const struct bolt_map *m, uint64_t page); /* false past the end */

/* The first page from `from` on that is in the map, and in *ret_pages how many follow it without a
 * gap (itself included, at most max_pages). Returns m->pages when there is none. */
uint64_t bolt_map_next(const struct bolt_map *m, uint64_t from, uint64_t max_pages,
                       uint64_t *ret_pages);

/* The numbers that `bbolt stats` prints, counted the same way. */
struct bolt_stats {
    uint64_t branch_pages, branch_overflow_pages, leaf_pages, leaf_overflow_pages;
    uint64_t keys, depth;
    uint64_t branch_alloc, branch_inuse, leaf_alloc, leaf_inuse; /* bytes */
    uint64_t buckets, inline_buckets, inline_inuse;
};

/* As bbolt adds them up over several buckets: the depth is the greatest, all else sums. */
void bolt_stats_add(struct bolt_stats *to, const struct bolt_stats *s);

enum bolt_page_kind { BOLT_PAGE_FREELIST, BOLT_PAGE_BRANCH, BOLT_PAGE_LEAF };

/* A page with its overflow pages. */
struct bolt_run {
    uint64_t page, pages;
    enum bolt_page_kind kind;
    uint16_t count; /* elements; for a freelist the field as stored */
};

struct bolt_walked {
    struct bolt_map reachable; /* the two metas included */
    struct bolt_map free;      /* what the freelist names; no pages without a stored one */
    uint64_t reachable_pages, free_pages;
    uint64_t lost_pages;     /* neither reachable nor free; 0 without a stored freelist */
    uint64_t lost_page;      /* the first of them; 0 when there is none */
    struct bolt_stats stats; /* of the root with all in it, itself not counted as a bucket */
};

void bolt_walked_free(struct bolt_walked *w);

/* Walks everything that the meta reaches and checks it as bbolt's Tx.Check does, and more:
 * page numbers, types and overflow; element bounds, one after the other; keys strictly ascending
 * through each bucket and between the separators above them; nested and inline buckets; each page
 * reached once; the freelist within bounds, without repetition and without a reachable page. All of
 * these are ERR_DAMAGED, except that pages which are lost (bbolt's "unreachable unfreed") cost only
 * space and are counted, not refused. Values are not read.
 *
 * `visit` (may be NULL) is called for each run when it is reached, freelist first, then in tree
 * order; a non-zero answer ends the walk with that. ret->reachable gives the ascending order. */
int bolt_walk(struct bolt_reader *r, const struct bolt_meta *meta,
              int (*visit)(void *arg, const struct bolt_run *run, struct err *e), void *arg,
              struct bolt_walked *ret, struct err *e);

/* A bucket, as plain data that stays valid as long as the meta it came from. */
struct bolt_bucket {
    uint64_t root_page; /* 0: inline, and then: */
    uint64_t inline_at; /* offset of its page in the file */
    uint32_t inline_bytes;
    uint64_t sequence;
    uint64_t limit_pages; /* bolt_image_pages() */
};

/* The top level: its keys are the names of the top buckets. */
struct bolt_bucket bolt_root(const struct bolt_reader *r, const struct bolt_meta *meta);

struct bolt_item {
    const uint8_t *key; /* the cursor's, until it is used again; from bolt_find: the caller's */
    uint32_t key_bytes, value_bytes;
    uint64_t value_at; /* offset in the file; for bolt_value_read() */
    bool is_bucket;
};

/* Reads n bytes of the value from its byte `from` on; ERR_USAGE when it has fewer. */
int bolt_value_read(struct bolt_reader *r, const struct bolt_item *item, uint32_t from, void *p,
                    size_t n, struct err *e);

/* The bucket that the item names; ERR_USAGE when it is not one. `in` is the bucket of the item. */
int bolt_bucket_open(struct bolt_reader *r, const struct bolt_bucket *in,
                     const struct bolt_item *item, struct bolt_bucket *ret, struct err *e);

/* Looks a key up; ERR_NOT_FOUND. Reads only the pages on the way. */
int bolt_find(struct bolt_reader *r, const struct bolt_bucket *b, const void *key, size_t key_bytes,
              struct bolt_item *ret, struct err *e);

/* The stats of one bucket with all that is inside it, like Bucket.Stats; checks as bolt_walk. */
int bolt_bucket_stats(struct bolt_reader *r, const struct bolt_bucket *b, struct bolt_stats *ret,
                      struct err *e);

/* A cursor gives the items of one bucket in ascending order of their keys, which it checks, so that
 * it ends whatever the file says. It borrows the reader. */
struct bolt_cursor;
int bolt_cursor_open(struct bolt_reader *r, const struct bolt_bucket *b, struct bolt_cursor **ret,
                     struct err *e);
void bolt_cursor_close(struct bolt_cursor *c); /* NULL is fine */
void bolt_cursor_closep(struct bolt_cursor **c);
#define OWN_BOLT_CURSOR __attribute__((cleanup(bolt_cursor_closep)))

/* The next item will be the first whose key is not below this one. */
int bolt_cursor_seek(struct bolt_cursor *c, const void *key, size_t key_bytes, struct err *e);

/* The next item; ret->key is NULL at the end. */
int bolt_cursor_next(struct bolt_cursor *c, struct bolt_item *ret, struct err *e);

#endif
