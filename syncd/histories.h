/* Two workers whose histories of one source have come apart, because they took turns being away. */
#ifndef SYNCD_HISTORIES_H
#define SYNCD_HISTORIES_H

#include "snapshot/part.h"

struct report;
struct session;

/* Tells of each connected worker whose newest snapshot of the source (listed last by session_list)
 * is not the newest of all: it is behind, or has a history of its own. */
void histories_say(const struct session *s, const char *source, struct report *report);

#endif
