/* Where an entry's content lies: its runs, as they are encoded (FORMAT.md 2.4). A large dump has a
 * million of them, so long lists lie in a file in memory (a tmpfs of the kernel's, no more than an
 * entry's record may have) and are read through a small window. A list of zeros is an empty one. */
#ifndef SYNCD_SNAPSHOT_RUN_LIST_H
#define SYNCD_SNAPSHOT_RUN_LIST_H

#include "snapshot/part.h"

struct err;

/* Encoded bytes that are kept in memory; a list with more lies in a file. */
#define RUN_LIST_IN_MEMORY 65536u

/* A temporary file that several lists share; one thread. */
struct shared_file {
    unsigned refs;
    int fd;
};
/* `fd` is taken over. NULL: out of memory, and fd is closed. */
struct shared_file *shared_file_new(int fd);
struct shared_file *shared_file_ref(struct shared_file *f);
void shared_file_unref(struct shared_file *f); /* NULL is fine */

struct run_list {
    uint64_t count, len;      /* runs, and bytes of all of them without the count */
    uint8_t *data;            /* in memory, or: */
    struct shared_file *file; /* at `at` */
    uint64_t at;
};
void run_list_free(struct run_list *l); /* leaves an empty one */

/* Another list of the same runs. ERR_NOMEM. */
int run_list_copy(const struct run_list *from, struct run_list *ret, struct err *e);

/* From a record: what follows is all runs and well formed. False when not, or out of memory. */
bool run_list_decode(struct cursor *c, struct run_list *ret);
/* The same of the `len` bytes at `at` of the file, which begin with the count. ERR_DAMAGED. */
int run_list_at(struct shared_file *f, uint64_t at, uint64_t len, struct run_list *ret,
                struct err *e);

/* An array, malloc'ed; ERR_DAMAGED when there are more than `most`. */
int run_list_array(const struct run_list *l, size_t most, struct part_run **ret, size_t *ret_count,
                   struct err *e);

/* The same runs, as far as can be read. */
bool run_list_same(const struct run_list *a, const struct run_list *b);

/* Bytes of the encoding with its count. */
uint64_t run_list_bytes(const struct run_list *l);

/* The encoded bytes from `from` on (the count is not among them), at most n. */
int run_list_read(const struct run_list *l, uint64_t from, uint8_t *to, size_t n, struct err *e);

/* Going through it. The list must stay as it is meanwhile. */
struct run_reader {
    const struct run_list *list;
    uint64_t taken; /* of the list's bytes */
    size_t at, filled;
    uint8_t window[4096];
};
void run_read(struct run_reader *r, const struct run_list *l);
/* 1: *ret is the next one; 0: there is none; or an error. */
int run_next(struct run_reader *r, struct part_run *ret, struct err *e);

/* Making one. A writer of zeros is fine. */
struct run_writer {
    struct run_list list; /* without what is pending */
    struct part_run last; /* count 0: none */
    struct buf pending;
};
/* Appends one, joining it to the last where it follows on. */
int run_add(struct run_writer *w, const struct part_run *one, struct err *e);
int run_end(struct run_writer *w, struct run_list *ret, struct err *e); /* leaves an empty writer */
void run_writer_free(struct run_writer *w);
uint64_t run_writer_bytes(const struct run_writer *w); /* of the encoding, so far */

#endif
