#include "snapshot/id_table.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "snapshot/spool.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define HEAD 4096u /* magic, capacity, count, then the note */
#define NOTE_AT 32u
#define SLOT (ID_TABLE_KEY + ID_TABLE_VALUE)
#define CAPACITY_FIRST 1024u
#define CAPACITY_EXPECTED_MAX (UINT64_C(1) << 24) /* the file is sparse, but a guess is a guess */
#define WINDOW 16u                                /* slots read at once */
#define SWEEP 1024u                               /* while growing */

static const char magic[8] = "syncdit1";

struct id_table {
    int fd;
    char *dir, *path; /* path NULL: temporary */
    uint64_t capacity, count;
    bool head_is_old; /* in the file */
    /* A bit for each slot that holds something, of a table that was empty when it was opened: most
     * new keys then need no look into the file. NULL: not known. */
    uint8_t *taken;
    /* What was looked up last: it is often put next. */
    bool has_last;
    uint8_t last_key[ID_TABLE_KEY], last_value[ID_TABLE_VALUE];
    uint64_t last_slot;
};

static int cannot_use(const struct id_table *t, const char *doing, struct err *e)
{
    const char *where = t->path ? t->path : t->dir;
    return err_sys(e, errno ? errno : EIO, where, "cannot %s a table in %s", doing, where);
}

static int write_head(struct id_table *t, struct err *e)
{
    uint8_t head[24];
    t->head_is_old = false;
    memcpy(head, magic, sizeof magic);
    le64_put(head + 8, t->capacity);
    le64_put(head + 16, t->count);
    return io_pwrite_all(t->fd, head, sizeof head, 0) < 0 ? cannot_use(t, "write", e) : 0;
}

/* For a table without keys. Where there is no memory for it, it does without. */
static void begin_taken(struct id_table *t)
{
    free(t->taken);
    t->taken = t->capacity <= CAPACITY_EXPECTED_MAX ? calloc(1, (size_t)(t->capacity / 8)) : NULL;
}

static bool is_taken(const struct id_table *t, uint64_t slot)
{
    return !t->taken || t->taken[slot / 8] >> (slot % 8) & 1;
}

int id_table_empty(struct id_table *t, struct err *e)
{
    t->capacity = CAPACITY_FIRST;
    t->count = 0;
    t->has_last = false;
    begin_taken(t);
    if (io_ftruncate(t->fd, 0) < 0 || io_ftruncate(t->fd, HEAD + t->capacity * SLOT) < 0)
        return cannot_use(t, "write", e);
    return write_head(t, e);
}

int id_table_expect(struct id_table *t, uint64_t keys, struct err *e)
{
    uint64_t capacity = t->capacity;
    while (capacity < keys && capacity < CAPACITY_EXPECTED_MAX)
        capacity *= 2;
    if (t->count || capacity == t->capacity)
        return 0;
    t->capacity = capacity;
    t->has_last = false;
    begin_taken(t);
    if (io_ftruncate(t->fd, HEAD + capacity * SLOT) < 0)
        return cannot_use(t, "write", e);
    return write_head(t, e);
}

static bool read_head(struct id_table *t)
{
    uint8_t head[24];
    struct stat st;
    if (fstat(t->fd, &st) < 0 || io_pread_full(t->fd, head, sizeof head, 0) != sizeof head)
        return false;
    t->capacity = le64_get(head + 8);
    t->count = le64_get(head + 16);
    return memcmp(head, magic, sizeof magic) == 0 && t->capacity >= CAPACITY_FIRST &&
           (t->capacity & (t->capacity - 1)) == 0 && t->capacity < UINT64_C(1) << 40 &&
           t->count < t->capacity && (uint64_t)st.st_size == HEAD + t->capacity * SLOT;
}

