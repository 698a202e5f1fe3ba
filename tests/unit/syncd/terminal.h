/* A child on a terminal of its own, watched from outside, for tests. */
#ifndef TESTS_UNIT_SYNCD_TERMINAL_H
#define TESTS_UNIT_SYNCD_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct terminal {
    pid_t pid;
    int fd; /* the side of the person */
    size_t len;
    char seen[65536]; /* all that was shown so far, NUL-terminated */
};

/* Runs `body` in a child that has a terminal of that width (0: no terminal at all, and its stderr
 * is what is seen); what it answers is its exit code. */
void terminal_start(struct terminal *t, unsigned short columns, int (*body)(void));

/* Waits until `text` was shown, at most 10 s; fails the test with what was seen instead. Returns
 * the place in seen behind it, to go on from. */
size_t terminal_expect(struct terminal *t, size_t from, const char *text);

void terminal_type(struct terminal *t, const char *text);

/* Whether what is typed is shown. */
bool terminal_echoes(const struct terminal *t);

/* Waits for the end, at most 10 s; its exit code, or 128 + the signal. */
int terminal_end(struct terminal *t);

#endif
