/* What the repositories of --from hold, for the person and for the rest of the dialogue. */
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#include "snapshot/entry.h"
#include "syncd/base/clock.h"
#include "syncd/base/mem.h"
#include "syncd/choose.h"
#include "syncd/command.h"
#include "syncd/histories.h"
#include "syncd/kept_config.h"
#include "syncd/rebuild_internal.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"

#define PLACES_TOLD 5
#define OLDER_TOLD 20 /* entries named for each source; the rest is counted */

struct look {
    struct rebuild *rb;
    struct rebuild_source *source;
    struct entry config;
    struct buf older, places; /* places: the topmost entries */
    size_t place_count;
    char top[PATH_MAX];                  /* the last of them */
    char last_owner[64], last_group[64]; /* most entries have those of the one before */
};

/* ---- owners ---- */

static bool is_known(const char *name, bool is_group)
{
    char room[16384];
    struct passwd user, *found_user = NULL;
    struct group group, *found_group = NULL;
    if (is_group)
        return getgrnam_r(name, &group, room, sizeof room, &found_group) == 0 && found_group;
    return getpwnam_r(name, &user, room, sizeof room, &found_user) == 0 && found_user;
}

static void note_owner(struct look *k, const char *name, uint32_t number, bool is_group)
{
    struct rebuild *rb = k->rb;
    char *last = is_group ? k->last_group : k->last_owner;
    if (!name || strlen(name) >= sizeof k->last_owner || strcmp(name, last) == 0)
        return;
    snprintf(last, sizeof k->last_owner, "%s", name);
    for (size_t i = 0; i < rb->owner_count; i++)
        if (rb->owners[i].is_group == is_group && strcmp(rb->owners[i].name, name) == 0)
            return;
    if (rb->owner_count == REBUILD_OWNERS_MAX || is_known(name, is_group))
        return;
    struct rebuild_owner *o = &rb->owners[rb->owner_count++];
    *o = (struct rebuild_owner){.is_group = is_group, .number = number};
    snprintf(o->name, sizeof o->name, "%s", name);
}

static void say_owners(struct rebuild *rb)
{
    char name[128];
    for (size_t i = 0; i < rb->owner_count; i++) {
        const struct rebuild_owner *o = &rb->owners[i];
        report_say(rb->report,
                   "%s '%s' is not known on this machine: its files get the number %u\n",
                   o->is_group ? "the group" : "the user",
                   show_safe_into(o->name, name, sizeof name), (unsigned)o->number);
    }
    if (rb->owner_count)
        report_say(rb->report, "  (Make them first, with any number, and the names come back.)\n");
}

/* ---- one source ---- */

/* Where the source goes: what is not below a folder that is named already. */
static void note_place(struct look *k, const struct entry *n)
{
    size_t len = strlen(k->top);
    char path[1024];
    if (*n->path != '/' || (len && strncmp(n->path, k->top, len) == 0 && n->path[len] == '/') ||
        k->place_count++ >= PLACES_TOLD)
        return;
    snprintf(k->top, sizeof k->top, "%s", n->path);
    buf_printf(&k->places, "%s%s", k->places.len ? ", " : "",
               show_safe_into(n->path, path, sizeof path));
}

static int look_at_entry(void *arg, struct entry *n, struct err *e)
{
    struct look *k = arg;
    char path[1024], reason[512], age[SHOW_SIZE];
    if (n->type == ENTRY_CONFIG)
        return k->config.type ? 0 : entry_copy(n, &k->config, e);
    note_place(k, n);
    k->source->entry_count += n->type != ENTRY_DIR;
    k->source->dump_count += n->type == ENTRY_DUMP;
    k->source->bytes += entry_size(n);
    if (n->has_owner) {
        note_owner(k, n->owner, n->uid, false);
        note_owner(k, n->group, n->gid, true);
    }
    if (!n->carried || k->source->older_count++ >= OLDER_TOLD)
        return 0;
    show_age(n->as_of_us, clock_now_us(), age);
    buf_printf(&k->older, "      older: %s, %s: %s\n", show_safe_into(n->path, path, sizeof path),
               age, show_safe_into(n->carried, reason, sizeof reason));
    return k->older.bad ? err_nomem(e) : 0;
}

