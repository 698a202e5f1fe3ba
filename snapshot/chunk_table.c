#include "snapshot/chunk_table.h"

#include <string.h>

#include "snapshot/id_table.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

/* The note: magic, closed (1) or in use (0), repository, snapshot, highest sequence. */
#define NOTE_CLOSED 8
#define NOTE_REPOSITORY 16
#define NOTE_SNAPSHOT 32
#define NOTE_HIGHEST 64

static const char magic[8] = "syncdck1";

struct chunk_table {
    struct id_table *ids;
    struct chunk_table_head head;
    uint64_t highest;
    const struct part_ref *listed;
    size_t listed_count;
    uint32_t run_epoch;
    uint64_t run_first_sequence;
    bool broken; /* it could not be read or written: no further use in this run */
};

static int write_note(struct chunk_table *t, bool closed, struct err *e)
{
    uint8_t note[ID_TABLE_NOTE] = {0};
    memcpy(note, magic, sizeof magic);
    note[NOTE_CLOSED] = closed;
    memcpy(note + NOTE_REPOSITORY, t->head.repository, REPO_ID_SIZE);
    memcpy(note + NOTE_SNAPSHOT, t->head.snapshot, DIGEST_SIZE);
    le64_put(note + NOTE_HIGHEST, t->highest);
    return id_table_note_set(t->ids, note, e);
}

static int read_note(struct chunk_table *t, bool *ret_known, struct err *e)
{
    uint8_t note[ID_TABLE_NOTE];
    int rc = id_table_note_get(t->ids, note, e);
    if (rc)
        return rc;
    *ret_known = memcmp(note, magic, sizeof magic) == 0 && note[NOTE_CLOSED] == 1 &&
                 memcmp(note + NOTE_REPOSITORY, t->head.repository, REPO_ID_SIZE) == 0 &&
                 memcmp(note + NOTE_SNAPSHOT, t->head.snapshot, DIGEST_SIZE) == 0;
    if (*ret_known)
        t->highest = le64_get(note + NOTE_HIGHEST);
    return 0;
}

int chunk_table_open(const char *dir, const struct chunk_table_head *of, struct chunk_table **ret,
                     bool *ret_known, struct err *e)
{
    struct chunk_table *t = mem_alloc(1, sizeof *t);
    OWN_MEM char *path = io_path(dir, "chunks");
    if (!t || !path) {
        free(t);
        return err_nomem(e);
    }
    t->head = *of;
    int rc = id_table_open(dir, path, &t->ids, e);
    if (rc == 0)
        rc = read_note(t, ret_known, e);
    if (rc == 0 && !*ret_known)
        rc = id_table_empty(t->ids, e);
    if (rc == 0)
        rc = write_note(t, false, e);
    if (rc) {
        id_table_close(t->ids);
        free(t);
        return rc;
    }
    *ret = t;
    return 0;
}

int chunk_table_keep(struct chunk_table *t, const struct chunk_table_head *head, struct err *e)
{
    int rc = 0;
    t->head = *head;
    if (!t->broken)
        rc = write_note(t, true, e);
    id_table_close(t->ids);
    free(t);
    return rc;
}

void chunk_table_close(struct chunk_table *t)
{
    if (!t)
        return;
    struct chunk_table_head same = t->head;
    (void)!chunk_table_keep(t, &same, NULL);
}

uint64_t chunk_table_highest(const struct chunk_table *t)
{
    return t->highest;
}

void chunk_table_count_on(struct chunk_table *t, const struct part_ref *listed, size_t count,
                          uint32_t run_epoch, uint64_t run_first_sequence)
{
    t->listed = listed;
    t->listed_count = count;
    t->run_epoch = run_epoch;
    t->run_first_sequence = run_first_sequence;
}

void chunk_table_expect(struct chunk_table *t, uint64_t chunks)
{
    if (!t->broken)
        t->broken = id_table_expect(t->ids, chunks, NULL) != 0;
}

/* A value: epoch, chunk index, sequence. */
static void value_of(const struct part_run *at, uint8_t ret[static ID_TABLE_VALUE])
{
    le32_put(ret, at->epoch);
    le32_put(ret + 4, at->first_chunk);
    le64_put(ret + 8, at->sequence);
}

static bool counts(const void *table, const uint8_t value[static ID_TABLE_VALUE])
{
    const struct chunk_table *t = table;
    struct part_ref key = {.epoch = le32_get(value), .sequence = le64_get(value + 8)};
    struct part_run run = {.epoch = key.epoch, .sequence = key.sequence};
    return chunk_table_is_of_run(t, &run) || part_find(t->listed, t->listed_count, &key);
}

bool chunk_table_is_of_run(const struct chunk_table *t, const struct part_run *at)
{
    return at->epoch == t->run_epoch && at->sequence >= t->run_first_sequence;
}

bool chunk_table_find(struct chunk_table *t, const uint8_t id[static CHUNK_ID_SIZE],
                      struct part_run *ret)
{
    uint8_t value[ID_TABLE_VALUE];
    int found = t->broken ? 0 : id_table_get(t->ids, id, value, NULL);
    t->broken |= found < 0;
    if (found <= 0 || !counts(t, value))
        return false;
    *ret = (struct part_run){.epoch = le32_get(value),
                             .sequence = le64_get(value + 8),
                             .first_chunk = le32_get(value + 4),
                             .count = 1};
    return true;
}

void chunk_table_add(struct chunk_table *t, const uint8_t id[static CHUNK_ID_SIZE],
                     const struct part_run *at)
{
    struct part_run known;
    if (!chunk_table_find(t, id, &known))
        chunk_table_move(t, id, at);
}

void chunk_table_move(struct chunk_table *t, const uint8_t id[static CHUNK_ID_SIZE],
                      const struct part_run *at)
{
    uint8_t value[ID_TABLE_VALUE];
    if (t->broken)
        return;
    value_of(at, value);
    t->highest = MAX(t->highest, at->sequence);
    t->broken |= id_table_put(t->ids, id, value, counts, t, NULL) != 0;
}
