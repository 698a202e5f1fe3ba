/* The way of new pages and chunks to the workers:
 *
 *   caller -> block of 256 KiB -> columns, zstd, BLAKE2b (all cores) -> parts, in order -> one
 * sender a worker
 *
 * One thread (the caller's) adds; it is the only one that ever waits for room. Memory is bounded by
 * the number of blocks in work and by queue_bytes, whatever the sizes of database and part.
 *
 * Several workers get the same bytes. One that fails is detached; so is one that makes the others
 * wait for more than 10 s in all and for more than a quarter of the time so far. The rest go on;
 * when none is left, adding fails with the last one's error. */
#ifndef SYNCD_SNAPSHOT_PIPELINE_H
#define SYNCD_SNAPSHOT_PIPELINE_H

#include <stdatomic.h>

#include "snapshot/part.h"
#include "syncd/base/err.h"

struct store;
struct pipeline;

#define PIPELINE_WORKERS_MAX 2

struct pipeline_options {
    uint8_t repository[REPO_ID_SIZE];
    char source[SOURCE_NAME_SIZE];
    uint32_t epoch;
    uint64_t next_sequence;
    size_t worker_count;
    struct {
        struct store *store;  /* used by the sender's thread alone until finish or abort */
        const int *cancel_fd; /* made readable when the worker is detached; may be NULL */
        bool holds_listed;    /* has every part that the snapshot will list: publish as .snap */
    } workers[PIPELINE_WORKERS_MAX];
    bool full;                 /* a full pass: all at zstd 1; else the first 4 MiB at 12 */
    unsigned threads;          /* compressing; 0: one a core, at most 4 */
    size_t queue_bytes;        /* 0: 4 MiB */
    const atomic_bool *cancel; /* set by a signal: adding ends with ERR_CANCELLED; may be NULL */
    /* Called by senders' threads: just before a part gets its final name on a worker (so that what
     * is ours is known before it can be seen), and with the bytes that were handed to a store.
     * Either may be NULL. */
    void (*publishing)(void *arg, const struct part_ref *ref, bool snapshot);
    /* By the sender's thread before each part: whether the worker has room for one. An error
     * detaches it. May be NULL. */
    int (*may_begin)(void *arg, size_t worker, struct err *e);
    /* The same before a part gets its final name: whether this machine still leads. May be NULL. */
    int (*may_publish)(void *arg, size_t worker, struct err *e);
    void (*sent)(void *arg, size_t worker, uint64_t bytes);
    void *arg;
};

struct pipeline_worker_result {
    bool stored;  /* the snapshot's last part is durable there */
    bool as_snap; /* ... under its final mark; false: as .pack until sync has brought the rest */
    bool lost;    /* its thread hangs in the store: neither use that nor close it */
    uint64_t sent_bytes;
    struct err err; /* why it was detached; code 0: it was not */
};

struct pipeline_result {
    struct part_ref snapshot;
    size_t part_count; /* new parts, the snapshot's included, ascending; the caller frees */
    struct part_ref *parts;
    uint64_t next_sequence; /* not given to a part */
    uint64_t changed_bytes; /* raw bytes of the blocks */
    uint64_t stored_bytes;  /* of all new parts */
    struct pipeline_worker_result workers[PIPELINE_WORKERS_MAX];
};

int pipeline_start(const struct pipeline_options *o, struct pipeline **ret, struct err *e);

/* Adds a page or a chunk (1 to PART_BLOCK_MAX bytes). May block until there is room. ERR_BUSY only
 * in a hold, see below: nothing was added. *ret_at says where the chunk will lie. */
int pipeline_page(struct pipeline *p, uint64_t image, uint8_t page_shift, uint64_t page,
                  uint64_t fingerprint, const void *data, struct err *e);
int pipeline_chunk(struct pipeline *p, const uint8_t id[static CHUNK_ID_SIZE], const void *data,
                   size_t n, struct part_run *ret_at, struct err *e);

/* Between the two the caller holds its source: adding waits in all no longer than the hold has
 * worked without waiting, or grace_us if that is more, and then fails with ERR_BUSY. */
void pipeline_hold(struct pipeline *p, int64_t grace_us);
void pipeline_let_go(struct pipeline *p);

/* What is added from now on is worth a high zstd level, for the first 4 MiB of a run (the default),
 * or is so much that level 1 is best. */
void pipeline_effort(struct pipeline *p, bool high);

/* 0 while adding can go on; else why it cannot: tells a failure of the run from one of an entry. */
int pipeline_state(struct pipeline *p, struct err *e);

/* Closes the part in the making and waits until little enough is on its way for the slowest worker
 * to take it in 0.2 s, going by its speed so far: a hold that begins now waits for no more. The
 * part becomes durable while the caller goes on. */
int pipeline_drain(struct pipeline *p, struct err *e);

/* How many of the bytes that were added have been taken by the slowest attached worker's sender;
 * raw bytes and stored bytes so far, for progress. */
uint64_t pipeline_changed_bytes(const struct pipeline *p);

/* Closes the snapshot's part and waits for the workers. `section` gives everything but the parts
 * of this run, which are appended to its listed ones. as_of_us becomes the mtime of the .snap.
 * Frees p. 0 when at least one worker stored the snapshot; *ret is filled in any case. */
int pipeline_finish(struct pipeline *p, const struct snapshot_section *section,
                    struct pipeline_result *ret, struct err *e);

/* Gives up: what is unfinished on the workers is removed, complete parts stay (they serve the next
 * run). Frees p; NULL is fine. Fills workers and next_sequence when ret is given. */
void pipeline_abort(struct pipeline *p, struct pipeline_result *ret);

#endif