/* The newest config of all sources' snapshots. */
static int take_config(struct look *k, struct pool *pool, const struct snapshot *s, struct err *e)
{
    struct rebuild *rb = k->rb;
    OWN_BUF struct buf text = BUF_INIT;
    if (k->config.type == 0 || s->ref.time_s <= rb->config_time_s)
        return 0;
    int rc = kept_config_read(pool, s, &k->config, &text, e);
    if (rc)
        return rc;
    buf_free(&rb->config_text);
    rb->config_text = text;
    text = (struct buf)BUF_INIT;
    rb->config_time_s = s->ref.time_s;
    return 0;
}

static int read_entries(struct look *k, struct pool *pool, struct snapshot *s, struct err *e)
{
    OWN_BLOCK_READER struct block_reader *reader = NULL;
    struct rebuild_source *f = k->source;
    f->ref = s->ref;
    f->as_of_us = s->section.as_of_us;
    f->complete = s->section.complete;
    int rc = block_reader_new(&reader, e);
    if (rc == 0)
        rc = pool_entries(pool, s, reader, look_at_entry, k, e);
    if (rc == 0)
        rc = take_config(k, pool, s, e);
    f->parts = TAKE_PTR(s->parts);
    f->part_count = s->part_count;
    s->part_count = 0;
    return rc;
}

static void say_source(const struct look *k)
{
    const struct rebuild_source *f = k->source;
    const struct rebuild *rb = k->rb;
    char id[SHOW_SIZE], time[CLOCK_TEXT_SIZE], age[SHOW_SIZE], size[SHOW_SIZE];
    OWN_BUF struct buf on = BUF_INIT;
    show_id(f->ref.id, id);
    clock_local(f->as_of_us, time);
    show_age(f->as_of_us, clock_now_us(), age);
    show_size(f->bytes, size);
    for (size_t i = 0; i < rb->s->worker_count; i++)
        if (rb->s->workers[i].store && listing_find(&rb->s->workers[i].listing, &f->ref))
            buf_printf(&on, "%s%s", on.len ? ", " : "", rb->s->workers[i].conf->name);
    report_say(rb->report, "  %s: snapshot %s, taken %s, %s: %zu entr%s, %s; on %s%s\n",
               f->found->name, id, time, age, f->entry_count, f->entry_count == 1 ? "y" : "ies",
               size, buf_cstr(&on) ? buf_cstr(&on) : "?",
               f->complete ? "" : "; it is not complete");
}

static void say_rest(struct look *k)
{
    const struct rebuild_source *f = k->source;
    if (k->places.len && buf_cstr(&k->places))
        report_say(k->rb->report, "      to %s%s\n", buf_cstr(&k->places),
                   k->place_count > PLACES_TOLD ? " and more" : "");
    histories_say(k->rb->s, f->found->name, k->rb->report);
    if (k->older.len && buf_cstr(&k->older))
        report_say(k->rb->report, "%s", buf_cstr(&k->older));
    if (f->older_count > OLDER_TOLD)
        report_say(k->rb->report, "      %zu entries in all are older than the snapshot\n",
                   f->older_count);
}

/* A dump goes into a database server, which this machine may not have yet. */
static void refuse_dumps(struct look *k)
{
    struct rebuild_source *f = k->source;
    if (f->dump_count == 0)
        return;
    err_set(&f->err, ERR_UNSUPPORTED, f->found->name,
            "%s holds dumps of a PostgreSQL database, which do not go to a place on the disk",
            f->found->name);
    err_hint(&f->err, "When the server runs: syncd restore %s --to CONNINFO", f->found->name);
    report_say(k->rb->report,
               "      a PostgreSQL database: it comes back afterwards, by `syncd restore %s --to "
               "CONNINFO`\n",
               f->found->name);
}

