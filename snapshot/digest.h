/* The three kinds of digest in a repository (FORMAT.md 2.3): what each is for, and nothing else.
 * All are pure and cannot fail once digest_init has succeeded. */
#ifndef SYNCD_SNAPSHOT_DIGEST_H
#define SYNCD_SNAPSHOT_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#define DIGEST_SIZE 32   /* BLAKE2b-256 (RFC 7693): stored blocks, ids of parts */
#define CHUNK_ID_SIZE 16 /* keyed BLAKE2b-128: chunks looked up by content */
#define SEED_SIZE 32

struct err;

/* Prepares libsodium; must be called once before threads start. ERR_INTERNAL. */
int digest_init(struct err *e);

void digest_blake2b(const void *p, size_t n, uint8_t ret[static DIGEST_SIZE]);

/* The same of several pieces, one after the other. */
struct digest_piece {
    const void *data;
    size_t n;
};
void digest_blake2b_of(const struct digest_piece *pieces, size_t count,
                       uint8_t ret[static DIGEST_SIZE]);

void digest_chunk_id(const uint8_t seed[static SEED_SIZE], const void *p, size_t n,
                     uint8_t ret[static CHUNK_ID_SIZE]);

/* Both halves of XXH3-128 of a page: `fingerprint` (low) to see whether it changed, `summand`
 * (high), whose sum over an image proves the map from page numbers to pages. */
struct page_hash {
    uint64_t fingerprint, summand;
};
struct page_hash digest_page(uint64_t page_seed, uint64_t page_number, const void *p, size_t n);

/* The 64-bit seed of page hashes: the first 8 bytes of the repository's seed. */
uint64_t digest_page_seed(const uint8_t seed[static SEED_SIZE]);

/* Names an image for all time in its source: from path, kind and page size (FORMAT.md 2.3). */
uint64_t digest_image_id(const uint8_t seed[static SEED_SIZE], const char *path, uint8_t kind,
                         uint8_t page_shift);

#endif
