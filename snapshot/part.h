/* A part: one immutable file of a repository. Its name, its header, its metadata - encoding and
 * checked decoding. The layout is FORMAT.md's, section numbers below are of that page. No I/O. */
#ifndef SYNCD_SNAPSHOT_PART_H
#define SYNCD_SNAPSHOT_PART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "snapshot/digest.h"
#include "syncd/base/buf.h"

struct err;

#define PART_VERSION 2 /* written; what is older is read, too */
#define PART_HEADER_SIZE 80
#define PART_TRAILER_SIZE 48
#define PART_BLOCK_MAX 262144u /* raw bytes of a block, and so the most that is stored */
#define PART_TARGET_BYTES (64u << 20)
#define PART_META_MAX (64u << 20)
#define PART_BLOCKS_MAX 1048576u
#define PART_ITEMS_MAX 4194304u
#define PART_LISTED_MAX 65536u
#define PART_NAME_SIZE 160
#define REPO_ID_SIZE 16
#define SOURCE_NAME_SIZE 33 /* with the NUL */

/* Identity of a part, as its name and the lists of parts give it. */
struct part_ref {
    uint32_t epoch;
    uint64_t sequence;
    int64_t time_s; /* UTC, whole seconds: a label, not an order */
    uint64_t size_bytes;
    uint8_t id[DIGEST_SIZE];
};

enum part_mark { PART_SNAP, PART_PACK, PART_DEL, PART_BAD };

/* By (epoch, sequence): <0, 0, >0. */
int part_order(const struct part_ref *a, const struct part_ref *b);
bool part_same(const struct part_ref *a,
               const struct part_ref *b); /* same stem: time label included */
/* The one with the key's epoch and sequence among `count` ascending ones, or NULL. */
const struct part_ref *part_find(const struct part_ref *refs, size_t count,
                                 const struct part_ref *key);

/* "<stem>.<mark>" (section 1). */
void part_name_format(const struct part_ref *ref, enum part_mark mark,
                      char ret[static PART_NAME_SIZE]);
/* False when it is not exactly such a name; size_bytes is left 0. */
bool part_name_parse(const char *name, struct part_ref *ret, enum part_mark *ret_mark);

struct part_header {
    uint32_t epoch;
    uint64_t sequence;
    int64_t time_us;
    uint8_t repository[REPO_ID_SIZE];
    char source[SOURCE_NAME_SIZE];
};

void part_header_encode(const struct part_header *h, uint8_t ret[static PART_HEADER_SIZE]);
/* ERR_DAMAGED (no magic), ERR_VERSION (newer); `name` is for messages. */
int part_header_decode(const uint8_t *p, const char *name, struct part_header *ret, struct err *e);

enum block_kind { BLOCK_PAGES = 1, BLOCK_CHUNKS = 2 };
/* BLOCK_COLUMNS: pages as columns.h has them, in a zstd frame; since version 2. */
enum block_method { BLOCK_PLAIN = 0, BLOCK_ZSTD = 1, BLOCK_COLUMNS = 2 };

struct part_block {
    uint8_t kind, method, page_shift;
    uint32_t stored_bytes, raw_bytes, count;
    uint32_t first_chunk; /* chunk index in the part of the first chunk, kind 2 */
    uint64_t offset;      /* in the file */
    uint64_t image;       /* kind 1 */
    const uint8_t *digest;
    const uint8_t *items; /* page numbers, or chunk ids and lengths; in the metadata */
    const uint8_t *fingerprints;
    size_t items_len;
};

/* Where content lies: runs of chunks, by the sequence of the part that holds them. */
struct part_run {
    uint32_t epoch;
    uint64_t sequence;
    uint32_t first_chunk, count;
};

struct snapshot_section {
    int64_t as_of_us;
    bool complete;
    size_t listed_count;
    struct part_ref *listed; /* ascending, without the part itself */
    uint64_t entry_bytes;
    size_t run_count;
    struct part_run *runs;
};

/* Decoded metadata. Owns everything that it points to. */
struct part_meta {
    struct part_header header;
    struct buf raw;
    size_t block_count;
    struct part_block *blocks;
    uint64_t page_total, chunk_total;
    bool has_snapshot;
    struct snapshot_section snapshot;
};

/* Takes over *raw (emptied, also on failure). Checks every length, limit and sum, and that the
 * blocks fill a file of file_bytes exactly. ERR_DAMAGED / ERR_VERSION / ERR_LIMIT with what and
 * where; ERR_NOMEM. */
int part_meta_decode(struct buf *raw, uint64_t file_bytes, const char *name, struct part_meta **ret,
                     struct err *e);
void part_meta_free(struct part_meta *m); /* NULL is fine */

/* Goes through the pages of a block of kind 1, or the chunks of one of kind 2, in their order.
 * The metadata was checked, so these cannot fail. */
struct block_walk {
    struct cursor items;
    const struct part_block *block;
    uint32_t index;
    uint64_t page;                  /* kind 1: page number */
    uint64_t fingerprint;           /* kind 1 */
    const uint8_t *chunk_id;        /* kind 2 */
    uint32_t raw_offset, raw_bytes; /* where it lies in the raw block */
};
struct block_walk block_walk_begin(const struct part_block *b);
bool block_walk_next(struct block_walk *w);

void part_runs_encode(const struct part_run *runs, size_t count, struct buf *to);
/* *ret is malloc'ed (NULL when *ret_count is 0); false when malformed or over limits. */
bool part_runs_decode(struct cursor *c, struct part_run **ret, size_t *ret_count);
/* Appends one chunk, joining it to the last run where it follows on. ERR_NOMEM. */
int part_runs_add(struct part_run **runs, size_t *count, size_t *cap, const struct part_run *one);

void snapshot_section_encode(const struct snapshot_section *s, int64_t part_time_s, struct buf *to);
void snapshot_section_free(struct snapshot_section *s);

#endif
