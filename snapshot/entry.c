#include "snapshot/entry.h"

#include <string.h>

#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define PIECE 65536u
#define FIELD_HEAD_MAX 20u /* tag and length */

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
    run_list_free(&e->runs);
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

/* All that stands before the runs, with their tag and length. */
static void encode_before(const struct entry *e, struct buf *r, struct buf *scratch)
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
        buf_put_varint(r, run_list_bytes(&e->runs));
        buf_put_varint(r, e->runs.count);
    }
}

static void encode_after(const struct entry *e, struct buf *r)
{
    put_text(r, TAG_LINK, e->link);
    put_bytes(r, TAG_XATTRS, &e->xattrs);
    put_bytes(r, TAG_HOLES, &e->holes);
}

/* A record, but for the runs, which may be long. */
struct record {
    struct buf before, after, scratch;
    uint64_t run_bytes, len;
};

static int record_make(const struct entry *e, struct record *r, struct err *err)
{
    *r = (struct record){0};
    encode_before(e, &r->before, &r->scratch);
    encode_after(e, &r->after);
    r->run_bytes = has_content(e) ? e->runs.len : 0;
    r->len = r->before.len + r->run_bytes + r->after.len;
    return r->before.bad || r->after.bad || r->scratch.bad ? err_nomem(err) : 0;
}

static void record_free(struct record *r)
{
    buf_free(&r->before);
    buf_free(&r->after);
    buf_free(&r->scratch);
}

static int put_runs(const struct run_list *l, uint64_t len, entry_put_fn *put, void *arg,
                    struct err *err)
{
    uint8_t *window = malloc((size_t)MIN(len, (uint64_t)PIECE) + 1);
    int rc = window ? 0 : err_nomem(err);
    for (uint64_t at = 0, n; rc == 0 && at < len; at += n) {
        n = MIN(len - at, (uint64_t)PIECE);
        rc = run_list_read(l, at, window, (size_t)n, err);
        if (rc == 0)
            rc = put(arg, window, (size_t)n, err);
    }
    free(window);
    return rc;
}

static int put_record(const struct entry *e, const struct record *r, entry_put_fn *put, void *arg,
                      struct err *err)
{
    OWN_BUF struct buf length = BUF_INIT;
    buf_put_varint(&length, r->len);
    int rc = length.bad ? err_nomem(err) : put(arg, length.data, length.len, err);
    if (rc == 0)
        rc = put(arg, r->before.data, r->before.len, err);
    if (rc == 0 && r->run_bytes)
        rc = put_runs(&e->runs, r->run_bytes, put, arg, err);
    return rc || !r->after.len ? rc : put(arg, r->after.data, r->after.len, err);
}

int entry_write(const struct entry *e, entry_put_fn *put, void *arg, struct err *err)
{
    struct record r;
    int rc = record_make(e, &r, err);
    if (rc == 0 && r.len > ENTRY_RECORD_MAX)
        rc = err_set(err, ERR_LIMIT, e->path, "%s needs a record of more than %u bytes", e->path,
                     ENTRY_RECORD_MAX);
    if (rc == 0)
        rc = put_record(e, &r, put, arg, err);
    record_free(&r);
    return rc;
}

static int put_to_buf(void *to, const void *p, size_t n, struct err *err)
{
    (void)err;
    buf_put(to, p, n);
    return 0;
}

void entry_encode(const struct entry *e, struct buf *to)
{
    struct record r;
    if (record_make(e, &r, NULL) || put_record(e, &r, put_to_buf, to, NULL))
        to->bad = true;
    record_free(&r);
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
        return run_list_decode(v, &e->runs);
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

/* A record in a file: a long list of runs stays there, all else is gathered in `rest`. */
struct split {
    struct shared_file *file;
    uint64_t at, end, tag; /* tag: of the field before */
    struct buf rest;
    struct run_list runs;
};

static int read_record(const struct split *s, uint8_t *to, size_t n, struct err *err)
{
    return io_pread_full(s->file->fd, to, n, s->at) == (ssize_t)n
               ? 0
               : err_set(err, ERR_INTERNAL, NULL, "cannot read an entry in a temporary file");
}

static int split_field(struct split *s, struct err *err)
{
    uint8_t head[FIELD_HEAD_MAX];
    size_t n = (size_t)MIN(s->end - s->at, (uint64_t)sizeof head);
    int rc = read_record(s, head, n, err);
    if (rc)
        return rc;
    struct cursor c = cursor_of(head, n);
    uint64_t tag = cursor_varint(&c), len = cursor_varint(&c), used = n - cursor_left(&c);
    if (c.bad || len > s->end - s->at - used || tag <= s->tag)
        return err_set(err, ERR_DAMAGED, NULL, "an entry is damaged after field %d", (int)s->tag);
    s->tag = tag;
    if (tag == TAG_RUNS && len > RUN_LIST_IN_MEMORY) {
        rc = run_list_at(s->file, s->at + used, len, &s->runs, err);
    } else {
        uint8_t *to = buf_extend(&s->rest, (size_t)(used + len));
        rc = to ? read_record(s, to, (size_t)(used + len), err) : err_nomem(err);
    }
    s->at += used + len;
    return rc;
}

int entry_decode_at(struct shared_file *f, uint64_t at, uint64_t len, struct entry *ret,
                    struct err *err)
{
    struct split s = {.file = f, .at = at, .end = at + len};
    struct entry e = {0};
    int rc = 0;
    if (len > ENTRY_RECORD_MAX)
        return err_set(err, ERR_DAMAGED, NULL, "the entry list is damaged: a record's length");
    while (rc == 0 && s.at < s.end)
        rc = split_field(&s, err);
    struct cursor record = cursor_of(s.rest.data, s.rest.len);
    if (rc == 0)
        rc = decode_fields(&record, &e, err);
    buf_free(&s.rest);
    if (rc) {
        run_list_free(&s.runs);
        entry_free(&e);
        return rc;
    }
    if (s.runs.file)
        e.runs = s.runs;
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