int id_table_open(const char *dir, const char *path, struct id_table **ret, struct err *e)
{
    struct id_table *t = mem_alloc(1, sizeof *t);
    int rc = 0;
    if (!t)
        return err_nomem(e);
    t->fd = -1;
    t->dir = strdup(dir);
    t->path = path ? strdup(path) : NULL;
    if (!t->dir || (path && !t->path))
        rc = err_nomem(e);
    if (rc == 0 && !path)
        rc = spool_file(dir, &t->fd, e);
    if (rc == 0 && path) {
        t->fd = io_open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
        rc = t->fd < 0 ? cannot_use(t, "open", e) : 0;
    }
    if (rc == 0 && !read_head(t))
        rc = id_table_empty(t, e);
    if (rc) {
        id_table_close(t);
        return rc;
    }
    *ret = t;
    return 0;
}

void id_table_close(struct id_table *t)
{
    if (!t)
        return;
    if (t->head_is_old)
        (void)!write_head(t, NULL);
    mem_closep(&t->fd);
    free(t->taken);
    free(t->dir);
    free(t->path);
    free(t);
}

int id_table_note_get(struct id_table *t, uint8_t ret[static ID_TABLE_NOTE], struct err *e)
{
    return io_pread_full(t->fd, ret, ID_TABLE_NOTE, NOTE_AT) == ID_TABLE_NOTE
               ? 0
               : cannot_use(t, "read", e);
}

int id_table_note_set(struct id_table *t, const uint8_t note[static ID_TABLE_NOTE], struct err *e)
{
    return io_pwrite_all(t->fd, note, ID_TABLE_NOTE, NOTE_AT) < 0 ? cannot_use(t, "write", e) : 0;
}

