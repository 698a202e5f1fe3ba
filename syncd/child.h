/* Running another program to its end: argv, never a shell. */
#ifndef SYNCD_CHILD_H
#define SYNCD_CHILD_H

#include <stddef.h>

struct buf;
struct err;

#define CHILD_OUTPUT_MAX 65536

/* Runs argv[0] (looked for in PATH) with /dev/null as its stdin and appends what it says on stdout
 * and stderr to *output. ERR_NOT_FOUND when there is no such program; ERR_IO when it ends with
 * another status than 0, with the last line that it said; ERR_LIMIT when it says more than
 * CHILD_OUTPUT_MAX bytes; ERR_TIMEOUT after timeout_ms and ERR_CANCELLED after a signal, when it is
 * killed. */
int child_run(const char *const argv[], int timeout_ms, struct buf *output, struct err *e);

#endif
