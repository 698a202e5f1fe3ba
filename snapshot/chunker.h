/* Content-defined chunks: FastCDC (Xia et al., USENIX ATC 2016) with normalised chunking. The cut
 * points depend on the content alone, so that an insertion moves few of them. They are no part of
 * the format: any cut restores. Pure. */
#ifndef SYNCD_SNAPSHOT_CHUNKER_H
#define SYNCD_SNAPSHOT_CHUNKER_H

#include <stddef.h>
#include <stdint.h>

struct chunker_sizes {
    uint32_t min, average, max; /* bytes; average a power of two, 256 to 65536; max <= 262144 */
};

/* The length of the first chunk of p. `last`: nothing follows the n bytes; else, when n < max, more
 * bytes are needed if the answer is 0. */
size_t chunker_cut(const struct chunker_sizes *s, const uint8_t *p, size_t n, int last);

#endif
