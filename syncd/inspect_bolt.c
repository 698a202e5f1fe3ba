/* `inspect` of bolt: check, buckets, keys, get, stats, compact, as the bbolt command prints them.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "restore/bolt_compact.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/command.h"
#include "syncd/inspect.h"
#include "syncd/inspect_bolt.h"
#include "syncd/report.h"

#define PIECE_BYTES 65536u
#define WORDS_MAX 256u

/* ---- the way to a bucket ---- */

/* A word of the command line as bytes: with --hex two digits a byte. */
static int word_bytes(const struct bolt_look *b, const char *word, struct buf *ret, struct err *e)
{
    size_t n = strlen(word);
    if (!b->hex) {
        buf_put(ret, word, n);
    } else {
        uint8_t *to = n % 2 == 0 ? buf_extend(ret, n / 2) : NULL;
        if (!to || !hex_decode(word, to, n / 2))
            return err_set(e, ERR_USAGE, word, "with --hex names are hex digits, not '%s'", word);
    }
    return ret->bad ? err_nomem(e) : 0;
}

static int find_in(struct bolt_look *b, const struct bolt_bucket *in, const char *word,
                   struct bolt_item *ret, struct buf *key, struct err *e)
{
    int rc = word_bytes(b, word, key, e);
    if (rc || key->len > BOLT_KEY_MAX)
        return rc ? rc : err_set(e, ERR_NOT_FOUND, word, "no such key");
    return bolt_find(b->reader, in, key->data, key->len, ret, e);
}

static int no_bucket(const struct bolt_look *b, const char *word, bool is_key, struct err *e)
{
    err_set(e, ERR_NOT_FOUND, b->i->name, "bucket not found: '%s'%s", word,
            is_key ? " is a key, not a bucket" : "");
    return err_hint(e, "`buckets` lists the buckets at the top, `keys BUCKET...` those in one.");
}

static int open_bucket(struct bolt_look *b, const char *const *words, size_t count,
                       struct bolt_bucket *ret, struct err *e)
{
    struct bolt_bucket at = bolt_root(b->reader, &b->meta);
    for (size_t i = 0; i < count; i++) {
        OWN_BUF struct buf key = BUF_INIT;
        struct bolt_item item = {0};
        struct bolt_bucket inner;
        int rc = find_in(b, &at, words[i], &item, &key, e);
        if (rc == ERR_NOT_FOUND || (rc == 0 && !item.is_bucket))
            return no_bucket(b, words[i], rc == 0, e);
        if (rc == 0)
            rc = bolt_bucket_open(b->reader, &at, &item, &inner, e);
        if (rc)
            return rc;
        at = inner;
    }
    *ret = at;
    return 0;
}

/* ---- the questions ---- */

/* Tells of each page that nobody refers to as bbolt's check does. */
static uint64_t put_lost(struct bolt_look *b, const struct bolt_walked *w)
{
    uint64_t found = 0;
    for (uint64_t page = 2; w->lost_pages && page < w->reachable.pages; page++) {
        if (bolt_map_has(&w->reachable, page) || bolt_map_has(&w->free, page))
            continue;
        bolt_put_line(b, "page %" PRIu64 ": unreachable unfreed", page);
        found++;
    }
    return found;
}

static int visit_run(void *arg, const struct bolt_run *run, struct err *e)
{
    (void)run;
    return bolt_look_sometimes(arg, e);
}

static int ask_check(struct bolt_look *b, struct err *e)
{
    struct bolt_walked w;
    int rc = bolt_walk(b->reader, &b->meta, visit_run, b, &w, e);
    if (rc)
        return rc;
    uint64_t lost = put_lost(b, &w);
    json_object_set_new(b->json, "reachable_pages", report_json_size(w.reachable_pages));
    json_object_set_new(b->json, "free_pages", report_json_size(w.free_pages));
    json_object_set_new(b->json, "lost_pages", report_json_size(lost));
    bolt_walked_free(&w);
    if (!lost) {
        bolt_put_line(b, "OK");
        return 0;
    }
    bolt_put_line(b, "%" PRIu64 " errors found", lost); /* as bbolt puts it */
    err_set(e, ERR_DAMAGED, b->i->name, "%s: %" PRIu64 " %s neither in use nor free", b->i->name,
            lost, lost == 1 ? "page is" : "pages are");
    return err_hint(e, "That costs space, not data; `compact` leaves them behind.");
}

