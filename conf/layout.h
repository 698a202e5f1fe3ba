/* Where everything stands in a config file: the blocks in their order, and for each key its line.
 *
 * The first of the two readings of a file: it checks the syntax and the names against the table of
 * keys, and refuses what libconfuse would let pass in silence (duplicates, unquoted text, numbers
 * in octal). The second, libconfuse's, gives the values. */
#ifndef SYNCD_CONF_LAYOUT_H
#define SYNCD_CONF_LAYOUT_H

#include <stddef.h>

#include "conf/conf.h"
#include "conf/keys.h"

struct conf_report;
struct err;

struct layout_block {
    enum conf_section section;
    char title[CONF_NAME_MAX + 1]; /* "" for global and mqtt */
    int line;                      /* of its first word; 0 for global */
    int key_line[CONF_KEY_COUNT];  /* 0: not given */
    unsigned values[CONF_KEY_COUNT];
};

struct layout {
    struct layout_block *blocks; /* [0] is the global section */
    size_t count, cap;
};

/* Findings go to `report`; afterwards the layout is of use only if there were none. ERR_NOMEM or
 * 0. */
int layout_read(const char *text, size_t len, struct layout *ret, struct conf_report *report,
                struct err *e);

void layout_free(struct layout *l);

#endif
