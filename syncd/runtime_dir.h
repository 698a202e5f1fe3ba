/* The folder for what a run keeps only to be faster (fingerprints) or shorter of memory (lists): in
 * memory, gone after a reboot, and never missed. */
#ifndef SYNCD_RUNTIME_DIR_H
#define SYNCD_RUNTIME_DIR_H

#include <stdint.h>

#include "snapshot/repository.h"

struct err;

/* Makes the source's folder in the first place that can be used and has room, from place *from on
 * (0: the first), and sets *from to the place after it: $RUNTIME_DIRECTORY, /run/syncd,
 * $XDG_RUNTIME_DIR/syncd, /dev/shm/syncd-<uid>, and <state_dir>/run; first those that are in
 * memory, in this order, then the others. Where none has room, the first that can be used at all;
 * but ERR_NO_SPACE when *from was not 0. *ret is the caller's. ERR_PERMISSION: there is none. */
int runtime_dir_make(const char *state_dir, const uint8_t repository[static REPO_ID_SIZE],
                     const char *source, unsigned *from, char **ret, struct err *e);

/* A snapshot does not come back: what the source's tables say must not be built upon, wherever they
 * are. The next run makes them anew from the parts' own lists, and reads everything. */
void runtime_dir_forget(const char *state_dir, const uint8_t repository[static REPO_ID_SIZE],
                        const char *source);

#endif
