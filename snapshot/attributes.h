/* What a file system says of a file beside its content: owner, mode, times, extended attributes,
 * and the signature by which it is recognised as unchanged. */
#ifndef SYNCD_SNAPSHOT_ATTRIBUTES_H
#define SYNCD_SNAPSHOT_ATTRIBUTES_H

#include <stdbool.h>
#include <sys/stat.h>

#include "snapshot/entry.h"

struct err;

#define ATTRIBUTES_MAX 524288u /* bytes of extended attributes of one file */

int64_t attributes_ns(const struct timespec *t);

/* Older than 2 s: a change that the clock's grain hides cannot follow any more. */
bool attributes_settled(const struct stat *st);

/* Fills owner (numbers and names), mode and mtime. Names that are not known stay NULL. The last
 * names are remembered, so that a tree of one owner asks once; one thread at a time. */
int attributes_fill(const struct stat *st, struct entry *ret, struct err *e);

/* "pioreactor", or "user 1234" when the system has no name for it. Returns ret. */
#define ATTRIBUTES_USER_SIZE 64
const char *attributes_user(uid_t uid, char ret[static ATTRIBUTES_USER_SIZE]);

/* Reads the extended attributes (POSIX ACLs are among them) of an open file, or, with fd -1, of
 * the link or file dir_fd/name itself. A file system that has none is fine. ERR_LIMIT: too many. */
int attributes_read_extended(int fd, int dir_fd, const char *name, const char *path,
                             struct entry_bytes *ret, struct err *e);

/* A tree entry's signature: inode, size, mtime and ctime, and whether these were settled. */
int signature_make(const struct stat *st, struct entry_bytes *ret, struct err *e);

/* The entry was settled when it was taken, and looks the same now. */
bool signature_holds(const struct entry_bytes *signature, const struct stat *now);

/* Two entries were taken of what looked the same and settled. */
bool signature_same(const struct entry_bytes *a, const struct entry_bytes *b);

/* The file had more than one name when it was taken. */
bool signature_linked(const struct entry_bytes *signature);

/* A carried-over entry whose file is missing keeps, before its signature, since when. 0: it is not
 * missing. */
int signature_set_missing(struct entry_bytes *signature, int64_t since_us, struct err *e);
int64_t signature_missing_since(const struct entry_bytes *signature);

void signature_clear_missing(struct entry_bytes *signature);

/* The signature without that. */
struct entry_bytes signature_body(const struct entry_bytes *signature);

#endif
