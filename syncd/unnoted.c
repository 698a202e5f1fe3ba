#include "syncd/unnoted.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"

#define FILE_NAME "unnoted"
#define PARTS_MAX 65536u /* then the next run may ship all of it again */
#define NOTE_AFTER_US (60 * US_PER_S)

struct unnoted {
    pthread_mutex_t lock;
    struct catalog *catalog;
    char *path, *source;
    struct catalog_part *parts;
    size_t count, cap;
    int64_t waiting_since_us; /* the first of them */
    bool told;
};

static bool is_same(const struct catalog_part *a, const struct catalog_part *b)
{
    return a->epoch == b->epoch && a->sequence == b->sequence &&
           memcmp(a->id, b->id, CATALOG_ID) == 0;
}

/* The file is this machine's own and gone with its memory: the structs as they are. */
static void read_file(struct unnoted *u)
{
    OWN_BUF struct buf b = BUF_INIT;
    struct err ignored = ERR_INIT;
    if (io_read_file(u->path, PARTS_MAX * sizeof *u->parts, &b, &ignored))
        return;
    size_t count = b.len / sizeof *u->parts;
    if (!count || mem_grow(&u->parts, &u->cap, count, sizeof *u->parts))
        return;
    memcpy(u->parts, b.data, count * sizeof *u->parts);
    u->count = count;
}

/* What the catalog does not take stays, and with it the file. */
static int hand_over(struct unnoted *u, struct err *e)
{
    int rc = u->count ? catalog_parts_add(u->catalog, u->source, u->parts, u->count, e) : 0;
    if (rc == 0 && u->count) {
        u->count = 0;
        io_unlink(u->path);
    }
    return rc;
}

struct unnoted *unnoted_open(const char *dir, struct catalog *c, const char *source)
{
    struct unnoted *u = mem_alloc(1, sizeof *u);
    if (!u)
        return NULL;
    pthread_mutex_init(&u->lock, NULL);
    u->catalog = c;
    u->path = io_path(dir, FILE_NAME);
    u->source = strdup(source);
    if (!u->path || !u->source) {
        unnoted_close(u);
        return NULL;
    }
    struct err ignored = ERR_INIT;
    read_file(u);
    hand_over(u, &ignored);
    return u;
}

void unnoted_close(struct unnoted *u)
{
    if (!u)
        return;
    struct err ignored = ERR_INIT;
    if (u->path && u->source)
        hand_over(u, &ignored);
    pthread_mutex_destroy(&u->lock);
    free(u->path);
    free(u->source);
    free(u->parts);
    free(u);
}

/* Where even that fails, this run still knows the part, and the next may ship all of it again. */
static void append(struct unnoted *u, const struct catalog_part *part)
{
    struct stat st;
    OWN_FD int fd = io_open(u->path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600);
    if (fd >= 0 && u->count < PARTS_MAX && fstat(fd, &st) == 0 &&
        io_write_all(fd, part, sizeof *part) < 0)
        (void)!io_ftruncate(fd, (uint64_t)st.st_size); /* what follows half a part is read wrong */
    if (mem_grow(&u->parts, &u->cap, u->count + 1, sizeof *u->parts) == 0)
        u->parts[u->count++] = *part;
}

static bool has(const struct unnoted *u, const struct catalog_part *part)
{
    bool found = false;
    for (size_t i = u->count; !found && i > 0; i--)
        found = is_same(&u->parts[i - 1], part);
    return found;
}

int unnoted_add(struct unnoted *u, const struct catalog_part *part, struct err *e)
{
    int rc = 0;
    pthread_mutex_lock(&u->lock);
    int64_t now_us = clock_mono_us();
    if (u->count == 0)
        u->waiting_since_us = now_us;
    /* Or the other worker's sender has been here. */
    if (!has(u, part) &&
        !catalog_part_is_ours(u->catalog, u->source, part->epoch, part->sequence, part->id))
        append(u, part);
    if (part->is_snapshot || now_us - u->waiting_since_us >= NOTE_AFTER_US)
        rc = hand_over(u, e);
    if (rc) {
        rc = u->told ? 0 : rc;
        u->told = true;
    }
    pthread_mutex_unlock(&u->lock);
    return rc;
}

bool unnoted_has(struct unnoted *u, const struct catalog_part *part)
{
    pthread_mutex_lock(&u->lock);
    bool found = has(u, part);
    pthread_mutex_unlock(&u->lock);
    return found;
}
