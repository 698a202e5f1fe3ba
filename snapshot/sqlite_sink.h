/* The destination of sqlite3_backup: a database of which only the writing exists. It stands on a
 * VFS of ours whose xWrite hands each page to the image; nothing is kept and nothing is read back.
 *
 * SQLite writes the pages of a backup in ascending order, page 1 last and once (it changes the
 * header's schema cookie at the end). Both are checked, because the image's sum rests on it. */
#ifndef SYNCD_SNAPSHOT_SQLITE_SINK_H
#define SYNCD_SNAPSHOT_SQLITE_SINK_H

#include <sqlite3.h>
#include <stdint.h>

struct err;
struct image;
struct sqlite_sink;

/* Opens an empty destination for one pass. `schema_cookie` is put back into page 1 (offset 40 of
 * the database header), where sqlite3_backup leaves one of its own. */
int sqlite_sink_open(struct image *m, uint32_t schema_cookie, struct sqlite_sink **ret,
                     struct err *e);

sqlite3 *sqlite_sink_db(struct sqlite_sink *s);

/* Why a write failed; code 0: none did. ERR_BUSY: let go and come again. */
const struct err *sqlite_sink_error(const struct sqlite_sink *s);

/* The highest page number that was taken, plus 1. */
uint64_t sqlite_sink_reached(const struct sqlite_sink *s);

/* Whether all pages came that an image of page_count pages has. */
int sqlite_sink_check(const struct sqlite_sink *s, uint64_t page_count);

void sqlite_sink_close(struct sqlite_sink *s); /* NULL is fine */

#endif