static int list_keys(struct bolt_look *b, const struct bolt_bucket *in, bool buckets_only,
                     struct err *e)
{
    OWN_BOLT_CURSOR struct bolt_cursor *c = NULL;
    json_t *list = json_array();
    struct bolt_item item = {0};
    int rc = list ? bolt_cursor_open(b->reader, in, &c, e) : err_nomem(e);
    while (rc == 0 && (rc = bolt_cursor_next(c, &item, e)) == 0 && item.key) {
        rc = bolt_look_sometimes(b, e);
        if (rc || (buckets_only && !item.is_bucket))
            continue;
        bolt_put_bytes(b, item.key, item.key_bytes);
        bolt_put_raw(b, "\n", 1);
        rc = bolt_count_json(b, item.key_bytes, e);
        if (rc == 0 && report_is_json(b->i->report)) {
            json_t *name = bolt_json_bytes(b, item.key, item.key_bytes);
            json_t *one = buckets_only
                              ? name
                              : json_pack("{s:o, s:b}", "key", name, "bucket", (int)item.is_bucket);
            rc = json_array_append_new(list, one) == 0 ? 0 : err_nomem(e);
        }
    }
    json_object_set(b->json, buckets_only ? "buckets" : "keys", list);
    json_decref(list);
    return rc;
}

static int ask_buckets(struct bolt_look *b, struct err *e)
{
    struct bolt_bucket root = bolt_root(b->reader, &b->meta);
    return list_keys(b, &root, true, e);
}

static int ask_keys(struct bolt_look *b, struct err *e)
{
    struct bolt_bucket in;
    int rc = open_bucket(b, b->i->words, b->i->word_count, &in, e);
    return rc ? rc : list_keys(b, &in, false, e);
}

static int put_value(struct bolt_look *b, const struct bolt_item *item, struct err *e)
{
    OWN_BUF struct buf whole = BUF_INIT;
    OWN_MEM uint8_t *piece = malloc(PIECE_BYTES);
    int rc = piece ? bolt_count_json(b, item->value_bytes, e) : err_nomem(e);
    for (uint32_t from = 0, n; rc == 0 && from < item->value_bytes; from += n) {
        n = MIN(item->value_bytes - from, PIECE_BYTES);
        rc = bolt_value_read(b->reader, item, from, piece, n, e);
        if (rc == 0)
            rc = bolt_look_on(b, e);
        if (rc == 0 && report_is_json(b->i->report))
            buf_put(&whole, piece, n);
        else if (rc == 0)
            bolt_put_bytes(b, piece, n);
    }
    bolt_put_raw(b, "\n", 1);
    if (rc == 0 && whole.bad)
        return err_nomem(e);
    if (rc == 0 && report_is_json(b->i->report))
        json_object_set_new(b->json, "value", bolt_json_bytes(b, whole.data, whole.len));
    return rc;
}

static int ask_get(struct bolt_look *b, struct err *e)
{
    OWN_BUF struct buf key = BUF_INIT;
    struct bolt_item item = {0};
    struct bolt_bucket in;
    size_t last = b->i->word_count - 1;
    const char *word = b->i->words[last];
    int rc = open_bucket(b, b->i->words, last, &in, e);
    if (rc)
        return rc;
    rc = find_in(b, &in, word, &item, &key, e);
    if (rc == ERR_NOT_FOUND)
        return err_set(e, ERR_NOT_FOUND, b->i->name, "key not found: '%s'", word);
    if (rc == 0 && item.is_bucket) {
        err_set(e, ERR_NOT_FOUND, b->i->name, "key not found: '%s' is a bucket", word);
        return err_hint(e, "`keys` lists what is in a bucket.");
    }
    return rc ? rc : put_value(b, &item, e);
}

/* ---- stats ---- */

