/* How values look to a person: sizes, times, tables, and text that is safe to print.
 *
 * Sizes are counted in 1024s and say so ("1.2 GiB"). */
#ifndef SYNCD_SHOW_H
#define SYNCD_SHOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;

#define SHOW_SIZE 40

/* "0 B", "999 B", "1.2 KiB", "525 MiB", "7.0 GiB": three digits at most after the first KiB. */
void show_size(uint64_t bytes, char ret[static SHOW_SIZE]);

/* "0.2 s", "14 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"; a negative one is "0 s". */
void show_duration(int64_t duration_us, char ret[static SHOW_SIZE]);

/* "now" (within 5 s either way), "3 minutes ago", "2 days ago", "in 5 minutes"; "never" when t_us
 * is <= 0. Rounded down. */
void show_age(int64_t t_us, int64_t now_us, char ret[static SHOW_SIZE]);

/* What makes a plural: "s", or "" after 1. */
const char *show_plural(uint64_t n);

/* The first 12 hex digits of an id. */
void show_id(const uint8_t id[32], char ret[static SHOW_SIZE]);

/* Appends s to `ret` fit for a terminal: what is not UTF-8, control characters (C0, DEL, C1), line
 * separators and marks that turn the direction of text become \xHH, byte by byte. */
void show_safe(const char *s, struct buf *ret);

/* The same of any n bytes, a NUL too (as \x00). */
void show_safe_bytes(const void *p, size_t n, struct buf *ret);

/* Two lower-case hex digits a byte. */
void show_hex(const void *p, size_t n, struct buf *ret);

/* show_safe into a buffer of `size` bytes, cut at a character's end when it is too small. Returns
 * ret, for use as an argument. */
const char *show_safe_into(const char *s, char *ret, size_t size);

/* The length in bytes of the UTF-8 character at s (1 to 4, its code point in *ret), 0 when the
 * bytes there are no well-formed UTF-8 (overlong, surrogate, past U+10FFFF, cut). */
size_t show_utf8(const char *s, uint32_t *ret);

/* How many columns the UTF-8 text takes on a terminal. */
size_t show_width(const char *s);

/* A table with aligned columns, two spaces apart. Cells are made safe here. */
struct table;

/* `titles`: NULL-terminated; a title that begins with '>' (not shown) is of a column that aligns
 * right. NULL when out of memory. */
struct table *table_new(const char *const *titles);
void table_add(struct table *t, const char *cell); /* fills rows from left to right; NULL: "-" */
/* Appends the table, a line per row, no trailing blanks. Nothing but the titles when no row was
 * added. */
void table_print(const struct table *t, struct buf *ret);
void table_free(struct table *t);

#endif
