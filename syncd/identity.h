/* Who syncd is on this machine (DESIGN 9): jobs run as the owner of the databases, to whom
 * state_dir belongs. A reader of another user, root too, can leave files beside a database that
 * lock its owner out. */
#ifndef SYNCD_IDENTITY_H
#define SYNCD_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct conf;
struct err;

#define IDENTITY_NAME_SIZE 64 /* attributes.h has the same */

/* "pioreactor", or "user 1234" when the system has no name for it. Returns ret. */
const char *identity_name(uid_t uid, char ret[static IDENTITY_NAME_SIZE]);

/* The one owner of all paths of the config's sources. ERR_NOT_FOUND when there is none that can be
 * looked at; ERR_CONFIG when there are two, which are named. */
int identity_sources_owner(const struct conf *c, uid_t *ret_uid, gid_t *ret_gid, struct err *e);

/* For a process that root has started; nothing otherwise. A missing state_dir is made (0700) for
 * the owner of the sources; then the process becomes its owner for good, with that user's groups
 * and HOME. Call it before anything is opened and before any thread runs. ERR_PERMISSION when that
 * cannot be, or when that user cannot read the config. */
int identity_become_owner(const struct conf *c, struct err *e);

/* For setup, which root starts too and which ends with writing the config: the same, but only the
 * effective user and groups change, and identity_act_as_root takes them back. Both do nothing in a
 * process that root has not started. */
int identity_act_as_owner(const struct conf *c, struct err *e);
int identity_act_as_root(struct err *e);

/* Started by root, whoever it acts as now. */
bool identity_is_root(void);

#endif