static int percent(uint64_t part, uint64_t whole)
{
    /* bbolt counts in 32-bit floats, and cuts. */
    return whole ? (int)((float)part * 100.0f / (float)whole) : 0;
}

static void put_stats(struct bolt_look *b, const struct bolt_stats *s, size_t count)
{
    bolt_put_line(b, "Aggregate statistics for %zu buckets\n", count);
    bolt_put_line(b, "Page count statistics");
    bolt_put_line(b, "\tNumber of logical branch pages: %" PRIu64, s->branch_pages);
    bolt_put_line(b, "\tNumber of physical branch overflow pages: %" PRIu64,
                  s->branch_overflow_pages);
    bolt_put_line(b, "\tNumber of logical leaf pages: %" PRIu64, s->leaf_pages);
    bolt_put_line(b, "\tNumber of physical leaf overflow pages: %" PRIu64, s->leaf_overflow_pages);
    bolt_put_line(b, "Tree statistics");
    bolt_put_line(b, "\tNumber of keys/value pairs: %" PRIu64, s->keys);
    bolt_put_line(b, "\tNumber of levels in B+tree: %" PRIu64, s->depth);
    bolt_put_line(b, "Page size utilization");
    bolt_put_line(b, "\tBytes allocated for physical branch pages: %" PRIu64, s->branch_alloc);
    bolt_put_line(b, "\tBytes actually used for branch data: %" PRIu64 " (%d%%)", s->branch_inuse,
                  percent(s->branch_inuse, s->branch_alloc));
    bolt_put_line(b, "\tBytes allocated for physical leaf pages: %" PRIu64, s->leaf_alloc);
    bolt_put_line(b, "\tBytes actually used for leaf data: %" PRIu64 " (%d%%)", s->leaf_inuse,
                  percent(s->leaf_inuse, s->leaf_alloc));
    bolt_put_line(b, "Bucket statistics");
    bolt_put_line(b, "\tTotal number of buckets: %" PRIu64, s->buckets);
    bolt_put_line(b, "\tTotal number on inlined buckets: %" PRIu64 " (%d%%)", s->inline_buckets,
                  percent(s->inline_buckets, s->buckets));
    bolt_put_line(b, "\tBytes used for inlined buckets: %" PRIu64 " (%d%%)", s->inline_inuse,
                  percent(s->inline_inuse, s->leaf_inuse));
}

static json_t *json_stats(const struct bolt_stats *s)
{
    const struct {
        const char *key;
        uint64_t value;
    } all[] = {{"branch_pages", s->branch_pages},
               {"branch_overflow_pages", s->branch_overflow_pages},
               {"leaf_pages", s->leaf_pages},
               {"leaf_overflow_pages", s->leaf_overflow_pages},
               {"keys", s->keys},
               {"depth", s->depth},
               {"branch_allocated", s->branch_alloc},
               {"branch_used", s->branch_inuse},
               {"leaf_allocated", s->leaf_alloc},
               {"leaf_used", s->leaf_inuse},
               {"buckets", s->buckets},
               {"inline_buckets", s->inline_buckets},
               {"inline_used", s->inline_inuse}};
    json_t *o = json_object();
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        report_json_set(o, all[i].key, report_json_size(all[i].value));
    return o;
}

/* Of the top buckets whose names begin with the word, or of all. */
static int ask_stats(struct bolt_look *b, struct err *e)
{
    OWN_BOLT_CURSOR struct bolt_cursor *c = NULL;
    OWN_BUF struct buf prefix = BUF_INIT;
    struct bolt_bucket root = bolt_root(b->reader, &b->meta), inner;
    struct bolt_stats sum = {0}, one;
    struct bolt_item item = {0};
    size_t count = 0;
    int rc = b->i->word_count ? word_bytes(b, b->i->words[0], &prefix, e) : 0;
    if (rc == 0)
        rc = bolt_cursor_open(b->reader, &root, &c, e);
    while (rc == 0 && (rc = bolt_cursor_next(c, &item, e)) == 0 && item.key) {
        rc = bolt_look_on(b, e);
        if (rc || !item.is_bucket || item.key_bytes < prefix.len ||
            (prefix.len && memcmp(item.key, prefix.data, prefix.len) != 0))
            continue;
        rc = bolt_bucket_open(b->reader, &root, &item, &inner, e);
        if (rc == 0)
            rc = bolt_bucket_stats(b->reader, &inner, &one, e);
        if (rc == 0)
            bolt_stats_add(&sum, &one);
        count++;
    }
    if (rc)
        return rc;
    put_stats(b, &sum, count);
    json_object_set_new(b->json, "stats", json_stats(&sum));
    return 0;
}

