#include "syncd/clock_doubt.h"

#include <stddef.h>
#include <sys/timex.h>
#include <unistd.h>

#include "syncd/base/clock.h"
#include "syncd/base/mem.h"

#define AHEAD_US (600 * US_PER_S) /* clocks that are kept are not further apart */

/* systemd-timesyncd leaves a mark once it has set the clock. Others are only known to be there, and
 * then the kernel has to tell: chrony, ntpsec, ntpd. */
#define TIMESYNC "/run/systemd/timesync"
static const char *const keepers[] = {"/run/chrony", "/run/ntpsec", "/run/ntpd.pid"};

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* Where the unit does not let us ask, it is not known to be unset. */
static bool kernel_says_unset(void)
{
    struct timex t = {0};
    return adjtimex(&t) >= 0 && (t.status & STA_UNSYNC); /* modes 0: it only looks */
}

struct clock_facts clock_facts(int64_t newest_us)
{
    struct clock_facts f = {.now_us = clock_now_us(), .newest_us = newest_us};
    if (exists(TIMESYNC)) {
        f.is_kept = true;
        f.unset = !exists(TIMESYNC "/synchronized");
        return f;
    }
    for (size_t i = 0; i < ARRAY_LEN(keepers); i++)
        f.is_kept |= exists(keepers[i]);
    f.unset = f.is_kept && kernel_says_unset();
    return f;
}

enum clock_doubt clock_doubt_judge(const struct clock_facts *f)
{
    if (f->now_us < SYNCD_BUILT_S * US_PER_S || f->newest_us - f->now_us > AHEAD_US)
        return CLOCK_BEHIND;
    return f->unset && f->is_kept ? CLOCK_UNSET : CLOCK_BELIEVED;
}

int64_t clock_doubt_until_us(enum clock_doubt doubt, int64_t begun_us)
{
    if (doubt == CLOCK_BELIEVED)
        return 0;
    return doubt == CLOCK_UNSET ? CLOCK_WAIT_US : begun_us + CLOCK_WAIT_US;
}

const char *clock_doubt_text(enum clock_doubt doubt)
{
    static const char *const texts[] = {
        [CLOCK_BELIEVED] = "the clock is set",
        [CLOCK_UNSET] = "this machine's clock is not set yet",
        [CLOCK_BEHIND] = "this machine's clock is wrong: it is earlier than times on record"};
    return texts[doubt];
}
