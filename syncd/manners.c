#include "syncd/manners.h"

#include <fcntl.h>
#include <linux/ioprio.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define QUIET_NICE 10
#define AUTOGROUP "/proc/self/autogroup"

void manners_be_quiet(void)
{
    if (getpriority(PRIO_PROCESS, 0) < QUIET_NICE)
        setpriority(PRIO_PROCESS, 0, QUIET_NICE);
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
}

void manners_quiet_session(void)
{
    char text[16];
    int niceness = getpriority(PRIO_PROCESS, 0);
    if (niceness <= 0 || getsid(0) != getpid())
        return;
    OWN_FD int fd = io_open(AUTOGROUP, O_WRONLY, 0);
    int n = snprintf(text, sizeof text, "%d", niceness);
    if (fd >= 0)
        io_write_all(fd, text, (size_t)n);
}
