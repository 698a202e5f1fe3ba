/* Which sources the connected workers hold, whatever the config names: for `adopt` and for a
 * machine that has no config yet. */
#ifndef SYNCD_FOUND_H
#define SYNCD_FOUND_H

#include "snapshot/repository.h"

struct err;
struct session;

#define FOUND_SOURCES_MAX EPOCH_SOURCES_MAX

struct found_source {
    char name[SOURCE_NAME_SIZE];
    bool has_part, has_snapshot;
    struct part_ref last;   /* the last part of all that is ordinary history */
    struct part_ref newest; /* the latest snapshot */
    int64_t known_us;       /* the newest moment at which a worker knew its state; 0: unknown */
    bool on[2];             /* by the session's workers: which hold the latest snapshot */
};

struct found {
    size_t count, cap;
    struct found_source *sources; /* by name */
};

/* Lists each connected worker's repository and every source's folder in it; a worker that fails is
 * left out of the session. Afterwards the session's listings are those of the last source. The
 * answer is the caller's, for found_free. ERR_LIMIT: more than FOUND_SOURCES_MAX. */
int found_read(struct session *s, struct found *ret, struct err *e);
void found_free(struct found *f);
#define OWN_FOUND __attribute__((cleanup(found_free)))

/* NULL when there is none of that name. */
const struct found_source *found_find(const struct found *f, const char *name);

#endif
