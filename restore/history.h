/* All snapshots of a source that the workers hold under the mark .snap: when they were taken, and
 * which worker holds them whole. What retention and freshness judge. Memory: about 150 bytes a
 * snapshot; their lists of parts are not kept. */
#ifndef SYNCD_RESTORE_HISTORY_H
#define SYNCD_RESTORE_HISTORY_H

#include "restore/kept.h"

struct history_snapshot {
    struct part_ref ref; /* size_bytes 0 */
    bool readable;       /* its metadata is whole on some worker; else as_of_us, taken_us follow
                            from its name, and complete is false */
    bool newer;          /* it is of a newer syncd's format, which this one cannot read */
    bool complete;       /* nothing carried over, nothing missing */
    int64_t as_of_us;    /* of its oldest entry */
    int64_t taken_us;    /* as_of_us; of one with older entries: when its last part was begun */
    struct {
        bool there;       /* under the mark .snap */
        bool whole;       /* ... and so is every part that it lists, with its size, not damaged */
        int64_t mtime_us; /* the last moment at which its state was known to be the source's */
    } at[POOL_STORES_MAX];
    /* The caller's decisions: */
    bool wanted;                /* every worker is to hold it */
    bool keep[POOL_STORES_MAX]; /* this worker, which has it, keeps it as a snapshot */
};

struct history {
    size_t count, cap;
    struct history_snapshot *snapshots; /* ascending by (epoch, sequence), id, time */
};

/* Reads the metadata of every snapshot, from whoever has it whole. p->keep is not asked. *ret is
 * the caller's in any case, for history_free. Errors: ERR_CANCELLED, ERR_NOMEM, and that of a
 * worker whose connection broke: then what is missing here may be there. */
int history_read(const struct kept_params *p, struct history *ret, struct err *e);
void history_free(struct history *h);
#define OWN_HISTORY __attribute__((cleanup(history_free)))

/* NULL when it is not a snapshot of this history. */
const struct history_snapshot *history_find(const struct history *h, const struct part_ref *ref);

#endif
