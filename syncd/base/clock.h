/* Time: the wall clock as microseconds since 1970 UTC, the monotonic clock for deadlines, and the
 * two text forms that syncd writes. */
#ifndef SYNCD_BASE_CLOCK_H
#define SYNCD_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define US_PER_S INT64_C(1000000)
#define US_PER_MS INT64_C(1000)

/* Wall clock, microseconds since the epoch. A test may move it: SYNCD_TEST_CLOCK_OFFSET_S in the
 * environment (seconds, signed), read once, is added. */
int64_t clock_now_us(void);

/* Monotonic, never moved; for deadlines and durations. */
int64_t clock_mono_us(void);

/* How long the machine has been up, asleep or not. A test may move it by SYNCD_TEST_BOOT_OFFSET_S.
 */
int64_t clock_boot_us(void);

#define CLOCK_TEXT_SIZE 40

/* "2026-11-21T04:53:00Z" (RFC 3339, UTC, whole seconds, rounded down). */
void clock_rfc3339(int64_t t_us, char ret[static CLOCK_TEXT_SIZE]);

/* "20261121T045300Z", the form used in names of parts. */
void clock_compact(int64_t t_us, char ret[static CLOCK_TEXT_SIZE]);

/* Reads the compact form; false when it is not exactly that or no real time. */
bool clock_parse_compact(const char *s, int64_t *ret_t_us);

/* "2026-11-21 05:53:00 CET" in this machine's zone, for people. */
void clock_local(int64_t t_us, char ret[static CLOCK_TEXT_SIZE]);

/* Reads a user's TIME: `YYYY-MM-DD[ HH:MM[:SS]][Z|+hh:mm]` (a T may stand for the space; no zone:
 * this machine's) or `N minutes|hours|days|weeks ago`, counted back from now_us. False when it is
 * neither or no real date. A date alone means the end of that day's first second, 00:00:00. */
bool clock_parse_user(const char *s, int64_t now_us, int64_t *ret_t_us);

#endif
