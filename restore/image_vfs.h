/* SQLite on a stored image: a read-only VFS whose reads are an image_reader's. There is nothing to
 * lock and nothing to recover: the image is one whole state, and SQLite takes it as immutable.
 *
 * What is in the image is not trusted: the schema may call nothing but harmless functions, no
 * trigger runs, nothing is mapped into memory, and cells are checked as they are read. */
#ifndef SYNCD_RESTORE_IMAGE_VFS_H
#define SYNCD_RESTORE_IMAGE_VFS_H

#include <sqlite3.h>

struct err;
struct image_reader;
struct image_db;

/* Opens a connection on the image; the reader is borrowed. `name` is what messages call it and must
 * outlive the connection. ERR_DAMAGED when it is no database; ERR_NOMEM. Temporary files, for
 * sorting, are SQLite's usual ones. */
int image_db_open(struct image_reader *r, const char *name, struct image_db **ret, struct err *e);
void image_db_close(struct image_db *d); /* NULL is fine; its statements are finalized before */
void image_db_closep(struct image_db **d);
#define OWN_IMAGE_DB __attribute__((cleanup(image_db_closep)))

sqlite3 *image_db_handle(struct image_db *d);

/* Why a read of the image failed since it was opened, or code 0: what SQLite calls a "disk I/O
 * error". */
const struct err *image_db_error(const struct image_db *d);

/* The same guards for a connection of another kind. */
void image_db_harden(sqlite3 *db);

#endif
