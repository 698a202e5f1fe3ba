/* The state of a source as it is published (CONTRACT "MQTT"): from what the catalog knows. */
#ifndef SYNCD_SOURCE_STATE_H
#define SYNCD_SOURCE_STATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct catalog;
struct conf;
struct conf_source;
struct err;

/* What the catalog cannot know. */
struct source_now {
    int64_t now_us;
    bool running;        /* its backup runs */
    int64_t next_run_us; /* 0: not known */
};

/* The state object; *ret is the caller's. The catalog may be NULL: nothing was ever stored then. */
int source_state(const struct conf *c, const struct conf_source *s, struct catalog *catalog,
                 const struct source_now *now, json_t **ret, struct err *e);

#endif
