/* The key with which this machine logs in to its workers: an OpenSSH key pair in two files, made by
 * ssh-keygen. */
#ifndef SYNCD_KEY_PAIR_H
#define SYNCD_KEY_PAIR_H

#include <stdbool.h>
#include <stddef.h>

#include "transport/key_file.h"

struct buf;
struct err;

/* Makes sure that there is a private key at `path` that libssh2 can use: an existing one is looked
 * at (ERR_PERMISSION, ERR_AUTH: RSA, locked, no key; each says what to do), a missing one is made,
 * as ed25519 with mode 0600 and without a passphrase, under its name only when it is whole.
 * `comment` goes into its public half at <path>.pub. */
int key_pair_ensure(const char *path, const char *comment, bool *ret_made, struct err *e);

/* Why libssh2 cannot log in with such a key, as the end of a sentence about it; NULL: it can. */
const char *key_pair_defect(enum key_kind kind);

/* Appends "<type> <base64>", the public half of the private key at `path`, without a newline. */
int key_pair_public(const char *path, struct buf *ret, struct err *e);

/* Appends the line for a worker's authorized_keys: the key may do nothing there but SFTP. */
int key_pair_authorized_line(const char *path, const char *comment, struct buf *ret, struct err *e);

/* The "<type> <base64>" of one line of a .pub file or of ssh-keygen -y, its length in *ret_len;
 * NULL when the text holds no such line. */
const char *key_pair_find_public(const char *text, size_t *ret_len);

#endif
