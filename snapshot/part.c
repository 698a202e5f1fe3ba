#include "snapshot/part.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

static const char header_magic[8] = "syncdprt";
static const char *const marks[] = {"snap", "pack", "del", "bad"};

int part_order(const struct part_ref *a, const struct part_ref *b)
{
    if (a->epoch != b->epoch)
        return a->epoch < b->epoch ? -1 : 1;
    if (a->sequence != b->sequence)
        return a->sequence < b->sequence ? -1 : 1;
    return 0;
}

const struct part_ref *part_find(const struct part_ref *refs, size_t count,
                                 const struct part_ref *key)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = part_order(&refs[middle], key);
        if (order == 0)
            return &refs[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

bool part_same(const struct part_ref *a, const struct part_ref *b)
{
    return part_order(a, b) == 0 && a->time_s == b->time_s &&
           memcmp(a->id, b->id, DIGEST_SIZE) == 0;
}

void part_name_format(const struct part_ref *ref, enum part_mark mark,
                      char ret[static PART_NAME_SIZE])
{
    char time[CLOCK_TEXT_SIZE], id[2 * DIGEST_SIZE + 1];
    clock_compact(ref->time_s * US_PER_S, time);
    hex_encode(ref->id, DIGEST_SIZE, id);
    snprintf(ret, PART_NAME_SIZE, "%04" PRIu32 "-%08" PRIu64 "-%s-%s.%s", ref->epoch, ref->sequence,
             time, id, marks[mark]);
}

/* Decimal digits up to a '-', of at least `width` and no more zeros than padding needs. */
static bool take_number(const char **s, size_t width, uint64_t max, uint64_t *ret)
{
    const char *start = *s;
    uint64_t v = 0;
    for (; **s >= '0' && **s <= '9'; (*s)++) {
        uint64_t digit = (uint64_t)(**s - '0');
        if (v > (max - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    size_t len = (size_t)(*s - start);
    if (len < width || (len > width && *start == '0') || **s != '-')
        return false;
    (*s)++;
    *ret = v;
    return true;
}

bool part_name_parse(const char *name, struct part_ref *ret, enum part_mark *ret_mark)
{
    struct part_ref ref = {0};
    uint64_t epoch;
    char time[17], id[2 * DIGEST_SIZE + 1];
    int64_t time_us;
    if (!take_number(&name, 4, UINT32_MAX, &epoch) ||
        !take_number(&name, 8, UINT64_MAX / 2, &ref.sequence) || strnlen(name, 82) < 82 ||
        name[16] != '-' || name[81] != '.')
        return false;
    snprintf(time, sizeof time, "%.16s", name);
    snprintf(id, sizeof id, "%.64s", name + 17);
    if (!clock_parse_compact(time, &time_us) || !hex_decode(id, ref.id, DIGEST_SIZE))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(marks); i++) {
        if (strcmp(name + 82, marks[i]) == 0) {
            ref.epoch = (uint32_t)epoch;
            ref.time_s = time_us / US_PER_S;
            *ret = ref;
            *ret_mark = (enum part_mark)i;
            return true;
        }
    }
    return false;
}

void part_header_encode(const struct part_header *h, uint8_t ret[static PART_HEADER_SIZE])
{
    memset(ret, 0, PART_HEADER_SIZE);
    memcpy(ret, header_magic, 8);
    ret[8] = PART_VERSION;
    le32_put(ret + 12, h->epoch);
    le64_put(ret + 16, h->sequence);
    le64_put(ret + 24, (uint64_t)h->time_us);
    memcpy(ret + 32, h->repository, REPO_ID_SIZE);
    memcpy(ret + 48, h->source, strnlen(h->source, 32));
}

int part_header_decode(const uint8_t *p, const char *name, struct part_header *ret, struct err *e)
{
    if (memcmp(p, header_magic, 8) != 0)
        return err_set(e, ERR_DAMAGED, name, "%s is no syncd part: its first 8 bytes are wrong",
                       name);
    if (le16_get(p + 8) < 1 || le16_get(p + 8) > PART_VERSION || le16_get(p + 10) != 0) {
        err_set(e, ERR_VERSION, name,
                "%s has format version %u (flags %u); this syncd reads up to version %d", name,
                le16_get(p + 8), le16_get(p + 10), PART_VERSION);
        return err_hint(e, "A newer syncd wrote it: this machine needs that one, too. Until then, "
                           "restore takes an older snapshot with --snapshot ID.");
    }
    *ret = (struct part_header){.epoch = le32_get(p + 12),
                                .sequence = le64_get(p + 16),
                                .time_us = (int64_t)le64_get(p + 24)};
    memcpy(ret->repository, p + 32, REPO_ID_SIZE);
    memcpy(ret->source, p + 48, 32);
    return 0;
}

void part_runs_encode(const struct part_run *runs, size_t count, struct buf *to)
{
    buf_put_varint(to, count);
    for (size_t i = 0; i < count; i++) {
        buf_put_varint(to, runs[i].epoch);
        buf_put_varint(to, runs[i].sequence);
        buf_put_varint(to, runs[i].first_chunk);
        buf_put_varint(to, runs[i].count);
    }
}

bool part_runs_decode(struct cursor *c, struct part_run **ret, size_t *ret_count)
{
    uint64_t count = cursor_varint(c);
    *ret = NULL;
    *ret_count = 0;
    if (c->bad || count > cursor_left(c) / 4)
        return false;
    OWN_MEM struct part_run *runs = mem_alloc(count, sizeof *runs);
    if (!runs)
        return false;
    for (size_t i = 0; i < count; i++) {
        uint64_t epoch = cursor_varint(c), sequence = cursor_varint(c);
        uint64_t first = cursor_varint(c), n = cursor_varint(c);
        if (c->bad || epoch > UINT32_MAX || first > PART_ITEMS_MAX || n > PART_ITEMS_MAX || !n)
            return false;
        runs[i] = (struct part_run){(uint32_t)epoch, sequence, (uint32_t)first, (uint32_t)n};
    }
    *ret_count = count;
    *ret = count ? TAKE_PTR(runs) : NULL;
    return true;
}

int part_runs_add(struct part_run **runs, size_t *count, size_t *cap, const struct part_run *one)
{
    struct part_run *last = *count ? &(*runs)[*count - 1] : NULL;
    if (last && last->epoch == one->epoch && last->sequence == one->sequence &&
        last->first_chunk + last->count == one->first_chunk) {
        last->count += one->count;
        return 0;
    }
    if (mem_grow(runs, cap, *count + 1, sizeof **runs))
        return ERR_NOMEM;
    (*runs)[(*count)++] = *one;
    return 0;
}

void snapshot_section_encode(const struct snapshot_section *s, int64_t part_time_s, struct buf *to)
{
    int64_t before_s = part_time_s;
    buf_put_u64(to, (uint64_t)s->as_of_us);
    buf_put_u8(to, s->complete ? 1 : 0);
    buf_put_varint(to, s->listed_count);
    for (size_t i = 0; i < s->listed_count; i++) {
        const struct part_ref *ref = &s->listed[i];
        buf_put_varint(to, ref->epoch);
        buf_put_varint(to, ref->sequence);
        buf_put_zigzag(to, ref->time_s - before_s);
        buf_put_varint(to, ref->size_bytes);
        buf_put(to, ref->id, DIGEST_SIZE);
        before_s = ref->time_s;
    }
    buf_put_varint(to, s->entry_bytes);
    part_runs_encode(s->runs, s->run_count, to);
}

void snapshot_section_free(struct snapshot_section *s)
{
    free(s->listed);
    free(s->runs);
    *s = (struct snapshot_section){0};
}

void part_meta_free(struct part_meta *m)
{
    if (!m)
        return;
    snapshot_section_free(&m->snapshot);
    free(m->blocks);
    buf_free(&m->raw);
    free(m);
}

struct block_walk block_walk_begin(const struct part_block *b)
{
    return (struct block_walk){
        .items = cursor_of(b->items, b->items_len), .block = b, .index = UINT32_MAX};
}

bool block_walk_next(struct block_walk *w)
{
    const struct part_block *b = w->block;
    w->raw_offset += w->raw_bytes;
    w->index++;
    if (w->index >= b->count)
        return false;
    if (b->kind == BLOCK_CHUNKS) {
        w->chunk_id = cursor_take(&w->items, CHUNK_ID_SIZE);
        w->raw_bytes = (uint32_t)cursor_varint(&w->items);
        return !w->items.bad;
    }
    w->raw_bytes = 1u << b->page_shift;
    if (w->index == 0)
        w->page = cursor_varint(&w->items);
    else
        w->page += (uint64_t)cursor_zigzag(&w->items);
    w->fingerprint = le64_get(b->fingerprints + 8 * (size_t)w->index);
    return !w->items.bad;
}
