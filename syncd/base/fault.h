/* Fault points, compiled in only with the build option SYNCD_FAULTS; otherwise nothing.
 *
 * Environment of a build that has them:
 *   SYNCD_FAULT=N:kill         the Nth call through io.h kills the process just before it
 *   SYNCD_FAULT=N:ERRNO        the Nth call fails with EIO, ENOSPC, EINTR or ENOMEM
 *   SYNCD_FAULT=N:short        from the Nth call on, transfers move one byte at a time
 *   SYNCD_FAULT_COUNT=FILE     at exit, the number of calls made is written to FILE */
#ifndef SYNCD_BASE_FAULT_H
#define SYNCD_BASE_FAULT_H

#include <stddef.h>

#ifdef SYNCD_FAULTS
int fault_point(const char *what, const char *path); /* -1 with errno set: pretend to have failed */
size_t fault_short(size_t n);
#else
static inline int fault_point(const char *what, const char *path)
{
    (void)what;
    (void)path;
    return 0;
}
static inline size_t fault_short(size_t n)
{
    return n;
}
#endif

#endif
