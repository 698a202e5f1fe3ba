/* Compressed blocks, in order, become parts: header, blocks, metadata, trailer (FORMAT.md 2). */
#include <string.h>

#include "snapshot/pipeline_internal.h"
#include "syncd/base/clock.h"
#include "syncd/base/mem.h"

#define META_PIECE (256u << 10)

static int queue_copy(struct pipeline *p, enum message_kind kind, const void *data, size_t n,
                      struct err *e)
{
    struct message *m = message_new(kind, n);
    if (!m)
        return err_nomem(e);
    memcpy(m->data, data, n);
    message_queue(p, m);
    return 0;
}

int assembler_begin_part(struct pipeline *p, const struct part_header *part, struct err *e)
{
    uint8_t header[PART_HEADER_SIZE];
    p->out = *part;
    p->out_open = true;
    p->out_bytes = PART_HEADER_SIZE;
    p->out_blocks = 0;
    buf_reset(&p->out_meta);
    part_header_encode(part, header);
    return queue_copy(p, MESSAGE_BEGIN, header, sizeof header, e);
}

/* Header again and count of blocks; what was gathered of the blocks; and the section with the
 * trailer. The middle one may be megabytes and is not copied. */
struct metadata {
    struct buf before, after;
};

static void finish_metadata(struct pipeline *p, const struct snapshot_section *section,
                            struct metadata *m, struct part_ref *ret)
{
    uint8_t header[PART_HEADER_SIZE];
    *ret = (struct part_ref){
        .epoch = p->out.epoch, .sequence = p->out.sequence, .time_s = p->out.time_us / US_PER_S};
    part_header_encode(&p->out, header);
    buf_put(&m->before, header, sizeof header);
    buf_put_varint(&m->before, p->out_blocks);
    buf_put_u8(&m->after, section ? 1 : 0);
    if (section)
        snapshot_section_encode(section, ret->time_s, &m->after);
    if (m->before.bad || m->after.bad || p->out_meta.bad)
        return;
    const struct digest_piece pieces[] = {{m->before.data, m->before.len},
                                          {p->out_meta.data, p->out_meta.len},
                                          {m->after.data, m->after.len}};
    size_t meta_bytes = m->before.len + p->out_meta.len + m->after.len;
    digest_blake2b_of(pieces, ARRAY_LEN(pieces), ret->id);
    buf_put_u64(&m->after, meta_bytes);
    buf_put(&m->after, ret->id, DIGEST_SIZE);
    buf_put_str(&m->after, "syncdend");
    ret->size_bytes = p->out_bytes + m->before.len + p->out_meta.len + m->after.len;
}

/* Hands the metadata on, in pieces, and gives back what the middle of it held. */
static int queue_metadata(struct pipeline *p, const struct metadata *m, struct err *e)
{
    int rc = queue_copy(p, MESSAGE_DATA, m->before.data, m->before.len, e);
    for (size_t at = 0; rc == 0 && at < p->out_meta.len; at += META_PIECE)
        rc = queue_copy(p, MESSAGE_DATA, p->out_meta.data + at,
                        MIN(p->out_meta.len - at, (size_t)META_PIECE), e);
    buf_free(&p->out_meta);
    return rc ? rc : queue_copy(p, MESSAGE_DATA, m->after.data, m->after.len, e);
}

int assembler_close_part(struct pipeline *p, const struct snapshot_section *section, struct err *e)
{
    struct metadata m = {BUF_INIT, BUF_INIT};
    struct part_ref ref;
    finish_metadata(p, section, &m, &ref);
    p->out_open = false;
    int rc = m.before.bad || m.after.bad || p->out_meta.bad ||
                     mem_grow(&p->parts, &p->part_cap, p->part_count + 1, sizeof *p->parts)
                 ? err_nomem(e)
                 : queue_metadata(p, &m, e);
    buf_free(&m.before);
    buf_free(&m.after);
    if (rc)
        return rc;
    p->parts[p->part_count++] = ref;
    p->stored_bytes += ref.size_bytes;
    struct message *end = message_new(MESSAGE_END, 0);
    if (!end)
        return err_nomem(e);
    end->ref = ref;
    end->snapshot = section != NULL;
    end->mtime_us = section ? section->as_of_us : -1;
    message_queue(p, end);
    return 0;
}

static void describe_block(struct pipeline *p, struct slot *s)
{
    struct buf *m = &p->out_meta;
    buf_put_u8(m, s->kind);
    buf_put_u8(m, s->method);
    buf_put_varint(m, s->stored_bytes);
    buf_put_varint(m, s->raw_bytes);
    buf_put(m, s->digest, DIGEST_SIZE);
    buf_put_varint(m, s->count);
    if (s->kind == BLOCK_PAGES) {
        buf_put_u64(m, s->image);
        buf_put_u8(m, s->page_shift);
    }
    buf_put(m, s->numbers.data, s->numbers.len);
    buf_put(m, s->fingerprints.data, s->fingerprints.len);
}

static int assemble_slot(struct pipeline *p, struct slot *s, struct err *e)
{
    int rc = p->out_open ? 0 : assembler_begin_part(p, &s->part, e);
    if (rc)
        return rc;
    describe_block(p, s);
    p->out_blocks++;
    p->out_bytes += s->stored_bytes;
    message_queue(p, TAKE_PTR(s->stored));
    return s->ends_part ? assembler_close_part(p, NULL, e) : 0;
}

void assembler_run(struct pipeline *p)
{
    while (p->slots[p->assemble].state == SLOT_DONE && !p->fatal.code &&
           p->queued_bytes < p->o.queue_bytes) {
        struct slot *s = &p->slots[p->assemble];
        if (assemble_slot(p, s, &p->fatal))
            break;
        s->state = SLOT_FREE;
        p->assemble = (p->assemble + 1) % p->slot_count;
    }
    pthread_cond_broadcast(&p->progress);
}
