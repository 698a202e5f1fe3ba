#include "syncd/base/nearest.h"

#include <string.h>

#include "syncd/base/mem.h"

#define PREFIX_MIN 3

/* How many letters have to be put in, left out, changed or swapped with a neighbour (optimal string
 * alignment). Both words are at most NEAREST_MAX long. */
static size_t distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t d[NEAREST_MAX + 1][NEAREST_MAX + 1];
    for (size_t i = 0; i <= a_len; i++)
        d[i][0] = i;
    for (size_t j = 0; j <= b_len; j++)
        d[0][j] = j;
    for (size_t i = 1; i <= a_len; i++)
        for (size_t j = 1; j <= b_len; j++) {
            size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            best = MIN(best, d[i - 1][j] + 1);
            best = MIN(best, d[i][j - 1] + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = MIN(best, d[i - 2][j - 2] + 1);
            d[i][j] = best;
        }
    return d[a_len][b_len];
}

struct nearest nearest_start(const char *typed)
{
    size_t len = strlen(typed);
    size_t allowed = len <= 3 ? 1 : len <= 6 ? 2 : 3;
    return (struct nearest){.typed = typed, .best_distance = allowed + 1};
}

void nearest_offer(struct nearest *n, const char *word)
{
    size_t typed_len = strlen(n->typed), len = strlen(word);
    if (typed_len == 0 || typed_len > NEAREST_MAX || len > NEAREST_MAX)
        return;
    size_t d = distance(n->typed, typed_len, word, len);
    if (typed_len >= PREFIX_MIN && strncmp(n->typed, word, typed_len) == 0)
        d = MIN(d, 1); /* begun, and not typed to its end */
    if (d >= n->best_distance)
        return;
    n->best_distance = d;
    n->best = word;
}
