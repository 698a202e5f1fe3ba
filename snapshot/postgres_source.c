#include "snapshot/postgres_source.h"

#include <inttypes.h>
#include <jansson.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "conf/conf.h"
#include "snapshot/chunk_table.h"
#include "snapshot/content.h"
#include "snapshot/dump_summary.h"
#include "snapshot/plan.h"
#include "snapshot/spool.h"
#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define ENTRIES_MAX 2 /* the dump and the globals */
#define ARGV_FIXED 16
#define MMAP_THRESHOLD (128 << 10)
#define LARGE_DUMP_BYTES (UINT64_C(32) << 20)

/* Small enough that a changed row ships little; a large dump gets larger ones, so that the table of
 * chunks stays below some 40 MB of tmpfs. */
#define CHUNK_BYTES_MIN 1024u
#define CHUNK_BYTES_MAX 65536u
#define CHUNKS_MAX 1048576u
#define GLOBALS_CHUNK_BYTES 512u

struct dump {
    struct source_options o;
    struct postgres *conn;
    struct postgres_facts facts;
    int dump_version; /* pg_dump's */
    char *evidence;   /* of the look, then of the dump's transaction */
    bool unchanged;
    const struct source_run *run;
    struct plan *plan;
    char *dump_path;      /* "<schema>.dump" */
    uint64_t size_before; /* of the parent's dump */
    bool anew;            /* it lies in too many pieces */
    uint64_t size_expected;
    uint32_t chunk_bytes; /* the average */
    size_t entry_count;
    struct entry entries[ENTRIES_MAX]; /* ascending by path */
    struct source_totals totals;
};

/* ---- looking ---- */

char *postgres_dump_name(const char *name)
{
    struct buf path = BUF_INIT;
    for (; *name; name++) {
        bool plain = *name != '/' && *name != '%' && (unsigned char)*name >= ' ' &&
                     !(path.len == 0 && *name == '.');
        if (plain)
            buf_put_u8(&path, (uint8_t)*name);
        else
            buf_printf(&path, "%%%02X", (unsigned char)*name);
    }
    buf_put_str(&path, ".dump");
    if (!buf_cstr(&path)) {
        buf_free(&path);
        return NULL;
    }
    return (char *)path.data;
}

/* One schema gives the dump its name, else the database does. */
static char *name_of_dump(const struct dump *d)
{
    char *const *schemas = d->o.source->schemas;
    bool only = schemas && schemas[0] && !schemas[1];
    return postgres_dump_name(only ? schemas[0] : postgres_database(d->conn));
}

/* Other chunks ship everything again: the parent's are kept until they are far from right, or all
 * is shipped again anyway. */
static uint32_t choose_chunks(const struct dump *d, uint32_t before)
{
    uint64_t bytes = d->size_expected;
    uint32_t right = CHUNK_BYTES_MIN;
    while (right < CHUNK_BYTES_MAX && bytes / right > CHUNKS_MAX)
        right *= 2;
    bool usable =
        before >= CHUNK_BYTES_MIN && before <= CHUNK_BYTES_MAX && (before & (before - 1)) == 0;
    return usable && !d->anew && before >= right / 2 && before <= right * 4 ? before : right;
}

static uint32_t chunks_of(const struct entry *n)
{
    json_auto_t *j = json_loadb((const char *)n->details.data, n->details.len, 0, NULL);
    json_int_t bytes = json_integer_value(json_object_get(j, "chunk_bytes"));
    return bytes > 0 && bytes <= CHUNK_BYTES_MAX ? (uint32_t)bytes : 0;
}

/* Whether the parent's entry of this name was taken with the same evidence. */
static bool is_same(struct dump *d, const struct entry *n)
{
    if (n->type == ENTRY_DUMP && strcmp(n->path, d->dump_path) == 0) {
        d->size_before = n->size;
        d->chunk_bytes = chunks_of(n);
        d->anew = n->runs.len > CONTENT_RUN_BYTES_MAX / 8 * 7;
    }
    return n->type == ENTRY_DUMP && !n->carried && n->signature.len == strlen(d->evidence) &&
           memcmp(n->signature.data, d->evidence, n->signature.len) == 0;
}

