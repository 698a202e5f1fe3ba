/* Freshness as the workers themselves show it: what is really there, and when it was last known to
 * be the source's state (the mtime of its .snap). Nothing is changed, but that a leader makes an
 * empty file for a moment to see the worker's clock. */
#ifndef SYNCD_FRESHNESS_LOOK_H
#define SYNCD_FRESHNESS_LOOK_H

struct err;
struct freshness;
struct session;

/* The facts of a source by the session's workers alone: nothing but their names. */
void freshness_from_nothing(const struct session *s, const char *source, struct freshness *ret);

/* Adds what the connected workers show to the facts, whose workers are the session's; the listings
 * of the source must have been read (session_list). What the catalog said counts on only where it
 * is there, or where the worker does not answer. ERR_NOMEM, ERR_CANCELLED. */
int freshness_look(struct session *s, struct freshness *f, struct err *e);

/* After freshness_judge: max_age_s, when it is not known yet, from the config that the newest
 * snapshot brought along, and size_bytes; judge again then. What cannot be read stays unknown.
 * ERR_NOMEM, ERR_CANCELLED. */
int freshness_look_inside(struct session *s, struct freshness *f, struct err *e);

#endif
