/* The commands, one file each (cmd_<name>.c). Each answers its exit code (report.h); what it says
 * and its errors go into the report. Meaning and options: command_table.c. */
#ifndef SYNCD_COMMANDS_H
#define SYNCD_COMMANDS_H

struct command_args;
struct report;

int cmd_adopt(const struct command_args *args, struct report *report);
int cmd_backup(const struct command_args *args, struct report *report);
int cmd_check(const struct command_args *args, struct report *report);
int cmd_diff(const struct command_args *args, struct report *report);
int cmd_inspect(const struct command_args *args, struct report *report);
int cmd_prune(const struct command_args *args, struct report *report);
int cmd_restore(const struct command_args *args, struct report *report);
int cmd_run(const struct command_args *args, struct report *report);
int cmd_setup(const struct command_args *args, struct report *report);
int cmd_snapshots(const struct command_args *args, struct report *report);
int cmd_status(const struct command_args *args, struct report *report);
int cmd_sync(const struct command_args *args, struct report *report);
int cmd_verify(const struct command_args *args, struct report *report);

#endif
