/* One writer per source: flock on <state_dir>/<source>.lock. And the state_dir itself.
 *
 * Whoever wants the lock queues at <source>.turn first, so that a job which takes the lock again
 * and again (sync, one part at a time) lets a waiting backup go before it. The lock goes with the
 * process, however that ends. What stands in the file (who holds it) is only for messages. */
#ifndef SYNCD_LOCK_H
#define SYNCD_LOCK_H

#include <stdbool.h>

struct err;
struct lock;

struct lock_options {
    const char *state_dir;
    const char *source;
    const char *what; /* "backup", "sync", "prune": told to others who wait */
    bool wait;        /* else ERR_BUSY at once */
    /* Told once, before waiting, who is waited for ("backup, process 1234"); may be NULL. */
    void (*waiting)(void *arg, const char *source, const char *holder);
    void *arg;
};

/* Takes the lock; *ret is the caller's, for lock_release. ERR_BUSY (wait is false; names the
 * holder), ERR_CANCELLED (a signal came while waiting), ERR_PERMISSION, ERR_IO. Waits without
 * limit: what the holder does has its own deadlines. */
int lock_take(const struct lock_options *o, struct lock **ret, struct err *e);

void lock_release(struct lock *l); /* NULL is fine */

/* Whether some process holds the source's lock. Does not wait, changes nothing; false when it
 * cannot be told. */
bool lock_is_held(const char *state_dir, const char *source);

/* Makes state_dir (0700) when it is missing, and refuses one that is no folder, that belongs to
 * somebody else (root may use anyone's; what it makes there it gives to the folder's owner) or that
 * group or others may write to. ERR_PERMISSION, ERR_IO; each with a hint. */
int state_dir_check(const char *state_dir, struct err *e);

/* Opens (making it when missing, 0600, owned by the folder's owner) a file of state_dir; never
 * through a symlink. *ret_fd is the caller's. `flags` as for open(2), O_CREAT added; on a file
 * system that has become read-only an existing one is opened for reading. */
int state_dir_open_file(const char *state_dir, const char *name, int flags, int *ret_fd,
                        struct err *e);

#endif