static int look_at_source(struct rebuild *rb, struct rebuild_source *f, struct err *e)
{
    struct look k = {.rb = rb, .source = f};
    struct pool pool;
    OWN_SNAPSHOT struct snapshot s = {0};
    int rc = session_list(rb->s, f->found->name, e);
    if (rc)
        return rc;
    session_pool(rb->s, f->found->name, &pool);
    rc = choose_snapshot(&pool, args_value(rb->args, "snapshot"), args_value(rb->args, "at"), &s,
                         &f->err);
    if (rc == 0)
        rc = read_entries(&k, &pool, &s, &f->err);
    pool_close(&pool);
    if (rc == 0) {
        f->err = ERR_INIT; /* what a step on the way left in it is none */
        say_source(&k);
        say_rest(&k);
        refuse_dumps(&k);
    }
    entry_free(&k.config);
    buf_free(&k.older);
    buf_free(&k.places);
    if (rc == ERR_NOMEM || rc == ERR_CANCELLED || rc == ERR_USAGE) {
        *e = f->err;
        return rc;
    }
    if (rc)
        report_say(rb->report, "  %s: cannot be brought back: %s\n", f->found->name,
                   f->err.message);
    return 0;
}

/* ---- all ---- */

static int choose_sources(struct rebuild *rb, struct err *e)
{
    const char *named = rb->args->word_count ? rb->args->words[0] : NULL, *chosen;
    int rc = named ? from_choose_source(&rb->found, named, &chosen, e) : 0;
    if (rc)
        return rc;
    if (rb->found.count == 0)
        return err_set(e, ERR_NOT_FOUND, NULL, "the repository holds no source");
    rb->sources = mem_alloc(rb->found.count, sizeof *rb->sources);
    if (!rb->sources)
        return err_nomem(e);
    for (size_t i = 0; i < rb->found.count; i++)
        if (!named || strcmp(rb->found.sources[i].name, named) == 0)
            rb->sources[rb->source_count++].found = &rb->found.sources[i];
    if (args_value(rb->args, "snapshot") && rb->source_count > 1)
        return err_set(e, ERR_USAGE, "snapshot",
                       "--snapshot names a state of one source, but %zu are to come back: name "
                       "the source, or use --at TIME",
                       rb->source_count);
    return 0;
}

static void say_repository(const struct rebuild *rb)
{
    char made[CLOCK_TEXT_SIZE];
    OWN_BUF struct buf on = BUF_INIT;
    clock_local(rb->s->repository.created_us, made);
    for (size_t i = 0; i < rb->s->worker_count; i++)
        if (rb->s->workers[i].store)
            buf_printf(&on, "%s%s", on.len ? " and " : "", rb->s->workers[i].conf->name);
    report_say(rb->report, "the repository of '%s', begun %s, on %s:\n", rb->s->repository.leader,
               made, buf_cstr(&on) ? buf_cstr(&on) : "?");
}

/* What the config in the snapshot says; one that is not understood is no reason not to restore. */
static void read_config(struct rebuild *rb)
{
    struct err e = ERR_INIT;
    OWN_BUF struct buf hooks = BUF_INIT;
    if (rb->config_text.len == 0 || !buf_cstr(&rb->config_text)) {
        report_say(rb->report, "No snapshot keeps a config.\n");
        return;
    }
    if (conf_parse(args_config_path(rb->args), (const char *)rb->config_text.data,
                   rb->config_text.len, &rb->config, NULL, &e)) {
        report_say(rb->report, "The config in the snapshot is not understood: %s\n", e.message);
        return;
    }
    rb->hook_count = kept_config_show_hooks(rb->config, NULL, false, &hooks);
    if (rb->hook_count && buf_cstr(&hooks))
        report_say(rb->report, "Its config runs these commands of its own:\n%s", buf_cstr(&hooks));
}

int rebuild_look(struct rebuild *rb, struct err *e)
{
    int rc = found_read(rb->s, &rb->found, e);
    if (rc == 0)
        rc = choose_sources(rb, e);
    if (rc)
        return rc;
    say_repository(rb);
    for (size_t i = 0; rc == 0 && i < rb->source_count; i++)
        rc = look_at_source(rb, &rb->sources[i], e);
    if (rc)
        return rc;
    read_config(rb);
    say_owners(rb);
    for (size_t i = 0; i < rb->source_count; i++)
        if (!rb->sources[i].err.code)
            return 0;
    *e = rb->sources[0].err;
    return e->code;
}