static int compare_with_parent(struct dump *d, struct err *e)
{
    OWN_SPOOL_READER struct spool_reader reader = spool_read(d->o.parent);
    size_t same = 0, other = 0;
    int rc;
    for (;;) {
        struct entry n;
        rc = spool_next(&reader, &n, e);
        if (rc <= 0)
            break;
        if (n.type != ENTRY_CONFIG) {
            bool is = is_same(d, &n);
            same += is;
            other += !is;
        }
        entry_free(&n);
    }
    d->unchanged = d->o.has_parent && other == 0 && same == (d->o.source->globals ? 2 : 1);
    return rc;
}

static int dump_open(const struct source_options *o, void **ret, struct err *e)
{
    struct dump *d = mem_alloc(1, sizeof *d);
    if (!d)
        return err_nomem(e);
    /* What a large dump needs for a moment, up to megabytes, is memory that is to go back at once,
     * which glibc leaves off as soon as a block of that size was freed. */
    mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD);
    mallopt(M_TRIM_THRESHOLD, MMAP_THRESHOLD);
    d->o = *o;
    *ret = d;
    return 0;
}

static int dump_look(void *of, struct plan *plan, struct err *e)
{
    struct dump *d = of;
    OWN_MEM char *sequences = NULL;
    (void)plan;
    int rc = postgres_connect(d->o.source->postgres, &d->conn, e);
    if (rc == 0)
        rc = postgres_look(d->conn, d->o.source, &d->facts, e);
    if (rc == 0 && !(d->dump_path = name_of_dump(d)))
        rc = err_nomem(e);
    if (rc == 0)
        rc = postgres_sequences(d->conn, &sequences, e);
    if (rc == 0)
        rc = postgres_evidence(d->conn, sequences, &d->evidence, e);
    return rc ? rc : compare_with_parent(d, e);
}

static bool dump_is_unchanged(const void *of)
{
    return ((const struct dump *)of)->unchanged;
}

/* ---- taking ---- */

