#include "syncd/looking.h"

#include <string.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/base/nearest.h"
#include "syncd/catalog.h"
#include "syncd/choose.h"
#include "syncd/command.h"
#include "syncd/from.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "syncd/upkeep.h"
#include "transport/store.h"

#define STREAMS 4 /* two databases, each a table and an index */

int looking_open(const struct command_args *args, struct report *report, struct looking *ret,
                 struct err *e)
{
    static const char *const logins[] = {"host-key", "password-file", "identity"};
    *ret = (struct looking){.report = report};
    if (from_is_given(args)) {
        int rc = from_open(args, report, &ret->s, e);
        return rc ? rc : found_read(ret->s, &ret->found, e);
    }
    for (size_t i = 0; i < ARRAY_LEN(logins); i++)
        if (args_count(args, logins[i]))
            return err_set(e, ERR_USAGE, logins[i], "--%s goes with --from URL", logins[i]);
    int rc = session_open(args, report, true, &ret->s, e);
    if (rc == 0)
        rc = session_connect(ret->s, e);
    for (size_t i = 0; rc == 0 && i < ret->s->worker_count; i++)
        if (ret->s->workers[i].err.code)
            report_warning(report, &ret->s->workers[i].err);
    return rc;
}

void looking_close(struct looking *l)
{
    block_cache_free(l->blocks);
    pool_close(&l->pool);
    found_free(&l->found);
    session_close(l->s);
    *l = (struct looking){0};
}

/* ---- the snapshot ---- */

/* A block that failed on one worker was taken from the other; that is worth knowing. */
static void on_damage(void *arg, struct store *store, const struct part_ref *ref,
                      const struct err *e)
{
    struct looking *l = arg;
    struct err failed = ERR_INIT;
    char stem[PART_NAME_SIZE];
    upkeep_stem(ref, stem);
    log_msg(LOG_LEVEL_WARNING, "%s: %s", store->name, e->message);
    if (l->s->catalog &&
        catalog_damage_add(l->s->catalog, store->name, l->source, stem, clock_now_us(), &failed))
        log_err(LOG_LEVEL_WARNING, &failed);
}

static const char *source_name(const struct looking *l, size_t i)
{
    bool from = l->found.count > 0;
    size_t count = from ? l->found.count : l->s->conf->source_count;
    if (i >= count)
        return NULL;
    return from ? l->found.sources[i].name : l->s->conf->sources[i].name;
}

static int use_source(struct looking *l, const char *source, struct err *e)
{
    int rc = session_list(l->s, source, e);
    if (rc)
        return rc;
    pool_close(&l->pool);
    session_pool(l->s, source, &l->pool);
    l->source = source;
    l->pool.damage = on_damage;
    l->pool.arg = l;
    return 0;
}

/* The source that has a snapshot with this id. */
static int source_of(struct looking *l, const char *id, const char **ret, struct err *e)
{
    const char *found = NULL, *name;
    for (size_t i = 0; (name = source_name(l, i)); i++) {
        OWN_SNAPSHOT struct snapshot s = {0};
        int rc = use_source(l, name, e);
        if (rc == 0)
            rc = choose_snapshot(&l->pool, id, NULL, &s, e);
        if (rc && rc != ERR_NOT_FOUND)
            return rc;
        if (rc == 0 && found)
            return err_set(e, ERR_USAGE, id, "'%s' fits a snapshot of '%s' and one of '%s'", id,
                           found, name);
        found = rc == 0 ? name : found;
    }
    if (!found) {
        err_set(e, ERR_NOT_FOUND, id, "no source has a snapshot with the id '%s'", id);
        return err_hint(e, "`syncd snapshots` lists them.");
    }
    *ret = found;
    return 0;
}

static int choose_named(struct looking *l, const char *named, const char **ret, struct err *e)
{
    int rc = l->found.count ? from_choose_source(&l->found, named, ret, e)
                            : choose_source(l->s, named, ret, e);
    if (rc == ERR_USAGE && !named)
        err_hint(e, "--source NAME says which.");
    return rc;
}

int looking_choose(struct looking *l, const struct command_args *args, const char *const *ids,
                   size_t count, struct snapshot *ret, struct err *e)
{
    const char *named = args_value(args, "source"), *source = NULL, *id = NULL;
    for (size_t i = count; i > 0; i--) {
        int rc = choose_check(ids[i - 1], NULL, e);
        if (rc)
            return rc;
        if (strcmp(ids[i - 1], "latest") != 0)
            id = ids[i - 1];
    }
    bool search = !named && id && source_name(l, 1);
    int rc = search ? source_of(l, id, &source, e) : choose_named(l, named, &source, e);
    if (rc == 0 && (!l->source || strcmp(l->source, source) != 0))
        rc = use_source(l, source, e);
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = choose_snapshot(&l->pool, ids[i], NULL, &ret[i], e);
    if (rc == 0 && !l->blocks)
        rc = block_cache_new(&l->pool, LOOKING_CACHE_BYTES, STREAMS, &l->blocks, e);
    return rc;
}

/* ---- the entry ---- */

bool looking_is_database(const struct entry *n)
{
    return n->type == ENTRY_IMAGE || n->type == ENTRY_DUMP;
}

