/* Questions to the person at the terminal (/dev/tty, whatever stdin and stdout are).
 *
 * Waiting ends with ERR_CANCELLED at SIGINT or SIGTERM (signals.h); the terminal is then as it was.
 * Without a terminal nothing is asked: ERR_USAGE, which names the flag that answers. */
#ifndef SYNCD_ASK_H
#define SYNCD_ASK_H

#include <stdbool.h>

struct err;

/* Whether there is a terminal to ask at. */
bool ask_has_terminal(void);

/* Asks `question` (made safe here), to which only "y" or "yes" is a yes. 0 when `answered` (the
 * flag was given; nothing is asked) or yes; ERR_REFUSED when no; ERR_USAGE when there is nobody to
 * ask, with `flag` ("--yes", "--lead") in its hint. */
int ask_yes(const char *question, const char *flag, bool answered, struct err *e);

/* Asks for a line of text; an empty answer gives `otherwise` (NULL: asks again, up to three times,
 * then ERR_REFUSED). *ret is the caller's. */
int ask_line(const char *question, const char *otherwise, const char *flag, char **ret,
             struct err *e);

/* Asks for a password, which is not shown; at most 1023 bytes. The caller wipes and frees *ret
 * (ask_wipe). ERR_REFUSED for an empty one. */
int ask_password(const char *question, const char *flag, char **ret, struct err *e);

/* Overwrites a secret and frees it; *secret becomes NULL. */
void ask_wipe(char **secret);

#endif
