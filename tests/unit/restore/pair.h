/* Two workers, each a folder of its own, with one repository and a source "db": what the tests of
 * sync and verify begin with. Snapshots are made by the pipeline, as a backup makes them. */
#ifndef SYNCD_TESTS_RESTORE_PAIR_H
#define SYNCD_TESTS_RESTORE_PAIR_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "restore/kept.h"
#include "restore/sync.h"
#include "snapshot/part.h"
#include "snapshot/repository.h"

#define PAIR_SOURCE "db"
#define PAIR_MARKED_MAX 64

#define ok(call)                                                                                   \
    do {                                                                                           \
        if ((call) != 0)                                                                           \
            fail_msg("%s: %s", #call, e.message);                                                  \
    } while (0)

/* The parts that the next snapshot of a line of snapshots lists. */
struct lineage {
    size_t count;
    struct part_ref parts[64];
    /* When set, later entry lists begin with the chunk that the first one was. */
    bool share;
    struct part_run first_run;
    uint64_t first_bytes;
};

struct pair {
    char root[2][64];
    struct repository repository;
    struct store *store[2];
    struct listing listing[2];
    uint64_t next_sequence;
    int64_t as_of_us;
    uint64_t seed;
    bool tips_a_bit; /* pair_backup stores another page 5 than was read */
    /* Damage marks, as the leader's catalog keeps them. */
    size_t marked_count;
    struct {
        const struct store *store;
        struct part_ref ref;
    } marked[PAIR_MARKED_MAX];
};

int pair_setup(void **state);
int pair_teardown(void **state);

/* Opens the stores of folders that are there already. */
void pair_open(struct pair *p);
void pair_close(struct pair *p);

/* A snapshot, on the workers of the mask (1, 2 or 3), that lists the lineage's parts and is added
 * to them. It has three blocks of pages and the entry list. */
struct part_ref pair_backup(struct pair *p, unsigned mask, struct lineage *l);

/* Reads both listings anew. */
void pair_list(struct pair *p);

/* kept_params with fresh listings and the damage marks. */
struct kept_params pair_params(struct pair *p);
bool pair_is_marked(const struct pair *p, size_t at, const struct part_ref *ref);

/* A sync that goes to its end; the caller frees the result. The second one leaves both equal, with
 * this many files and no damage mark. */
struct sync_result pair_sync(struct pair *p);
void pair_sync_to_equal(struct pair *p, size_t files);

/* The file on this machine, under whatever mark it has; "" when it is not there. */
struct pair_path {
    char s[300];
};
struct pair_path pair_path(const struct pair *p, size_t at, const struct part_ref *ref,
                           enum part_mark mark);
struct pair_path pair_file(const struct pair *p, size_t at, const struct part_ref *ref);

void pair_flip(const struct pair *p, size_t at, const struct part_ref *ref, uint64_t offset);
void pair_set_size(const struct pair *p, size_t at, const struct part_ref *ref, uint64_t size);
void pair_remove(const struct pair *p, size_t at, const struct part_ref *ref);
void pair_mark(const struct pair *p, size_t at, const struct part_ref *ref, enum part_mark from,
               enum part_mark to);

/* Every byte of the worker's copy is right. */
bool pair_is_whole(struct pair *p, size_t at, const struct part_ref *ref);

/* Both folders hold the same names, bytes and (of .snap, in seconds) times, nothing in tmp/ and no
 * .bad; there are `files` of them. */
void pair_assert_equal(struct pair *p, size_t files);

#endif
