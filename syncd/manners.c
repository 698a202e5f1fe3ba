#include "syncd/manners.h"

#include <linux/ioprio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define QUIET_NICE 10

void manners_be_quiet(void)
{
    if (getpriority(PRIO_PROCESS, 0) < QUIET_NICE)
        setpriority(PRIO_PROCESS, 0, QUIET_NICE);
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
}
