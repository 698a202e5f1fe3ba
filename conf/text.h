/* What a string in the config must look like to be a path, a URL and so on. Each function: 0, or
 * ERR_CONFIG with "found ..., expected ..."; a text that may hold a secret is not repeated. */
#ifndef SYNCD_CONF_TEXT_H
#define SYNCD_CONF_TEXT_H

struct err;

int text_check_name(const char *s, struct err *e);
int text_check_path(const char *s, struct err *e); /* absolute, without . and .. in it */
int text_check_url(const char *s, struct err *e);
int text_check_conninfo(const char *s, struct err *e);
int text_check_preset(const char *s, struct err *e);
int text_check_log_level(const char *s, struct err *e);
int text_check_topic(const char *s, struct err *e);
int text_check_word(const char *s, struct err *e);   /* no blanks */
int text_check_schema(const char *s, struct err *e); /* fit to be a file name */

/* Takes doubled and trailing slashes out of a path, in place; "/" stays. */
void text_tidy_path(char *s);

#endif
