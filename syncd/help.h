/* The text of --help, made from the tables of command.h, for 80 columns. */
#ifndef SYNCD_HELP_H
#define SYNCD_HELP_H

struct buf;
struct command;

#define HELP_COLUMNS 80

void help_overview(const struct command *table, struct buf *ret);
void help_command(const struct command *command, struct buf *ret);

#endif
