#include "snapshot/entry.h"

#include <string.h>

#include "syncd/base/err.h"
#include "syncd/base/mem.h"

enum tag {
    TAG_TYPE = 2,
    TAG_PATH = 4,
    TAG_MODE = 6,
    TAG_OWNER = 7,
    TAG_UID = 8,
    TAG_GROUP = 9,
    TAG_GID = 10,
    TAG_SIGNATURE = 11,
    TAG_MTIME = 12,
    TAG_CARRIED = 13,
    TAG_AS_OF = 14,
    TAG_DETAILS = 15,
    TAG_IMAGE = 16,
    TAG_SIZE = 18,
    TAG_RUNS = 20,
    TAG_LINK = 22,
    TAG_XATTRS = 24,
    TAG_HOLES = 26,
};

void entry_free(struct entry *e)
{
    free(e->path);
    free(e->owner);
    free(e->group);
    free(e->runs);
    free(e->link);
    free(e->xattrs.data);
    free(e->holes.data);
    free(e->signature.data);
    free(e->carried);
    free(e->details.data);
    *e = (struct entry){0};
}

uint64_t entry_size(const struct entry *e)
{
    return e->type == ENTRY_IMAGE ? e->image.page_count << e->image.page_shift : e->size;
}

static void put_field(struct buf *to, enum tag tag, const void *p, size_t n)
{
    buf_put_varint(to, tag);
    buf_put_varint(to, n);
    buf_put(to, p, n);
}

static void put_text(struct buf *to, enum tag tag, const char *s)
{
    if (s)
        put_field(to, tag, s, strlen(s));
}

static void put_bytes(struct buf *to, enum tag tag, const struct entry_bytes *b)
{
    if (b->len)
        put_field(to, tag, b->data, b->len);
}

static void put_built(struct buf *to, enum tag tag, struct buf *value)
{
    put_field(to, tag, value->data, value->len);
    to->bad |= value->bad;
    buf_reset(value);
}

static void put_number(struct buf *to, enum tag tag, uint64_t v, struct buf *scratch)
{
    buf_put_varint(scratch, v);
    put_built(to, tag, scratch);
}

static void put_signed(struct buf *to, enum tag tag, int64_t v, struct buf *scratch)
{
    buf_put_zigzag(scratch, v);
    put_built(to, tag, scratch);
}

static bool has_content(const struct entry *e)
{
    return e->type == ENTRY_FILE || e->type == ENTRY_DUMP || e->type == ENTRY_CONFIG;
}

static void encode_fields(const struct entry *e, struct buf *r, struct buf *scratch)
{
    put_field(r, TAG_TYPE, &e->type, 1);
    put_text(r, TAG_PATH, e->path);
    if (e->has_owner)
        put_number(r, TAG_MODE, e->mode, scratch);
    put_text(r, TAG_OWNER, e->owner);
    if (e->has_owner)
        put_number(r, TAG_UID, e->uid, scratch);
    put_text(r, TAG_GROUP, e->group);
    if (e->has_owner)
        put_number(r, TAG_GID, e->gid, scratch);
    put_bytes(r, TAG_SIGNATURE, &e->signature);
    if (e->has_owner)
        put_signed(r, TAG_MTIME, e->mtime_ns, scratch);
    put_text(r, TAG_CARRIED, e->carried);
    put_signed(r, TAG_AS_OF, e->as_of_us, scratch);
    put_bytes(r, TAG_DETAILS, &e->details);
    if (e->type == ENTRY_IMAGE) {
        buf_put_u64(scratch, e->image.id);
        buf_put_u8(scratch, e->image.kind);
        buf_put_u8(scratch, e->image.page_shift);
        buf_put_u64(scratch, e->image.page_count);
        buf_put_u64(scratch, e->image.sum);
        put_built(r, TAG_IMAGE, scratch);
    }
    if (has_content(e)) {
        put_number(r, TAG_SIZE, e->size, scratch);
        buf_put_varint(r, TAG_RUNS);
        buf_put_varint(r, part_runs_bytes(e->runs, e->run_count));
        part_runs_encode(e->runs, e->run_count, r);
    }
    put_text(r, TAG_LINK, e->link);
    put_bytes(r, TAG_XATTRS, &e->xattrs);
    put_bytes(r, TAG_HOLES, &e->holes);
}

void entry_encode(const struct entry *e, struct buf *to)
{
    OWN_BUF struct buf record = BUF_INIT, scratch = BUF_INIT;
    encode_fields(e, &record, &scratch);
    buf_put_varint(to, record.len);
    buf_put(to, record.data, record.len);
    to->bad |= record.bad || scratch.bad;
}

static bool take_text(struct cursor *c, char **ret)
{
    size_t n = cursor_left(c);
    const uint8_t *p = cursor_take(c, n);
    if (!p || memchr(p, 0, n) || n > ENTRY_PATH_MAX)
        return false;
    *ret = strndup((const char *)p, n);
    return *ret != NULL;
}

