/* Any text as what users and workers give by name: a time, a URL, the name of a part. */
#include <stdlib.h>
#include <string.h>

#include "snapshot/part.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "transport/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void part_name(const char *text)
{
    struct part_ref ref;
    enum part_mark mark;
    char again[PART_NAME_SIZE];
    if (!part_name_parse(text, &ref, &mark))
        return;
    part_name_format(&ref, mark, again);
    if (strcmp(text, again) != 0)
        abort(); /* two names for one part */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[2048];
    int64_t t_us;
    struct url url;
    struct err e = ERR_INIT;
    if (size >= sizeof text)
        return 0;
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    part_name(text);
    clock_parse_user(text, INT64_C(1700000000000000), &t_us);
    if (clock_parse_compact(text, &t_us)) {
        char again[CLOCK_TEXT_SIZE];
        clock_compact(t_us, again);
        if (strcmp(text, again) != 0)
            abort();
    }
    url_parse(text, &url, &e);
    return 0;
}
