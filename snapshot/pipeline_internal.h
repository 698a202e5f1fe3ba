/* Shared by pipeline.c (adding, compressing), assembler.c (blocks to parts) and sender.c (parts to
 * workers). Everything in struct pipeline is guarded by `lock`, but what is marked otherwise. */
#ifndef SYNCD_SNAPSHOT_PIPELINE_INTERNAL_H
#define SYNCD_SNAPSHOT_PIPELINE_INTERNAL_H

#include <pthread.h>

#include "snapshot/pipeline.h"

#define SLOTS_MAX 10
#define THREADS_MAX 4

enum slot_state { SLOT_FREE, SLOT_FILLING, SLOT_READY, SLOT_COMPRESSING, SLOT_DONE };

/* One block on its way through compression. */
struct slot {
    enum slot_state state;
    struct part_header part; /* of the part that it goes into */
    bool ends_part;
    uint8_t kind, page_shift, method;
    uint64_t image, last_page;
    uint32_t count;
    int level;
    struct buf numbers;      /* items as the metadata has them */
    struct buf fingerprints; /* kind 1 */
    uint32_t raw_bytes, stored_bytes;
    uint8_t digest[DIGEST_SIZE];
    struct message *stored; /* the compressed block */
    uint8_t *raw;           /* PART_BLOCK_MAX */
};

enum message_kind { MESSAGE_BEGIN, MESSAGE_DATA, MESSAGE_END };

/* What a sender does next. Shared by all of them, freed with the last reference. */
struct message {
    struct message *next;
    enum message_kind kind;
    unsigned refs;
    bool snapshot;       /* END: the part closes the snapshot */
    int64_t mtime_us;    /* END: -1 for none */
    struct part_ref ref; /* END */
    size_t n;
    uint8_t data[];
};

struct sender {
    struct pipeline *p;
    size_t index;
    pthread_t thread;
    bool started, detached;
    struct message *next; /* not yet done; NULL: idle */
    int64_t blame_us;     /* how long it made others wait */
    /* The sender's own: */
    struct store_file *file;
    char tmp[SOURCE_NAME_SIZE + 32];
    struct pipeline_worker_result
        result; /* read by others only after the thread has ended, but err */
};

struct pipeline {
    struct pipeline_options o;
    pthread_mutex_t lock;
    pthread_cond_t work;     /* a slot is ready, or stopping */
    pthread_cond_t progress; /* a slot was freed, a message done, a sender detached */
    pthread_cond_t messages; /* a message was queued, or stopping */
    bool stopping;           /* threads end; senders at the next message */
    bool closing;            /* senders end when their queue is empty */
    bool has_lost;           /* a sender's thread hangs: nothing is freed */
    struct err fatal;        /* of compression or assembly: out of memory */

    unsigned thread_count, threads_started;
    pthread_t threads[THREADS_MAX];
    size_t slot_count, fill, compress, assemble; /* ring positions */
    struct slot slots[SLOTS_MAX];

    /* The producer's own: the part that is being filled, and its hold. */
    bool part_open;
    struct part_header part;
    uint64_t next_sequence;
    uint32_t part_items, part_chunks;
    uint64_t changed_bytes;
    bool holding, high_effort;
    int64_t hold_start_us, hold_waited_us, hold_grace_us;
    int64_t start_us;

    uint64_t part_estimate; /* stored bytes of the part being filled, raw where not yet known */

    /* The assembler's: the part that is being written out. */
    bool out_open;
    struct part_header out;
    uint64_t out_bytes;
    size_t out_blocks;
    struct buf out_meta;
    size_t part_count, part_cap;
    struct part_ref *parts;
    uint64_t stored_bytes;

    struct message *last; /* tail of the queue */
    size_t queued_bytes;
    uint64_t taken_bytes; /* by every worker that is attached */
    struct sender senders[PIPELINE_WORKERS_MAX];
};

/* assembler.c; all with the lock held. */
void assembler_run(struct pipeline *p); /* as far as compressed blocks and queue allow */
int assembler_begin_part(struct pipeline *p, const struct part_header *part, struct err *e);
int assembler_close_part(struct pipeline *p, const struct snapshot_section *section, struct err *e);

/* sender.c; message_* and sender_detach with the lock held. */
struct message *message_new(enum message_kind kind, size_t n);
void message_queue(struct pipeline *p, struct message *m);
void *sender_main(void *sender);
void sender_detach(struct sender *s, const struct err *why);
bool pipeline_idle(const struct pipeline *p); /* no slot in work, no message waiting */
size_t pipeline_attached(const struct pipeline *p);

#endif
