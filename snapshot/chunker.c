#include "snapshot/chunker.h"

#include <pthread.h>

#include "syncd/base/mem.h"

static uint64_t gear[256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* SplitMix64 (Steele et al., 2014): any table of random numbers will do, if it never changes. */
static void fill_gear(void)
{
    uint64_t state = UINT64_C(0x73796e6364);
    for (int i = 0; i < 256; i++) {
        state += UINT64_C(0x9e3779b97f4a7c15);
        uint64_t z = state;
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        gear[i] = z ^ (z >> 31);
    }
}

/* The topmost `bits` bits: they depend on the last 64 bytes, the lowest ones on only a few. */
static uint64_t mask_of(unsigned bits)
{
    return ~UINT64_C(0) << (64 - bits);
}

size_t chunker_cut(const struct chunker_sizes *s, const uint8_t *p, size_t n, int last)
{
    pthread_once(&once, fill_gear);
    if (n <= s->min)
        return last ? n : 0;
    size_t end = MIN(n, (size_t)s->max);
    size_t normal = MIN(end, (size_t)s->average);
    unsigned bits = (unsigned)__builtin_ctz(s->average);
    uint64_t hard = mask_of(bits + 2), easy = mask_of(bits - 2), hash = 0;
    size_t i = s->min;
    for (; i < normal; i++) {
        hash = (hash << 1) + gear[p[i]];
        if (!(hash & hard))
            return i + 1;
    }
    for (; i < end; i++) {
        hash = (hash << 1) + gear[p[i]];
        if (!(hash & easy))
            return i + 1;
    }
    return end == s->max || last ? end : 0;
}
