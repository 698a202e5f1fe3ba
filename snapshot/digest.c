#include "snapshot/digest.h"

#include <sodium.h>
#include <string.h>
#include <xxhash.h>

#include "syncd/base/buf.h"
#include "syncd/base/err.h"

int digest_init(struct err *e)
{
    if (sodium_init() < 0)
        return err_set(e, ERR_INTERNAL, NULL, "libsodium cannot be initialised");
    return 0;
}

void digest_blake2b(const void *p, size_t n, uint8_t ret[static DIGEST_SIZE])
{
    crypto_generichash(ret, DIGEST_SIZE, p, n, NULL, 0);
}

void digest_blake2b_of(const struct digest_piece *pieces, size_t count,
                       uint8_t ret[static DIGEST_SIZE])
{
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, DIGEST_SIZE);
    for (size_t i = 0; i < count; i++)
        crypto_generichash_update(&state, pieces[i].data, pieces[i].n);
    crypto_generichash_final(&state, ret, DIGEST_SIZE);
}

void digest_chunk_id(const uint8_t seed[static SEED_SIZE], const void *p, size_t n,
                     uint8_t ret[static CHUNK_ID_SIZE])
{
    crypto_generichash(ret, CHUNK_ID_SIZE, p, n, seed, SEED_SIZE);
}

struct page_hash digest_page(uint64_t page_seed, uint64_t page_number, const void *p, size_t n)
{
    XXH128_hash_t h = XXH3_128bits_withSeed(p, n, page_seed + page_number);
    return (struct page_hash){.fingerprint = h.low64, .summand = h.high64};
}

uint64_t digest_page_seed(const uint8_t seed[static SEED_SIZE])
{
    return le64_get(seed);
}

uint64_t digest_image_id(const uint8_t seed[static SEED_SIZE], const char *path, uint8_t kind,
                         uint8_t page_shift)
{
    uint8_t out[CHUNK_ID_SIZE];
    crypto_generichash_state state;
    uint8_t tail[2] = {kind, page_shift};
    crypto_generichash_init(&state, seed, SEED_SIZE, sizeof out);
    crypto_generichash_update(&state, (const unsigned char *)path, strlen(path) + 1);
    crypto_generichash_update(&state, tail, sizeof tail);
    crypto_generichash_final(&state, out, sizeof out);
    return le64_get(out);
}
