/* syncd inspect: look inside a stored, or a live local, database. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "snapshot/bolt_file.h"
#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/inspect.h"
#include "syncd/looking.h"
#include "syncd/report.h"
#include "syncd/show.h"

static const struct inspect_verb *const all_verbs[] = {inspect_sqlite_verbs, inspect_bolt_verbs,
                                                       inspect_postgres_verbs};

static const struct inspect_verb *find_verb(const struct inspect_verb *verbs, const char *name)
{
    for (; verbs->name; verbs++)
        if (strcmp(verbs->name, name) == 0)
            return verbs;
    return NULL;
}

static bool is_verb(const char *word)
{
    for (size_t i = 0; i < ARRAY_LEN(all_verbs); i++)
        if (find_verb(all_verbs[i], word))
            return true;
    return false;
}

/* ---- which question ---- */

static int wrong_verb(const struct inspect_verb *verbs, const char *kind, const char *word,
                      struct err *e)
{
    OWN_BUF struct buf names = BUF_INIT;
    for (; verbs->name; verbs++)
        buf_printf(&names, "%s`%s%s`", names.len ? ", " : "", verbs->name, verbs->usage);
    if (word)
        err_set(e, ERR_USAGE, word, "'%s' is no question to a %s database", word, kind);
    else
        err_set(e, ERR_USAGE, NULL, "what about it?");
    const char *text = buf_cstr(&names);
    return err_hint(e, "There is %s.", text ? text : "");
}

static int ask(struct inspected *i, const struct inspect_verb *verbs, const char *kind,
               struct err *e)
{
    const struct inspect_verb *verb = i->verb ? find_verb(verbs, i->verb) : NULL;
    if (!verb)
        return wrong_verb(verbs, kind, i->verb, e);
    if (i->word_count < verb->min_words || i->word_count > verb->max_words)
        return err_set(e, ERR_USAGE, i->verb, "usage: %s%s", verb->name, verb->usage);
    return verb->run(i, e);
}

static const struct inspect_verb *verbs_of(uint8_t image_kind)
{
    return image_kind == IMAGE_SQLITE ? inspect_sqlite_verbs : inspect_bolt_verbs;
}

/* ---- stored ---- */

struct listing_databases {
    struct report *report;
    struct table *table;
    json_t *json;
};

static int add_database(void *arg, struct entry *n, struct err *e)
{
    struct listing_databases *l = arg;
    char size[SHOW_SIZE], time[CLOCK_TEXT_SIZE];
    (void)e;
    if (!looking_is_database(n))
        return 0;
    show_size(entry_size(n), size);
    clock_local(n->as_of_us, time);
    json_t *o = json_object();
    report_json_set(o, "path", report_json_text(n->path));
    report_json_set(o, "kind", report_json_text(looking_kind(n)));
    report_json_set(o, "bytes", report_json_size(entry_size(n)));
    report_json_set(o, "as_of", report_json_time(n->as_of_us));
    json_array_append_new(l->json, o);
    table_add(l->table, looking_kind(n));
    table_add(l->table, size);
    table_add(l->table, time);
    table_add(l->table, n->path);
    return 0;
}

/* `inspect SNAPSHOT` alone: what there is to look into. */
static int list_databases(struct looking *l, const struct snapshot *s, struct err *e)
{
    static const char *const titles[] = {"KIND", ">SIZE", "AS OF", "PATH", NULL};
    struct listing_databases d = {l->report, table_new(titles), json_array()};
    OWN_BLOCK_READER struct block_reader *r = NULL;
    OWN_BUF struct buf text = BUF_INIT;
    int rc = d.table ? block_reader_new(&r, e) : err_nomem(e);
    if (rc == 0)
        rc = pool_entries(&l->pool, s, r, add_database, &d, e);
    if (rc == 0) {
        table_print(d.table, &text);
        report_write(l->report, text.data, text.len);
    }
    report_set(l->report, "databases", d.json);
    table_free(d.table);
    return rc;
}

static void say_choice(struct looking *l, const struct snapshot *s)
{
    report_set(l->report, "source", report_json_text(l->source));
    report_set(l->report, "snapshot", report_json_id(s->ref.id));
    report_set(l->report, "taken_at", report_json_time(s->section.as_of_us));
}

