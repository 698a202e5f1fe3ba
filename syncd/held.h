/* What the catalog says that workers hold, put right by what they show. The daemon tells what is
 * fresh by the catalog alone. */
#ifndef SYNCD_HELD_H
#define SYNCD_HELD_H

#include "syncd/freshness.h"

struct session;

struct held {
    bool known;
    struct freshness facts;
};

/* What the catalog says, before the listings are read that held_learn goes by. */
void held_begin(struct session *s, const char *source, struct held *ret);

/* Notes of each connected worker which snapshot is the newest that is whole there, by the session's
 * listings and what is known to be damaged; but not of one that the catalog says something else of
 * by now. What fails is logged. */
void held_learn(struct session *s, const char *source, const struct held *before);

#endif
