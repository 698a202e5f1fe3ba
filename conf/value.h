/* Checks one value and puts it into its field. */
#ifndef SYNCD_CONF_VALUE_H
#define SYNCD_CONF_VALUE_H

#include <stddef.h>

#include "conf/keys.h"

struct err;

/* A string value of a key whose shape is CONF_STRING. `base` is the struct of the key's section.
 * The text is copied. ERR_CONFIG with "found ..., expected ...", ERR_NOMEM. */
int value_set_string(const struct conf_key *key, void *base, const char *text, struct err *e);

/* A list (also a single string of CONF_STRING_OR_LIST). The strings are copied. */
int value_set_list(const struct conf_key *key, void *base, const char *const *items, size_t count,
                   struct err *e);

/* An integer, or a bool as 0 or 1. */
int value_set_number(const struct conf_key *key, void *base, long number, struct err *e);

/* Frees the strings of all fields of that section, and makes them NULL. */
void value_free_section(enum conf_section section, void *base);

#endif
