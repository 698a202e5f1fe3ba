/* Any text as a cron expression, a duration and a size: what is accepted must make sense. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"
#include "conf/schedule.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[256];
    if (size >= sizeof text)
        return 0;
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';

    int64_t seconds = 0;
    uint64_t bytes;
    if (conf_parse_duration(text, &seconds, NULL) == 0 && seconds < 0)
        abort();
    conf_parse_size(text, &bytes, NULL);

    struct schedule s;
    if (schedule_parse(text, &s, NULL))
        return 0;
    const int64_t from = 1790000000;
    int64_t run = schedule_next(&s, from);
    int64_t then = schedule_next(&s, run);
    int64_t gap = schedule_longest_gap(&s, from);
    if (run <= from || then <= run || gap < then - run)
        abort();
    return 0;
}
