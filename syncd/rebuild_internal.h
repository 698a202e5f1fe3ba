/* Shared by rebuild.c (the dialogue), rebuild_look.c (what is there) and rebuild_lead.c (becoming
 * the leader again). */
#ifndef SYNCD_REBUILD_INTERNAL_H
#define SYNCD_REBUILD_INTERNAL_H

#include <jansson.h>

#include "conf/conf.h"
#include "snapshot/part.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/bring.h"
#include "syncd/found.h"
#include "syncd/from.h"

#define REBUILD_OWNERS_MAX 16

struct report;
struct session;

struct rebuild_source {
    const struct found_source *found;
    struct err err; /* why it does not come back; code 0: it does, or will */
    bool restored;
    struct part_ref ref; /* the snapshot */
    int64_t as_of_us;
    bool complete;
    size_t entry_count, older_count, dump_count;
    uint64_t bytes;
    size_t part_count;
    struct part_ref *parts; /* of the snapshot, its own last */
    char *old_kept_at;
};

/* An owner or group that this machine does not know: its files get the number. */
struct rebuild_owner {
    bool is_group;
    uint32_t number;
    char name[64];
};

struct rebuild {
    const struct command_args *args;
    struct report *report;
    struct session *s; /* on the repositories, by --from */
    struct from_login logins[CONF_MAX_WORKERS];
    struct found found;
    size_t source_count;
    struct rebuild_source *sources;
    size_t owner_count;
    struct rebuild_owner owners[REBUILD_OWNERS_MAX];
    struct buf config_text; /* of the newest snapshot that keeps one; empty: none */
    int64_t config_time_s;
    struct conf *config; /* the same, read; NULL: none, or it is not understood */
    size_t hook_count;
    bool hooks_trusted;
    struct bring_damages damages;
    json_t *missing; /* what is left for the person to do, as lines */
};

/* One more line of what is missing in the end. */
void rebuild_missing(struct rebuild *rb, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* rebuild_look.c. Reads and shows what the repositories hold. A source that cannot be read has its
 * err; the answer is an error when there is nothing at all. */
int rebuild_look(struct rebuild *rb, struct err *e);

/* rebuild_lead.c. Key, known_hosts and config of a leader, a new epoch, the catalog, and one
 * backup. 0: this machine leads, though things may be missing. */
int rebuild_lead(struct rebuild *rb, struct err *e);

#endif
