/* The manual pages and the bash completion, made from the tables of commands (command.h) and keys
 * (conf/keys.h): what --help says, the manual says too. */
#ifndef SYNCD_MANUAL_H
#define SYNCD_MANUAL_H

struct buf;
struct command;

/* A page from its template (mdoc): the lines @COMMANDS@, @OPTIONS@ and @KEYS <section>@, where the
 * section is "global", "worker", "source" or "mqtt", become lists. */
void manual_page(const char *template_text, const struct command *table, struct buf *ret);

/* A script for bash. */
void manual_completion(const struct command *table, struct buf *ret);

#endif
