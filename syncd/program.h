/* The frame of the program: from argv to the exit code. */
#ifndef SYNCD_PROGRAM_H
#define SYNCD_PROGRAM_H

struct command;

/* Reads the command line, sets up log, signals and report, answers --help and --version, runs the
 * command and prints the JSON object; returns what main() returns. A command that was stopped by
 * SIGINT or SIGTERM exits with 130 or 143. */
int program_run(const struct command *table, int argc, char *const argv[]);

#endif