static bool take_bytes(struct cursor *c, struct entry_bytes *ret)
{
    size_t n = cursor_left(c);
    const uint8_t *p = cursor_take(c, n);
    if (!p || !n)
        return false;
    ret->data = malloc(n);
    if (!ret->data)
        return false;
    memcpy(ret->data, p, n);
    ret->len = n;
    return true;
}

static bool take_u32(struct cursor *c, uint32_t *ret)
{
    uint64_t v = cursor_varint(c);
    *ret = (uint32_t)v;
    return !c->bad && v <= UINT32_MAX;
}

static bool take_image(struct cursor *c, struct entry_image *ret)
{
    ret->id = cursor_u64(c);
    ret->kind = cursor_u8(c);
    ret->page_shift = cursor_u8(c);
    ret->page_count = cursor_u64(c);
    ret->sum = cursor_u64(c);
    return !c->bad && (ret->kind == IMAGE_SQLITE || ret->kind == IMAGE_BOLT) &&
           ret->page_shift >= 9 && ret->page_shift <= 16 &&
           ret->page_count < UINT64_C(1) << (62 - ret->page_shift);
}

/* One field; false when its value is malformed. *ret_known: the tag is understood. */
static bool decode_field(uint64_t tag, struct cursor *v, struct entry *e, bool *ret_known)
{
    *ret_known = true;
    switch (tag) {
    case TAG_TYPE:
        e->type = cursor_u8(v);
        return e->type >= ENTRY_FILE && e->type <= ENTRY_CONFIG;
    case TAG_PATH:
        return take_text(v, &e->path) && e->path[0];
    case TAG_MODE:
        e->has_owner = true;
        return take_u32(v, &e->mode) && e->mode <= 07777;
    case TAG_OWNER:
        return take_text(v, &e->owner);
    case TAG_UID:
        return take_u32(v, &e->uid);
    case TAG_GROUP:
        return take_text(v, &e->group);
    case TAG_GID:
        return take_u32(v, &e->gid);
    case TAG_SIGNATURE:
        return take_bytes(v, &e->signature);
    case TAG_MTIME:
        e->mtime_ns = cursor_zigzag(v);
        return !v->bad;
    case TAG_CARRIED:
        return take_text(v, &e->carried);
    case TAG_AS_OF:
        e->as_of_us = cursor_zigzag(v);
        return !v->bad;
    case TAG_DETAILS:
        return take_bytes(v, &e->details);
    case TAG_IMAGE:
        return take_image(v, &e->image);
    case TAG_SIZE:
        e->size = cursor_varint(v);
        return !v->bad && e->size <= INT64_MAX;
    case TAG_RUNS:
        return part_runs_decode(v, &e->runs, &e->run_count);
    case TAG_LINK:
        return take_text(v, &e->link);
    case TAG_XATTRS:
        return take_bytes(v, &e->xattrs);
    case TAG_HOLES:
        return take_bytes(v, &e->holes);
    default:
        *ret_known = false;
        return true;
    }
}

static int decode_fields(struct cursor *record, struct entry *e, struct err *err)
{
    uint64_t before = 0;
    while (cursor_left(record) > 0) {
        uint64_t tag = cursor_varint(record), len = cursor_varint(record);
        const uint8_t *p = len <= cursor_left(record) ? cursor_take(record, (size_t)len) : NULL;
        if (!p || tag <= before)
            return err_set(err, ERR_DAMAGED, e->path, "an entry is damaged after field %d",
                           (int)before);
        struct cursor value = cursor_of(p, (size_t)len);
        bool known;
        if (!decode_field(tag, &value, e, &known) || (known && cursor_left(&value) != 0))
            return err_set(err, ERR_DAMAGED, e->path, "an entry is damaged in field %d", (int)tag);
        if (!known && tag % 2 == 0)
            return err_set(err, ERR_VERSION, e->path,
                           "an entry has field %d, which this syncd does not know; a newer one "
                           "wrote it",
                           (int)tag);
        before = tag;
    }
    bool linked = e->type == ENTRY_SYMLINK || e->type == ENTRY_HARDLINK;
    bool image = e->image.page_shift != 0;
    if (!e->type || !e->path || linked != (e->link != NULL) || image != (e->type == ENTRY_IMAGE))
        return err_set(err, ERR_DAMAGED, e->path, "an entry is damaged: it lacks a field");
    return 0;
}

int entry_decode(struct cursor *c, struct entry *ret, struct err *err)
{
    uint64_t len = cursor_varint(c);
    const uint8_t *p = len <= ENTRY_RECORD_MAX ? cursor_take(c, (size_t)len) : NULL;
    if (!p)
        return err_set(err, ERR_DAMAGED, NULL, "the entry list is damaged: a record's length");
    struct entry e = {0};
    struct cursor record = cursor_of(p, (size_t)len);
    int rc = decode_fields(&record, &e, err);
    if (rc) {
        entry_free(&e);
        return rc;
    }
    *ret = e;
    return 0;
}

int entry_copy(const struct entry *from, struct entry *ret, struct err *err)
{
    OWN_BUF struct buf record = BUF_INIT;
    entry_encode(from, &record);
    if (record.bad)
        return err_nomem(err);
    struct cursor c = cursor_of(record.data, record.len);
    return entry_decode(&c, ret, err);
}