const char *looking_kind(const struct entry *n)
{
    static const char *const names[] = {
        [ENTRY_FILE] = "file",          [ENTRY_DIR] = "folder",      [ENTRY_SYMLINK] = "link",
        [ENTRY_HARDLINK] = "hard link", [ENTRY_DUMP] = "PostgreSQL", [ENTRY_CONFIG] = "config"};
    if (n->type == ENTRY_IMAGE)
        return n->image.kind == IMAGE_SQLITE ? "SQLite" : "bolt";
    return names[n->type];
}

struct search {
    const char *path;
    struct entry exact, ending; /* type 0: none yet */
    size_t endings, databases;
    struct nearest nearest;
    char *near;        /* the path of the nearest name */
    struct buf listed; /* the databases' paths */
};

static bool ends_in(const char *path, const char *end)
{
    size_t n = strlen(path), k = strlen(end);
    return n > k && path[n - k - 1] == '/' && strcmp(path + n - k, end) == 0;
}

static const char *last_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void offer_near(struct search *q, const char *path)
{
    char *copy = strdup(path);
    const char *name = copy ? last_name(copy) : "";
    nearest_offer(&q->nearest, name);
    if (q->nearest.best == name) {
        free(q->near);
        q->near = copy;
    } else {
        free(copy);
    }
}

static int look_at(void *arg, struct entry *n, struct err *e)
{
    struct search *q = arg;
    struct entry *to = NULL;
    bool database = looking_is_database(n);
    if (database && q->databases++ < 5)
        buf_printf(&q->listed, "%s%s", q->databases > 1 ? ", " : "", n->path);
    if (q->path && strcmp(n->path, q->path) == 0)
        to = &q->exact;
    else if (q->path && *q->path != '/' ? ends_in(n->path, q->path) : !q->path && database)
        to = &q->ending;
    q->endings += to == &q->ending;
    if (q->path && !to)
        offer_near(q, n->path);
    return to && !to->type ? entry_copy(n, to, e) : 0;
}

static int search(struct looking *l, const struct snapshot *s, struct search *q, struct err *e)
{
    OWN_BLOCK_READER struct block_reader *r = NULL;
    if (q->path)
        q->nearest = nearest_start(last_name(q->path));
    int rc = block_reader_new(&r, e);
    return rc ? rc : pool_entries(&l->pool, s, r, look_at, q, e);
}

static int not_one(const struct search *q, struct err *e)
{
    const char *listed = buf_cstr((struct buf *)(uintptr_t)&q->listed);
    if (q->path && q->endings > 1)
        return err_set(e, ERR_USAGE, q->path,
                       "'%s' ends the paths of %zu entries; write more of it", q->path, q->endings);
    if (q->path) {
        err_set(e, ERR_NOT_FOUND, q->path, "the snapshot has no entry '%s'%s%s%s", q->path,
                q->near ? "; did you mean '" : "", q->near ? q->near : "", q->near ? "'?" : "");
        return err_hint(e, "`syncd inspect SNAPSHOT` lists the databases in it.");
    }
    if (q->databases == 0)
        return err_set(e, ERR_NOT_FOUND, NULL, "the snapshot holds no database");
    err_set(e, ERR_USAGE, NULL, "the snapshot holds %zu databases; name one", q->databases);
    return err_hint(e, "They are %s%s", listed ? listed : "", q->databases > 5 ? ", ..." : ".");
}

/* A hard link stands for the entry that it equals. */
static int follow(struct looking *l, const struct snapshot *s, struct entry *n, struct err *e)
{
    struct search q = {.path = n->link};
    int rc = search(l, s, &q, e);
    if (rc == 0 && (!q.exact.type || q.exact.type == ENTRY_HARDLINK))
        rc = err_set(e, ERR_DAMAGED, n->path, "the hard link %s leads to %s, which is no entry",
                     n->path, n->link);
    if (rc == 0) {
        entry_free(n);
        *n = q.exact;
        q.exact = (struct entry){0};
    }
    entry_free(&q.exact);
    entry_free(&q.ending);
    free(q.near);
    buf_free(&q.listed);
    return rc;
}

int looking_entry(struct looking *l, const struct snapshot *s, const char *path, struct entry *ret,
                  struct err *e)
{
    struct search q = {.path = path};
    int rc = search(l, s, &q, e);
    struct entry *one = q.exact.type ? &q.exact : q.endings == 1 ? &q.ending : NULL;
    if (rc == 0 && !one)
        rc = not_one(&q, e);
    if (rc == 0 && one->type == ENTRY_HARDLINK)
        rc = follow(l, s, one, e);
    if (rc == 0) {
        *ret = *one;
        *one = (struct entry){0};
    }
    entry_free(&q.exact);
    entry_free(&q.ending);
    free(q.near);
    buf_free(&q.listed);
    return rc;
}

int looking_image(struct looking *l, const struct snapshot *s, const struct entry *n,
                  struct image_reader **ret, struct err *e)
{
    struct image_reader_params p = {.pool = &l->pool,
                                    .blocks = l->blocks,
                                    .snapshot = s,
                                    .entry = n,
                                    .map_limit_bytes = LOOKING_MAP_BYTES};
    return image_reader_open(&p, ret, e);
}
