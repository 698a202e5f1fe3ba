/* What was found damaged on one worker, for people and for JSON. */
#ifndef SYNCD_RESTORE_DAMAGE_H
#define SYNCD_RESTORE_DAMAGE_H

#include "snapshot/part.h"

struct err;

#define DAMAGE_LISTED_MAX 1000 /* more are only counted */
#define DAMAGE_NO_BLOCK (-1)   /* the whole file: its length, metadata, trailer or name */

struct damage {
    struct part_ref ref;
    char file[SOURCE_NAME_SIZE + 1 + PART_NAME_SIZE]; /* "<source>/<name>" in the repository */
    int64_t block; /* byte offset in the file of the damaged block, 0: the header; or -1 */
    bool mended;   /* sync: has been replaced since */
    char reason[256];
};

struct damage_list {
    size_t count; /* all that were found */
    size_t listed, cap;
    struct damage *items; /* `listed` of them */
};

void damage_list_free(struct damage_list *l);

/* Adds one, unless the same block of the same file is listed already and was not mended since: then
 * false. Out of memory it is only counted: a report must not fail for its length. */
bool damage_add(struct damage_list *l, const char *source, const struct part_ref *ref,
                enum part_mark mark, int64_t block, const struct err *why);

/* Notes that the file was replaced by a good one. */
void damage_mend(struct damage_list *l, const struct part_ref *ref);

/* Whether an error tells of a bad copy, and not of a connection, a limit or a wish to stop: what
 * another worker's copy can mend. A server that cannot read one of its files (ERR_IO: a bad sector)
 * counts. */
bool damage_is(int code);

#endif
