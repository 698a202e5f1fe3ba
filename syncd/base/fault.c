#include "syncd/base/fault.h"

#ifdef SYNCD_FAULTS

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum fault_kind { FAULT_NONE, FAULT_KILL, FAULT_ERRNO, FAULT_SHORT };

static struct {
    unsigned long at;
    enum fault_kind kind;
    int errnum;
} plan;
static atomic_ulong calls;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void write_count(void)
{
    const char *path = getenv("SYNCD_FAULT_COUNT");
    FILE *f = path ? fopen(path, "w") : NULL;
    if (!f)
        return;
    fprintf(f, "%lu\n", (unsigned long)calls);
    fclose(f);
}

static void read_plan(void)
{
    static const struct {
        const char *name;
        int errnum;
    } names[] = {{"EIO", EIO}, {"ENOSPC", ENOSPC}, {"EINTR", EINTR}, {"ENOMEM", ENOMEM}};
    atexit(write_count);
    const char *text = getenv("SYNCD_FAULT");
    if (!text)
        return;
    char *end;
    plan.at = strtoul(text, &end, 10);
    if (*end == ':')
        end++;
    if (strcmp(end, "kill") == 0)
        plan.kind = FAULT_KILL;
    if (strcmp(end, "short") == 0)
        plan.kind = FAULT_SHORT;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(end, names[i].name) == 0) {
            plan.kind = FAULT_ERRNO;
            plan.errnum = names[i].errnum;
        }
    }
}

/* Calls on names are not restarted by the kernel's callers: no local file system interrupts them,
 * and doing one twice is not the same as doing it once. */
static bool can_be_interrupted(const char *what)
{
    static const char *const names[] = {"unlink", "mkdir", "link", "rename", "utimens"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(what, names[i]) == 0)
            return false;
    return true;
}

int fault_point(const char *what, const char *path)
{
    (void)path;
    pthread_once(&once, read_plan);
    unsigned long n = atomic_fetch_add(&calls, 1) + 1;
    if (n != plan.at)
        return 0;
    if (plan.kind == FAULT_KILL)
        kill(getpid(), SIGKILL);
    if (plan.kind != FAULT_ERRNO || (plan.errnum == EINTR && !can_be_interrupted(what)))
        return 0;
    errno = plan.errnum;
    return -1;
}

size_t fault_short(size_t n)
{
    return plan.kind == FAULT_SHORT && calls >= plan.at && n > 1 ? 1 : n;
}

#endif
