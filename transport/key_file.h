/* Private key files: reading one, and telling whether libssh2 can use it before it fails with
 * words that help nobody. */
#ifndef SYNCD_TRANSPORT_KEY_FILE_H
#define SYNCD_TRANSPORT_KEY_FILE_H

#include <stddef.h>

struct buf;
struct err;

enum key_kind {
    KEY_USABLE, /* or not known to be otherwise */
    KEY_RSA,    /* libssh2 1.10 signs with SHA-1 only, which servers since OpenSSH 8.8 refuse */
    KEY_ENCRYPTED,
    KEY_HARDWARE,  /* needs a security key */
    KEY_PUBLIC,    /* the .pub file */
    KEY_UNREADABLE /* no key at all */
};

/* Reads the file into *ret (which the caller should wipe; a 0 follows) and tells its kind.
 * ERR_PERMISSION when others can read it or it is not ours, ERR_NOT_FOUND, ERR_IO, ERR_LIMIT. */
int key_file_read(const char *path, struct buf *ret, enum key_kind *ret_kind, struct err *e);

/* The kind of key in these bytes. */
enum key_kind key_kind_of(const void *p, size_t n);

#endif
