#include <assert.h>
#include <sys/types.h>

/* Placeholder until the first module of this folder lands. */
static_assert(sizeof(off_t) == 8, "64-bit file offsets");
