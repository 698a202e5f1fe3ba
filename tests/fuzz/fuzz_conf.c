/* Any bytes as a config file: an error or a conf that can be freed, never a crash or a leak. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "conf/conf.h"
#include "syncd/base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf *c = NULL;
    struct conf_errors more;
    struct err e = ERR_INIT;
    int rc = conf_parse("fuzz.conf", size ? (const char *)data : "", size, &c, &more, &e);
    if ((rc == 0) != (c != NULL) || (rc != 0 && e.message[0] == '\0'))
        abort();
    conf_free(c);
    return 0;
}
