#include "snapshot/steady.h"

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define KEPT_BYTES 16 /* from_us, boot_us */

static bool read_kept(const char *path, struct steady *ret)
{
    OWN_BUF struct buf kept = {0};
    struct err ignored = ERR_INIT;
    if (io_read_file(path, KEPT_BYTES, &kept, &ignored) || kept.len != KEPT_BYTES)
        return false;
    ret->from_us = (int64_t)le64_get(kept.data);
    ret->boot_us = (int64_t)le64_get(kept.data + 8);
    return ret->from_us > 0 && ret->boot_us >= 0 && ret->boot_us <= clock_boot_us();
}

void steady_open(const char *dir, struct steady *ret)
{
    OWN_MEM char *path = dir ? io_path(dir, "steady") : NULL;
    uint8_t kept[KEPT_BYTES];
    struct err ignored = ERR_INIT;
    if (path && read_kept(path, ret))
        return;
    *ret = (struct steady){.from_us = clock_now_us(), .boot_us = clock_boot_us()};
    le64_put(kept, (uint64_t)ret->from_us);
    le64_put(kept + 8, (uint64_t)ret->boot_us);
    if (path)
        io_replace_file(path, kept, sizeof kept, 0600, &ignored);
}

int64_t steady_now_us(const struct steady *s)
{
    return s->from_us + clock_boot_us() - s->boot_us;
}

int64_t steady_passed_us(const struct steady *s, int64_t since_us)
{
    return steady_now_us(s) - MAX(since_us, s->from_us);
}