/* Keys may be digests or plain numbers, so they are mixed (the finisher of SplitMix64). */
static uint64_t hash_of(const uint8_t *key)
{
    uint64_t h = le64_get(key) ^ (le64_get(key + 8) * UINT64_C(0x9e3779b97f4a7c15));
    h = (h ^ (h >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    h = (h ^ (h >> 27)) * UINT64_C(0x94d049bb133111eb);
    return h ^ (h >> 31);
}

static bool is_zero(const uint8_t *value)
{
    static const uint8_t zeros[ID_TABLE_VALUE];
    return memcmp(value, zeros, ID_TABLE_VALUE) == 0;
}

/* The slot that holds the key, or the empty one where it belongs. */
static int find_slot(struct id_table *t, const uint8_t *key, uint64_t *ret_slot,
                     uint8_t ret_value[static ID_TABLE_VALUE], struct err *e)
{
    uint8_t window[WINDOW * SLOT];
    uint64_t at = hash_of(key) & (t->capacity - 1);
    if (!is_taken(t, at)) {
        *ret_slot = at;
        memset(ret_value, 0, ID_TABLE_VALUE);
        return 0;
    }
    for (;;) {
        size_t n = (size_t)MIN((uint64_t)WINDOW, t->capacity - at);
        errno = 0;
        if (io_pread_full(t->fd, window, n * SLOT, HEAD + at * SLOT) != (ssize_t)(n * SLOT))
            return cannot_use(t, "read", e);
        for (size_t i = 0; i < n; i++) {
            const uint8_t *slot = window + i * SLOT;
            if (!is_zero(slot + ID_TABLE_KEY) && memcmp(slot, key, ID_TABLE_KEY) != 0)
                continue;
            *ret_slot = at + i;
            memcpy(ret_value, slot + ID_TABLE_KEY, ID_TABLE_VALUE);
            return 0;
        }
        at = (at + n) & (t->capacity - 1);
    }
}

static int look_up(struct id_table *t, const uint8_t *key, struct err *e)
{
    if (t->has_last && memcmp(t->last_key, key, ID_TABLE_KEY) == 0)
        return 0;
    t->has_last = false;
    int rc = find_slot(t, key, &t->last_slot, t->last_value, e);
    if (rc)
        return rc;
    memcpy(t->last_key, key, ID_TABLE_KEY);
    t->has_last = true;
    return 0;
}

int id_table_get(struct id_table *t, const uint8_t key[static ID_TABLE_KEY],
                 uint8_t ret[static ID_TABLE_VALUE], struct err *e)
{
    int rc = look_up(t, key, e);
    if (rc)
        return rc;
    memcpy(ret, t->last_value, ID_TABLE_VALUE);
    return !is_zero(ret);
}

static int write_slot(struct id_table *t, uint64_t slot, const uint8_t *key, const uint8_t *value,
                      struct err *e)
{
    uint8_t raw[SLOT];
    memcpy(raw, key, ID_TABLE_KEY);
    memcpy(raw + ID_TABLE_KEY, value, ID_TABLE_VALUE);
    if (t->taken)
        t->taken[slot / 8] |= (uint8_t)(1 << slot % 8);
    return io_pwrite_all(t->fd, raw, sizeof raw, HEAD + slot * SLOT) < 0 ? cannot_use(t, "write", e)
                                                                         : 0;
}

static int move_slots(struct id_table *from, struct id_table *to, id_table_live_fn *live,
                      const void *arg, struct err *e)
{
    OWN_MEM uint8_t *window = malloc(SWEEP * SLOT);
    int rc = window ? 0 : err_nomem(e);
    for (uint64_t at = 0; rc == 0 && at < from->capacity; at += SWEEP) {
        if (io_pread_full(from->fd, window, SWEEP * SLOT, HEAD + at * SLOT) != SWEEP * SLOT)
            return cannot_use(from, "read", e);
        for (size_t i = 0; rc == 0 && i < SWEEP; i++) {
            const uint8_t *slot = window + i * SLOT;
            uint8_t ignored[ID_TABLE_VALUE];
            uint64_t place;
            if (is_zero(slot + ID_TABLE_KEY) || (live && !live(arg, slot + ID_TABLE_KEY)))
                continue;
            rc = find_slot(to, slot, &place, ignored, e);
            if (rc == 0)
                rc = write_slot(to, place, slot, slot + ID_TABLE_KEY, e);
            to->count += rc == 0;
        }
    }
    return rc;
}

/* Into a new file of twice the size, which then takes the old one's place. */
static int grow(struct id_table *t, id_table_live_fn *live, const void *arg, struct err *e)
{
    struct id_table to = {.fd = -1, .dir = t->dir, .capacity = 2 * t->capacity};
    OWN_MEM char *path = NULL;
    uint8_t note[ID_TABLE_NOTE];
    if (t->path && asprintf(&path, "%s.new", t->path) < 0)
        return err_nomem(e);
    int rc = 0;
    to.path = path;
    if (path) {
        to.fd = io_open(path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
        rc = to.fd < 0 ? cannot_use(&to, "open", e) : 0;
    } else {
        rc = spool_file(t->dir, &to.fd, e);
    }
    if (t->taken)
        begin_taken(&to);
    if (rc == 0 && io_ftruncate(to.fd, HEAD + to.capacity * SLOT) < 0)
        rc = cannot_use(&to, "write", e);
    if (rc == 0)
        rc = move_slots(t, &to, live, arg, e);
    if (rc == 0)
        rc = id_table_note_get(t, note, e);
    if (rc == 0)
        rc = id_table_note_set(&to, note, e);
    if (rc == 0)
        rc = write_head(&to, e);
    if (rc == 0 && path && io_rename(path, t->path) < 0)
        rc = cannot_use(t, "replace", e);
    if (rc) {
        mem_closep(&to.fd);
        free(to.taken);
        if (path)
            io_unlink(path);
        return rc;
    }
    mem_closep(&t->fd);
    free(t->taken);
    t->taken = to.taken;
    t->fd = to.fd;
    t->capacity = to.capacity;
    t->count = to.count;
    t->has_last = false;
    return 0;
}

int id_table_put(struct id_table *t, const uint8_t key[static ID_TABLE_KEY],
                 const uint8_t value[static ID_TABLE_VALUE], id_table_live_fn *live,
                 const void *arg, struct err *e)
{
    int rc = t->count >= t->capacity / 4 * 3 ? grow(t, live, arg, e) : 0;
    if (rc == 0)
        rc = look_up(t, key, e);
    if (rc == 0)
        rc = write_slot(t, t->last_slot, key, value, e);
    if (rc == 0 && is_zero(t->last_value)) {
        t->count++;
        t->head_is_old = true;
    }
    memcpy(t->last_value, value, ID_TABLE_VALUE);
    t->has_last &= rc == 0;
    return rc;
}
