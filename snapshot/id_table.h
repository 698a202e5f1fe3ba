/* A hash table in a file: keys and values of 16 bytes. For what grows with the number of files or
 * chunks and must not be kept in memory; meant for a tmpfs, where a look-up is one short pread.
 * One thread. A value of zeros means: not there. */
#ifndef SYNCD_SNAPSHOT_ID_TABLE_H
#define SYNCD_SNAPSHOT_ID_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ID_TABLE_KEY 16
#define ID_TABLE_VALUE 16
#define ID_TABLE_NOTE 80 /* bytes at the file's beginning that are the caller's */

struct err;
struct id_table;

/* `path` NULL: a temporary file in `dir`. Else the table in this file, made when it is missing;
 * one that is damaged is emptied (its note is zeros then). The file keeps what is put at once, but
 * its count of keys only when it is closed: after a crash a named table must be emptied. */
int id_table_open(const char *dir, const char *path, struct id_table **ret, struct err *e);
void id_table_close(struct id_table *t); /* NULL is fine */

int id_table_note_get(struct id_table *t, uint8_t ret[static ID_TABLE_NOTE], struct err *e);
int id_table_note_set(struct id_table *t, const uint8_t note[static ID_TABLE_NOTE], struct err *e);

/* 1: found; 0: not; or an error. */
int id_table_get(struct id_table *t, const uint8_t key[static ID_TABLE_KEY],
                 uint8_t ret[static ID_TABLE_VALUE], struct err *e);

/* Puts or replaces. When it must grow, what `live` (NULL: all) says no to is left out. */
typedef bool id_table_live_fn(const void *arg, const uint8_t value[static ID_TABLE_VALUE]);
int id_table_put(struct id_table *t, const uint8_t key[static ID_TABLE_KEY],
                 const uint8_t value[static ID_TABLE_VALUE], id_table_live_fn *live,
                 const void *arg, struct err *e);

/* Makes room for about that many keys in a table that is empty, which spares growing step by step;
 * of one that is not, nothing is changed. */
int id_table_expect(struct id_table *t, uint64_t keys, struct err *e);

int id_table_empty(struct id_table *t, struct err *e); /* the note too becomes zeros */

#endif
