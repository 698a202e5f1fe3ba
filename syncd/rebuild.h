/* `restore --from URL` on a machine that has nothing: the dialogue that brings every source back to
 * where it was, and makes this machine the leader again (CONTRACT "Restore"). */
#ifndef SYNCD_REBUILD_H
#define SYNCD_REBUILD_H

#include <stdbool.h>

struct command_args;
struct err;
struct report;

/* Whether the words mean it: --from URL, and nothing that says where to. */
bool rebuild_is_meant(const struct command_args *args);

/* Shows what the repositories hold; asks once; restores every source in place (the named one alone,
 * which then leads to nothing further); asks whether this machine is the leader from now on, and if
 * so enrols its key on the workers, writes the config that the snapshot keeps, takes the
 * repository over and backs up once. Answers an exit code, or a negative error code with *e:
 * nothing was changed then. Without a terminal every question must be answered by its flag before
 * anything is changed: ERR_USAGE. */
int rebuild_run(const struct command_args *args, struct report *report, struct err *e);

#endif
