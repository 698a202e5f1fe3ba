/* Which chunks the workers have and where: so that content that was shipped once is only referred
 * to, in whichever file it turns up again. An id_table of 32 bytes a chunk beside the fingerprints,
 * gone after a reboot and rebuilt then from the parts' chunk lists.
 *
 * What it says counts only for parts that the new snapshot will list, and for those of this run, so
 * that additions of a run that failed do no harm. One thread. */
#ifndef SYNCD_SNAPSHOT_CHUNK_TABLE_H
#define SYNCD_SNAPSHOT_CHUNK_TABLE_H

#include "snapshot/part.h"

struct chunk_table;
struct err;

/* The state that a table is of. */
struct chunk_table_head {
    uint8_t repository[REPO_ID_SIZE];
    uint8_t snapshot[DIGEST_SIZE];
};

/* *ret_known: it is that of the snapshot `of`; else it is empty. */
int chunk_table_open(const char *dir, const struct chunk_table_head *of, struct chunk_table **ret,
                     bool *ret_known, struct err *e);

/* Closes it as what it was opened as. NULL is fine. */
void chunk_table_close(struct chunk_table *t);

/* Closes it as the table of `head`, whose snapshot is stored. */
int chunk_table_keep(struct chunk_table *t, const struct chunk_table_head *head, struct err *e);

/* No part may be given a sequence up to this one: entries of failed runs speak of it. */
uint64_t chunk_table_highest(const struct chunk_table *t);

/* About how many chunks will come, where none is known yet: spares the table growing step by step.
 */
void chunk_table_expect(struct chunk_table *t, uint64_t chunks);

/* The parts that count: the listed ones (ascending, the caller's, unchanged until the close), and
 * those of this run. */
void chunk_table_count_on(struct chunk_table *t, const struct part_ref *listed, size_t count,
                          uint32_t run_epoch, uint64_t run_first_sequence);

/* Whether a chunk is there, in a part that counts. A table that cannot be read knows nothing. */
bool chunk_table_find(struct chunk_table *t, const uint8_t id[static CHUNK_ID_SIZE],
                      struct part_run *ret);

/* Notes where a chunk lies, if it is not known yet. When there is no room, the table stops
 * growing: that costs bytes in later runs, nothing else. */
void chunk_table_add(struct chunk_table *t, const uint8_t id[static CHUNK_ID_SIZE],
                     const struct part_run *at);

/* The same for one that was shipped again: what was known of it before is replaced. */
void chunk_table_move(struct chunk_table *t, const uint8_t id[static CHUNK_ID_SIZE],
                      const struct part_run *at);

/* Whether this run shipped what lies there. */
bool chunk_table_is_of_run(const struct chunk_table *t, const struct part_run *at);

#endif
