/* Inside the bolt library: bytes of the file through the cache, pages and their elements with every
 * number checked, and the in-order steps that both the walk and the cursors are made of. */
#ifndef SYNCD_SNAPSHOT_BOLT_TREE_H
#define SYNCD_SNAPSHOT_BOLT_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "snapshot/bolt_file.h"

#define BOLT_PAGE_HEADER 16u
#define BOLT_ELEMENT 16u
#define BOLT_BUCKET_HEADER 16u

struct bolt_reader {
    struct bolt_input input;
    uint32_t page_size;
    uint64_t pages; /* whole ones in the file */
    size_t cache_slots;
    uint64_t *cache_tags; /* page + 1; 0: empty */
    uint8_t *cache;
};

/* Bytes anywhere in the file. */
int bolt_read(struct bolt_reader *r, uint64_t offset, void *p, size_t n, struct err *e);

/* ERR_DAMAGED about a page (0: none in particular). */
int bolt_damaged(const struct bolt_reader *r, uint64_t page, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

int bolt_map_alloc(struct bolt_map *m, uint64_t pages, struct err *e);
void bolt_map_set(struct bolt_map *m, uint64_t page);

/* A branch or leaf page with its overflow, or the page inside the value of an inline bucket. */
struct bolt_view {
    uint64_t page, pages; /* an inline one: the page number 0 */
    uint64_t at, bytes;   /* where it lies in the file, from its header on */
    uint16_t count;
    bool is_leaf;
};

int bolt_view_page(struct bolt_reader *r, uint64_t limit_pages, uint64_t page,
                   struct bolt_view *ret, struct err *e);
int bolt_view_bucket(struct bolt_reader *r, const struct bolt_bucket *b, struct bolt_view *ret,
                     struct err *e);

struct bolt_element {
    uint64_t key_at, value_at; /* offsets in the file */
    uint32_t key_bytes, value_bytes;
    uint64_t child; /* of a branch */
    bool is_bucket; /* of a leaf */
};

int bolt_view_element(struct bolt_reader *r, const struct bolt_view *v, uint32_t index,
                      struct bolt_element *ret, struct err *e);

/* A page that the steps are inside of. */
struct bolt_frame {
    struct bolt_view view;
    uint32_t next;                   /* element to be looked at next */
    uint64_t data_end;               /* where the data of the one before it ends */
    uint32_t root;                   /* index of the frame that is the root of this one's bucket */
    uint32_t own_depth, inner_depth; /* of a root: pages deep, itself and buckets inside it */
};

/* Steps through the leaf elements of a bucket, and of buckets inside it when these are pushed. The
 * keys must ascend: a page met twice has keys below the last one, so this also ends every loop. */
struct bolt_steps {
    struct bolt_reader *reader;
    uint64_t limit_pages;
    struct bolt_frame *frames;
    size_t depth, frames_cap;
    uint8_t *key, *last; /* as large as the keys met; `last` holds that of the element just given */
    size_t key_cap, last_cap;
    uint32_t last_bytes;
    enum { BOLT_LAST_NONE, BOLT_LAST_SEPARATOR, BOLT_LAST_KEY } last_is;
    /* Both may be NULL. A page is entered before its elements are looked at and left after. */
    int (*enter)(void *arg, const struct bolt_frame *f, struct err *e);
    void (*leave)(void *arg, const struct bolt_frame *f);
    void *arg;
};

void bolt_steps_init(struct bolt_steps *s, struct bolt_reader *r, uint64_t limit_pages);
void bolt_steps_free(struct bolt_steps *s);
int bolt_steps_push_bucket(struct bolt_steps *s, const struct bolt_bucket *b, struct err *e);
/* From the bucket that was pushed alone: the next element will be the first not below the key. */
int bolt_steps_seek(struct bolt_steps *s, const void *key, size_t key_bytes, struct err *e);
/* *ret_end instead of an element when all frames are done. */
int bolt_steps_next(struct bolt_steps *s, struct bolt_element *ret, bool *ret_end, struct err *e);

#endif