static int not_a_database(const struct entry *n, struct err *e)
{
    err_set(e, ERR_USAGE, n->path, "%s is a %s, not a database", n->path, looking_kind(n));
    return n->type == ENTRY_FILE ? err_hint(e, "`syncd restore --path PATH --output -` prints it.")
                                 : ERR_USAGE;
}

static int inspect_entry(struct looking *l, const struct snapshot *s, const struct entry *n,
                         struct inspected *i, struct err *e)
{
    OWN_IMAGE_READER struct image_reader *image = NULL;
    report_set(l->report, "path", report_json_text(n->path));
    report_set(l->report, "kind", report_json_text(looking_kind(n)));
    report_set(l->report, "as_of", report_json_time(n->as_of_us));
    i->name = n->path;
    if (n->type == ENTRY_DUMP) {
        i->dump = n;
        return ask(i, inspect_postgres_verbs, looking_kind(n), e);
    }
    if (n->type != ENTRY_IMAGE)
        return not_a_database(n, e);
    int rc = looking_image(l, s, n, &image, e);
    i->image = image;
    return rc ? rc : ask(i, verbs_of(n->image.kind), looking_kind(n), e);
}

static void set_words(struct inspected *i, size_t used)
{
    const char *const *words = i->args->words + used;
    i->verb = words[0];
    i->words = words[0] ? words + 1 : words;
    i->word_count = words[0] ? i->args->word_count - used - 1 : 0;
}

static int inspect_stored(struct inspected *i, struct err *e)
{
    const char *const *words = i->args->words;
    OWN_LOOKING struct looking l = {0};
    OWN_SNAPSHOT struct snapshot s = {0};
    struct entry n = {0};
    if (!words[0])
        return err_set(e, ERR_USAGE, NULL, "which snapshot? Give its id, `latest`, or --file PATH");
    const char *path = words[1] && !is_verb(words[1]) ? words[1] : NULL;
    size_t used = path ? 2 : 1;
    int rc = looking_open(i->args, i->report, &l, e);
    if (rc == 0)
        rc = looking_choose(&l, i->args, words, 1, &s, e);
    if (rc)
        return rc;
    say_choice(&l, &s);
    if (!words[1])
        return list_databases(&l, &s, e);
    set_words(i, used);
    rc = looking_entry(&l, &s, path, &n, e);
    if (rc == 0)
        rc = inspect_entry(&l, &s, &n, i, e);
    entry_free(&n);
    if (l.blocks) {
        struct block_cache_counts counts = block_cache_counts(l.blocks);
        report_set(l.report, "bytes_read", report_json_size(counts.stored_bytes));
    }
    return rc;
}

/* ---- live files ---- */

/* By its first bytes; nothing of SQLite is open on the file yet, so that closing it harms no lock.
 */
static int kind_of_file(const char *path, enum image_kind *ret, struct err *e)
{
    static const char magic[16] = "SQLite format 3";
    OWN_MEM uint8_t *head = malloc(BOLT_SNIFF_BYTES);
    OWN_FD int fd = io_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    struct stat st;
    if (!head)
        return err_nomem(e);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, errno, path, "cannot open %s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_USAGE, path, "%s is no regular file", path);
    ssize_t n = io_pread_full(fd, head, BOLT_SNIFF_BYTES, 0);
    if (n < 0)
        return err_sys(e, errno, path, "cannot read %s", path);
    if (n >= (ssize_t)sizeof magic && memcmp(head, magic, sizeof magic) == 0)
        *ret = IMAGE_SQLITE;
    else if (bolt_sniff(head, (size_t)n))
        *ret = IMAGE_BOLT;
    else
        return err_set(e, ERR_USAGE, path, "%s is neither a SQLite nor a bolt database", path);
    return 0;
}

static int inspect_file(struct inspected *i, struct err *e)
{
    enum image_kind kind = IMAGE_SQLITE;
    i->name = args_value(i->args, "file");
    set_words(i, 0);
    int rc = kind_of_file(i->name, &kind, e);
    report_set(i->report, "path", report_json_text(i->name));
    return rc ? rc : ask(i, verbs_of(kind), kind == IMAGE_SQLITE ? "SQLite" : "bolt", e);
}

int cmd_inspect(const struct command_args *args, struct report *report)
{
    struct inspected i = {.args = args, .report = report};
    struct err e = ERR_INIT;
    int rc = args_value(args, "file") ? inspect_file(&i, &e) : inspect_stored(&i, &e);
    return rc ? report_error(report, &e) : EXIT_DONE;
}