/* ---- compact ---- */

static int write_compact(struct bolt_look *b, const char *tmp, uint64_t *ret_bytes, struct err *e)
{
    OWN_FD int fd = io_open(tmp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(e, errno, tmp, "cannot make %s", tmp);
    struct bolt_compact c = {
        .from = b->reader, .meta = &b->meta, .fd = fd, .name = tmp, .look = bolt_look_on, .arg = b};
    int rc = bolt_compact(&c, ret_bytes, e);
    if (rc == 0)
        rc = bolt_look_on(b, e); /* a live state must have held to the end */
    if (rc == 0 && io_fsync(fd) < 0)
        rc = err_sys(e, errno, tmp, "cannot make %s durable", tmp);
    return rc;
}

static int ask_compact(struct bolt_look *b, struct err *e)
{
    const char *output = args_value(b->i->args, "output");
    OWN_MEM char *tmp = NULL;
    uint64_t before = bolt_image_pages(b->reader, &b->meta) * b->meta.page_size, after = 0;
    if (!output)
        return err_set(e, ERR_USAGE, "output", "where to? -o FILE is needed");
    if (access(output, F_OK) == 0)
        return err_set(e, ERR_EXISTS, output, "%s is there already", output);
    if (asprintf(&tmp, "%s.syncd-%d", output, (int)getpid()) < 0) {
        tmp = NULL;
        return err_nomem(e);
    }
    int rc = write_compact(b, tmp, &after, e);
    b->live &= rc != 0; /* the copy is proven: commits from here on do not matter */
    if (rc == 0 && io_rename_new(tmp, output) < 0)
        rc = err_sys(e, errno, output, "cannot give %s its name", output);
    if (rc == 0 && io_fsync_parent(output) < 0)
        rc = err_sys(e, errno, output, "cannot make the name of %s durable", output);
    if (rc) {
        io_unlink(tmp);
        return rc;
    }
    bolt_put_line(b, "%" PRIu64 " -> %" PRIu64 " bytes (gain=%.2fx)", before, after,
                  (double)before / (double)after);
    json_object_set_new(b->json, "output", report_json_text(output));
    json_object_set_new(b->json, "bytes_before", report_json_size(before));
    json_object_set_new(b->json, "bytes_after", report_json_size(after));
    return 0;
}

static int run_check(const struct inspected *i, struct err *e)
{
    return bolt_look_ask(i, ask_check, e);
}

static int run_buckets(const struct inspected *i, struct err *e)
{
    return bolt_look_ask(i, ask_buckets, e);
}

static int run_keys(const struct inspected *i, struct err *e)
{
    return bolt_look_ask(i, ask_keys, e);
}

static int run_get(const struct inspected *i, struct err *e)
{
    return bolt_look_ask(i, ask_get, e);
}

static int run_stats(const struct inspected *i, struct err *e)
{
    return bolt_look_ask(i, ask_stats, e);
}

static int run_compact(const struct inspected *i, struct err *e)
{
    return bolt_look_ask(i, ask_compact, e);
}

const struct inspect_verb inspect_bolt_verbs[] = {
    {"check", 0, 0, "", run_check},
    {"buckets", 0, 0, "", run_buckets},
    {"keys", 1, WORDS_MAX, " BUCKET...", run_keys},
    {"get", 2, WORDS_MAX, " BUCKET... KEY", run_get},
    {"stats", 0, 1, " [PREFIX]", run_stats},
    {"compact", 0, 0, " -o FILE", run_compact},
    {.name = NULL},
};
