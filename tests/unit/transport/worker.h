/* What the tests of the SFTP back end share: opening a store on a test's own sshd. */
#ifndef SYNCD_TEST_WORKER_H
#define SYNCD_TEST_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "syncd/base/err.h"
#include "tests/support/sshd.h"
#include "transport/open.h"
#include "transport/store.h"

/* sftp://[user@]127.0.0.1:port<path>, with the sshd's own key and known_hosts, 10 s deadline. */
struct store_options worker_options(const struct sshd *w, const char *user, const char *path);

/* Fails the test when the store does not open. */
struct store *worker_open(const struct store_options *o);

/* Fails the test unless opening answers `code` and message and hint hold the words given. */
void worker_refuses(const struct store_options *o, int code, const char *message, const char *hint);

/* Writes text to folder/name with the mode and returns the path (static, per call site reused). */
void worker_put(const char *folder, const char *name, const char *text, unsigned mode,
                char ret_path[static 160]);

/* The contents of a text file, cut at 8 KB; static. */
const char *worker_text(const char *path);

/* "ssh-keygen -q -t type -N passphrase -f folder/name"; extra may be NULL. */
void worker_keygen(const char *folder, const char *name, const char *type, const char *passphrase,
                   const char *extra, char ret_path[static 160]);

/* Adds a public key to those that may log in. */
void worker_admit(const struct sshd *w, const char *key_path);

#endif
