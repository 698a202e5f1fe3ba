/* `verify --drill`: proves of each worker by itself that its newest snapshot of a source comes
 * back, and notes that as proven. */
#ifndef SYNCD_DRILLING_H
#define SYNCD_DRILLING_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/conf.h"

struct err;
struct report;
struct session;

struct drilling_result {
    size_t proven, failed; /* workers; one without a snapshot of the source is neither */
    size_t hindered;       /* of the failed: only drill_database stood in the way */
    size_t listed;         /* of the failed: the list of entries came back */
    int64_t
        restore_us[CONF_MAX_WORKERS]; /* what a restore of the source takes at least; 0: unknown */
};

/* The workers' listings of the source must have been read (session_list). Adds one object for each
 * worker to `list`. 0 when it went to its end, whatever it found; ERR_CANCELLED and the like. */
int drilling_source(struct session *s, struct report *report, const char *source, json_t *list,
                    struct drilling_result *ret, struct err *e);

#endif
