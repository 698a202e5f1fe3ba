/* Programs that syncd starts with ends of its own pipes: argv, never a shell. What a program says
 * on stderr goes to a file in memory, so that nobody has to read it while bytes flow. */
#ifndef SYNCD_BASE_PROCESS_H
#define SYNCD_BASE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct err;

struct process {
    pid_t pid;   /* 0: none, or waited for */
    int said_fd; /* what it said on stderr */
    char name[64];
};
#define PROCESS_NONE ((struct process){.said_fd = -1})

/* Starts argv[0] (looked for in PATH). in_fd and out_fd become its stdin and stdout (-1:
 * /dev/null) and stay the caller's, who closes its copy so that ends of file are seen. envp NULL:
 * this process's own. Signals are as a program expects them. ERR_NOT_FOUND when there is no such
 * program. */
int process_start(const char *const argv[], char *const envp[], int in_fd, int out_fd,
                  struct process *ret, struct err *e);

/* Waits for its end. 0 when its status is 0; else ERR_IO with what it said: the first line that
 * says "error:", else the last one. */
int process_wait(struct process *p, struct err *e);

/* Ends it if it still runs, and frees what it holds. */
void process_end(struct process *p);

/* Whether it said this so far. */
bool process_said(const struct process *p, const char *text);

#define OWN_PROCESS __attribute__((cleanup(process_end)))

/* A pipe whose ends no other program inherits. */
int process_pipe(int *ret_read, int *ret_write, struct err *e);

#endif