static void tell(const struct dump *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void tell(const struct dump *d, const char *fmt, ...)
{
    char text[512];
    va_list args;
    if (!d->run->notice)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    d->run->notice(d->run->arg, text);
}

/* The transaction whose snapshot pg_dump will see, and what was true in it. */
static int begin(struct dump *d, char **ret_snapshot, struct err *e)
{
    OWN_MEM char *sequences = NULL;
    OWN_POSTGRES_ROWS struct postgres_rows *r = NULL;
    int rc = postgres_sequences(d->conn, &sequences, e);
    if (rc == 0)
        rc = postgres_query(d->conn, "SET idle_in_transaction_session_timeout = 0", NULL, NULL, e);
    if (rc == 0)
        rc = postgres_query(d->conn, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", NULL, NULL,
                            e);
    d->totals.as_of_us = d->totals.first_us = d->totals.last_us = clock_now_us();
    if (rc == 0)
        rc = postgres_query(d->conn, "SELECT pg_export_snapshot()", NULL, &r, e);
    if (rc)
        return rc;
    *ret_snapshot = strdup(postgres_text(r, 0, 0));
    free(TAKE_PTR(d->evidence));
    return *ret_snapshot ? postgres_evidence(d->conn, sequences, &d->evidence, e) : err_nomem(e);
}

/* What is known of the dump, for people and for creating the database again. */
static int make_details(const struct dump *d, const struct dump_summary *summary, struct entry *n,
                        struct err *e)
{
    const struct postgres_facts *f = &d->facts;
    bool whole = !d->o.source->schemas || !d->o.source->schemas[0];
    json_auto_t *asked = json_array();
    for (conf_list s = d->o.source->schemas; s && *s; s++)
        json_array_append_new(asked, json_string(*s));
    json_auto_t *j =
        json_pack("{s:i, s:i, s:s, s:b, s:i, s:O, s:O?, s:O?, s:s?, s:s?, s:s?, s:s?, s:s?, s:s?}",
                  "server", postgres_version(d->conn), "pg_dump", d->dump_version, "database",
                  postgres_database(d->conn), "whole", (int)whole, "chunk_bytes",
                  (int)d->chunk_bytes, "schemas", summary ? dump_summary_schemas(summary) : asked,
                  "rows", summary ? dump_summary_rows(summary) : NULL, "owners",
                  summary ? dump_summary_owners(summary) : NULL, "encoding", f->encoding, "collate",
                  f->collate, "ctype", f->ctype, "provider", f->provider, "locale", f->locale,
                  "owner", f->owner);
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    if (!text)
        return err_set(e, ERR_SOURCE, n->path, "the names in the database are no UTF-8");
    n->details = (struct entry_bytes){.data = (uint8_t *)text, .len = strlen(text)};
    return 0;
}

static int begin_entry(struct dump *d, const char *path, struct entry **ret, struct err *e)
{
    struct entry *n = &d->entries[d->entry_count];
    *n = (struct entry){.type = ENTRY_DUMP, .as_of_us = d->totals.as_of_us};
    n->path = strdup(path);
    n->signature =
        (struct entry_bytes){.data = (uint8_t *)strdup(d->evidence), .len = strlen(d->evidence)};
    d->entry_count++;
    *ret = n;
    return n->path && n->signature.data ? 0 : err_nomem(e);
}

struct argv {
    const char **items;
    char **owned; /* quoted names */
    size_t count, owned_count;
};

static void argv_free(struct argv *a)
{
    for (size_t i = 0; i < a->owned_count; i++)
        free(a->owned[i]);
    free(a->owned);
    free(a->items);
}

static void argv_add(struct argv *a, const char *item)
{
    a->items[a->count++] = item;
}

/* pg_dump takes patterns: quoted, a name stands for itself. */
static int argv_of_dump(const struct dump *d, const char *snapshot, struct argv *a, struct err *e)
{
    size_t schemas = 0;
    for (conf_list s = d->o.source->schemas; s && *s; s++)
        schemas++;
    a->items = mem_alloc(ARGV_FIXED + 2 * schemas, sizeof *a->items);
    a->owned = mem_alloc(schemas + 2, sizeof *a->owned);
    if (!a->items || !a->owned || asprintf(&a->owned[0], "--snapshot=%s", snapshot) < 0 ||
        (a->owned_count++,
         asprintf(&a->owned[1], "--lock-wait-timeout=%d", POSTGRES_LOCK_WAIT_S * 1000) < 0))
        return err_nomem(e);
    a->owned_count++;
    argv_add(a, "pg_dump");
    argv_add(a, "--format=custom");
    argv_add(a, "--compress=0");
    argv_add(a, "--no-password");
    argv_add(a, "--strict-names");
    argv_add(a, a->owned[0]);
    argv_add(a, a->owned[1]);
    for (conf_list s = d->o.source->schemas; s && *s; s++) {
        char *quoted = postgres_quoted(*s);
        if (!quoted)
            return err_nomem(e);
        a->owned[a->owned_count++] = quoted;
        argv_add(a, "-n");
        argv_add(a, quoted);
    }
    return 0;
}

static int take_stream(struct dump *d, const struct postgres_stream *what, struct entry *n,
                       struct err *e)
{
    struct postgres_stream s = *what;
    s.conn = d->conn;
    s.run = d->run;
    s.known = d->plan->chunks;
    s.source = d->o.source->name;
    int rc = postgres_stream_take(&s, n, e);
    if (rc == 0) {
        d->totals.fresh++;
        d->totals.size_bytes += n->size;
    }
    return rc;
}

/* An archive of a newer pg_dump is kept as it is; only what is in it is not known. */
static int finish_dump(struct dump *d, const struct dump_summary *summary, struct entry *n,
                       struct err *e)
{
    struct err why = ERR_INIT;
    int rc = dump_summary_end(summary, &why);
    if (rc == ERR_VERSION) {
        tell(d, "source %s: the rows are not counted: %s", d->o.source->name, why.message);
        return make_details(d, NULL, n, e);
    }
    if (rc) {
        *e = why;
        return err_prefix(e, "no snapshot is made");
    }
    return make_details(d, summary, n, e);
}

static int take_dump(struct dump *d, const char *snapshot, struct err *e)
{
    struct argv a = {0};
    struct entry *n;
    struct dump_summary *summary = dump_summary_new();
    int rc = summary ? argv_of_dump(d, snapshot, &a, e) : err_nomem(e);
    if (rc == 0)
        rc = begin_entry(d, d->dump_path, &n, e);
    struct postgres_stream s = {
        .argv = a.items, .average_bytes = d->chunk_bytes, .anew = d->anew, .summary = summary};
    if (rc == 0)
        rc = take_stream(d, &s, n, e);
    if (rc == 0)
        rc = finish_dump(d, summary, n, e);
    dump_summary_free(summary);
    argv_free(&a);
    return rc;
}

/* Roles and tablespaces are the cluster's: another program, which knows no snapshot. */
static int take_globals(struct dump *d, struct err *e)
{
    OWN_MEM char *database = NULL;
    struct entry *n;
    if (asprintf(&database, "--database=%s", postgres_database(d->conn)) < 0) {
        database = NULL;
        return err_nomem(e);
    }
    const char *argv[] = {"pg_dumpall", "--globals-only", "--no-password", database, NULL, NULL};
    if (!d->facts.superuser) {
        argv[4] = "--no-role-passwords";
        tell(d, "source %s: %s is no superuser, so the roles are kept without their passwords",
             d->o.source->name, postgres_user(d->conn));
    }
    struct postgres_stream s = {.argv = argv, .average_bytes = GLOBALS_CHUNK_BYTES};
    int rc = begin_entry(d, POSTGRES_GLOBALS, &n, e);
    return rc ? rc : take_stream(d, &s, n, e);
}

static int dump_take(void *of, const struct source_run *run, struct plan *plan, bool audit,
                     bool *ret_again, struct err *e)
{
    struct dump *d = of;
    OWN_MEM char *snapshot = NULL;
    (void)audit;
    (void)ret_again;
    d->run = run;
    d->plan = plan;
    int rc = postgres_programs(d->conn, d->o.source, &d->dump_version, e);
    d->size_expected = d->size_before ? d->size_before : postgres_size(d->conn, d->o.source);
    d->chunk_bytes = choose_chunks(d, d->chunk_bytes);
    chunk_table_expect(plan->chunks, d->size_expected / d->chunk_bytes);
    if (rc == 0)
        rc = begin(d, &snapshot, e);
    if (rc == 0 && run->total)
        run->total(run->arg, d->size_expected);
    /* A high level's tables would take the memory that the runs of a large dump need. */
    if (!d->size_before || d->size_before > LARGE_DUMP_BYTES)
        pipeline_effort(run->pipeline, false);
    if (rc == 0)
        rc = take_dump(d, snapshot, e);
    if (rc == 0 && d->o.source->globals)
        rc = take_globals(d, e);
    if (rc == 0)
        rc = postgres_query(d->conn, "COMMIT", NULL, NULL, e);
    return rc;
}

static const struct source_totals *dump_totals(const void *of)
{
    return &((const struct dump *)of)->totals;
}

/* A dump begins with the time when it was made: no two are equal. */
static bool dump_is_as_before(const void *of)
{
    (void)of;
    return false;
}

/* ---- the entry list ---- */

static int by_path(const void *a, const void *b)
{
    return strcmp((*(const struct entry *const *)a)->path, (*(const struct entry *const *)b)->path);
}

static int dump_write(void *of, const struct entry *config, struct content_writer *to,
                      struct err *e)
{
    struct dump *d = of;
    const struct entry *all[ENTRIES_MAX + 1];
    size_t count = 0;
    int rc = 0;
    for (size_t i = 0; i < d->entry_count; i++)
        all[count++] = &d->entries[i];
    if (config)
        all[count++] = config;
    qsort(all, count, sizeof *all, by_path);
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = content_write_entry(to, all[i], e);
    return rc;
}

static int dump_images(const void *of, struct entry_image **ret, size_t *ret_count, struct err *e)
{
    (void)of;
    (void)e;
    *ret = NULL;
    *ret_count = 0;
    return 0;
}

static void dump_close(void *of)
{
    struct dump *d = of;
    if (!d)
        return;
    postgres_close(d->conn);
    postgres_facts_free(&d->facts);
    for (size_t i = 0; i < d->entry_count; i++)
        entry_free(&d->entries[i]);
    free(d->dump_path);
    free(d->evidence);
    free(d);
}

const struct source_ops postgres_source_ops = {.open = dump_open,
                                               .look = dump_look,
                                               .is_unchanged = dump_is_unchanged,
                                               .take = dump_take,
                                               .totals = dump_totals,
                                               .is_as_before = dump_is_as_before,
                                               .write = dump_write,
                                               .images = dump_images,
                                               .close = dump_close};
