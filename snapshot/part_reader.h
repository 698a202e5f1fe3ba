/* Reading a part from a store, trusting nothing: the id is checked over the metadata, each block's
 * digest over its stored bytes before zstd sees them, every length before it is used.
 * Blocks as the store does (transport/store.h). One thread at a time. */
#ifndef SYNCD_SNAPSHOT_PART_READER_H
#define SYNCD_SNAPSHOT_PART_READER_H

#include "snapshot/part.h"

struct err;
struct store;
struct store_file;

struct part_file {
    struct store *store;
    struct store_file *file;
    struct part_ref ref; /* with its size */
    struct part_meta *meta;
    char path[SOURCE_NAME_SIZE + 1 + PART_NAME_SIZE]; /* in the store */
};

/* Opens <source>/<name of want with `mark`> and reads its metadata. want->size_bytes must be that
 * of the file (0: ask the store). Checks id, repository, source and place in the order.
 * ERR_NOT_FOUND, ERR_DAMAGED, ERR_VERSION, ERR_FOREIGN, and the store's errors.
 * *ret is the caller's, to be given to part_close. */
int part_open(struct store *s, const char *source, const struct part_ref *want, enum part_mark mark,
              const uint8_t repository[static REPO_ID_SIZE], struct part_file **ret, struct err *e);
void part_close(struct part_file *f); /* NULL is fine */

/* Working memory for blocks: two buffers of PART_BLOCK_MAX and a zstd context. */
struct block_reader;
int block_reader_new(struct block_reader **ret, struct err *e);
void block_reader_free(struct block_reader *r); /* NULL is fine */
#define OWN_BLOCK_READER __attribute__((cleanup(block_reader_freep)))
void block_reader_freep(struct block_reader **r);

/* Checks the digest of `stored` (b->stored_bytes of them) and unpacks; *ret_raw (b->raw_bytes) lies
 * in the reader, or is `stored` itself, until the next call. ERR_DAMAGED names `path` and offset.
 */
int block_unpack(struct block_reader *r, const struct part_block *b, const char *path,
                 const uint8_t *stored, const uint8_t **ret_raw, struct err *e);

/* Whether an unpacked block holds what its list says: each page by its fingerprint, each chunk by
 * its id. What a digest of the stored bytes cannot see: that other bytes were stored than were
 * read. */
bool block_is_as_listed(const struct part_block *b, const uint8_t *raw,
                        const uint8_t seed[static SEED_SIZE]);

/* Reads block b of the part and unpacks it; the block that the reader holds is not read again. */
int part_read_block(struct part_file *f, const struct part_block *b, struct block_reader *r,
                    const uint8_t **ret_raw, struct err *e);

#endif
