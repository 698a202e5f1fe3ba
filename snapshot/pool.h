/* The parts of one source on the workers that answer, as one pool: each part, and each block, comes
 * from whoever has it whole. */
#ifndef SYNCD_SNAPSHOT_POOL_H
#define SYNCD_SNAPSHOT_POOL_H

#include "snapshot/part_reader.h"
#include "snapshot/repository.h"

struct entry;
struct err;

#define POOL_STORES_MAX 2

struct pool {
    const struct repository *repository;
    const char *source;
    const struct epoch *ruler; /* whose history counts (epoch_has); NULL: everybody's */
    size_t store_count;
    struct {
        struct store *store;
        const struct listing *listing;
    } at[POOL_STORES_MAX];
    /* Told of each damage that was found (and went round, when another worker had it whole). */
    void (*damage)(void *arg, struct store *s, const struct part_ref *ref, const struct err *e);
    void *arg;
    struct part_file *open[POOL_STORES_MAX]; /* the last part used, on each store */
    bool gone[POOL_STORES_MAX];              /* the connection broke: not asked again */
};

void pool_close(struct pool *p); /* closes what is open; the stores stay the caller's */

/* A store whose connection broke is not asked again. */
void pool_store_gone(struct pool *p, const struct store *s);
bool pool_store_is_gone(const struct pool *p, const struct store *s);

/* How many of the stores hold the part with its size. */
size_t pool_holders(const struct pool *p, const struct part_ref *ref);

/* Opens a part for its metadata; *ret is the pool's until the next call. The error is ERR_VERSION
 * when some store has it in a newer format, else that of the last store that was asked. */
int pool_part(struct pool *p, const struct part_ref *ref, const struct part_file **ret,
              struct err *e);

/* Opens the part's file on store number `i`, whatever its mark is now, without reading anything of
 * it. *ret is the caller's. ERR_NOT_FOUND, ERR_DAMAGED (another length), the store's errors. */
int pool_file(struct pool *p, size_t i, const struct part_ref *ref, struct store_file **ret,
              struct err *e);

/* Books a failure of a copy that the caller read by itself, as the pool's own readers do. */
void pool_failed(struct pool *p, size_t i, const struct part_ref *ref, const struct err *e);

/* Reads block number `index` of the part; *ret_raw lies in the reader. */
int pool_block(struct pool *p, const struct part_ref *ref, size_t index, struct block_reader *r,
               const uint8_t **ret_raw, struct err *e);

/* Reads content: the chunks of the runs, one after the other, each by way of `take`. The runs'
 * parts are looked up in `refs` (ascending). ERR_DAMAGED when a run leads nowhere. */
struct content {
    const struct part_run *runs;
    size_t run_count;
    const struct part_ref *refs;
    size_t ref_count;
};
typedef int content_fn(void *arg, const uint8_t id[static CHUNK_ID_SIZE], const struct part_run *at,
                       const uint8_t *p, size_t n, struct err *e);
int pool_content(struct pool *p, const struct content *c, struct block_reader *r, content_fn *take,
                 void *arg, struct err *e);

/* A snapshot's metadata, for long: its part's identity, its section (copied) and all its parts, its
 * own last. */
struct snapshot {
    struct part_ref ref;
    struct part_header header;
    struct snapshot_section section;
    size_t part_count;
    struct part_ref *parts;
};
void snapshot_free(struct snapshot *s);
#define OWN_SNAPSHOT __attribute__((cleanup(snapshot_free)))

/* Reads it. ERR_DAMAGED when the part holds no snapshot. */
int pool_snapshot(struct pool *p, const struct part_ref *ref, struct snapshot *ret, struct err *e);

/* Goes through the entries of a snapshot in their order; the entry is valid during the call. */
typedef int entry_fn(void *arg, struct entry *entry, struct err *e);
int pool_entries(struct pool *p, const struct snapshot *s, struct block_reader *r, entry_fn *take,
                 void *arg, struct err *e);

#endif
