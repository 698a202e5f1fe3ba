/* Looks values up in another system's config: `[section]` and `key = value` lines, as INI files,
 * flat TOML and environment files have them. Lenient: what it does not understand is no match. */
#ifndef SYNCD_CONF_INI_H
#define SYNCD_CONF_INI_H

struct err;

/* Calls `one` for each key of the section, in the file's order; "" is what stands before any
 * section. Names and values come without blanks around them, values without their quotes and
 * without a comment after a blank; TOML's escapes stay as they are. Another answer of `one` than 0
 * ends it, and is the answer. */
typedef int ini_one_fn(void *arg, const char *key, const char *value, struct err *e);
int ini_each(const char *text, const char *section, ini_one_fn *one, void *arg, struct err *e);

/* The value of one key, "" when it is empty; *ret is the caller's, NULL when the key is not there.
 * The last one counts. ERR_NOMEM. */
int ini_get(const char *text, const char *section, const char *key, char **ret, struct err *e);

#endif
