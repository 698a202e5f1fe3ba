/* Which paths of a tree are left out, by the source's list of globs.
 *
 * In a glob `*` stands for any characters but '/', `?` for one, `[...]` for one of a set; a
 * backslash takes the next character as it is. A leading dot is nothing special.
 * - Without a '/' it is matched against the last part of each path: "*.tmp", "cache".
 * - Beginning with '/' it is matched against whole paths: "/var/lib/app/log*".
 * - With a '/' elsewhere it is matched against the last parts of paths: "storage/old-?" leaves out
 *   /home/x/storage/old-1.
 * - With a '/' at its end it matches folders only: "cache/".
 * - A leading "**" and '/' is taken off: the rest is a glob of the kind above.
 * With a folder goes everything below it. The paths that the source names are never left out. What
 * syncd itself makes beside a user's files (.syncd-restore, .syncd-*.tmp) always is. */
#ifndef SYNCD_SNAPSHOT_EXCLUDE_H
#define SYNCD_SNAPSHOT_EXCLUDE_H

#include <stdbool.h>

/* `globs`: NULL-terminated; may be NULL. `path` is absolute. Pure. */
bool exclude_matches(char *const *globs, const char *path, bool is_folder);

#endif
