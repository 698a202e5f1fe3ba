/* "Did you mean": the word of a list that is nearest to one that was mistyped. */
#ifndef SYNCD_BASE_NEAREST_H
#define SYNCD_BASE_NEAREST_H

#include <stddef.h>

#define NEAREST_MAX 32 /* longer words are not compared */

struct nearest {
    const char *typed;
    size_t best_distance;
    const char *best; /* one of the words that were offered, or NULL */
};

/* Begins a search for `typed`, which must outlive it. How far a word may be away grows with its
 * length: one letter up to three letters, two up to six, then three. A word of which at least the
 * first three letters were typed, and no others, counts as one letter away. */
struct nearest nearest_start(const char *typed);

/* Offers a word; the first of several that are equally near stays. */
void nearest_offer(struct nearest *n, const char *word);

#endif
