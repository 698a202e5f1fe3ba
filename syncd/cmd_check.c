/* syncd check: everything that would fail tonight. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/sqlite_source.h"
#include "syncd/base/clock.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "transport/store.h"
#include "transport/url.h"

#define SKEW_SHOWN_US (600 * US_PER_S) /* DESIGN 9: time */
#define SKEW_STOPS_US (86400 * US_PER_S)

enum level { LEVEL_OK, LEVEL_WARNING, LEVEL_ERROR };

struct checking {
    struct session *s;
    struct report *report;
    json_t *list;
    size_t warnings, errors;
};

static void add(struct checking *c, enum level level, const struct err *e)
{
    static const char *const names[] = {"ok", "warning", "error"};
    json_t *o = json_object();
    report_json_set(o, "object", report_json_text(e->object));
    report_json_set(o, "level", report_json_text(names[level]));
    report_json_set(o, "message", report_json_text(e->message));
    report_json_set(o, "hint", report_json_text(e->hint[0] ? e->hint : NULL));
    json_array_append_new(c->list, o);
    c->warnings += level == LEVEL_WARNING;
    c->errors += level == LEVEL_ERROR;
    if (level == LEVEL_OK) {
        report_say(c->report, "ok       %s\n", e->message);
        return;
    }
    if (report_is_json(c->report)) {
        if (level == LEVEL_ERROR)
            report_error(c->report, e);
        return;
    }
    report_print(c->report, "%-8s %s\n", names[level], e->message);
    if (e->hint[0])
        report_print(c->report, "         -> %s\n", e->hint);
}

/* ---- workers ---- */

static void check_space(struct checking *c, const struct session_worker *w)
{
    struct store_space space;
    struct err e = ERR_INIT;
    char room[SHOW_SIZE], wanted[SHOW_SIZE];
    const char *name = w->conf->name;
    if (!w->store->abilities.space) {
        err_set(&e, 0, name, "%s: its server does not tell free space, so min_free is not kept",
                name);
        add(c, LEVEL_WARNING, &e);
        return;
    }
    if (store_space(w->store, &space, &e)) {
        add(c, LEVEL_ERROR, &e);
        return;
    }
    uint64_t min = w->conf->min_free_is_percent ? space.total_bytes / 100 * w->conf->min_free
                                                : w->conf->min_free;
    show_size(space.free_bytes, room);
    show_size(min, wanted);
    if (space.free_bytes < min) {
        err_set(&e, ERR_NO_SPACE, name, "%s: only %s are free, min_free is %s", name, room, wanted);
        err_hint(&e, "Make room there, or lower min_free in the worker's block.");
        add(c, LEVEL_ERROR, &e);
        return;
    }
    err_set(&e, 0, name, "%s: %s free", name, room);
    add(c, LEVEL_OK, &e);
}

/* Writes a small file, which proves that writing works, and compares its time with ours. */
static void check_writing(struct checking *c, const struct session_worker *w)
{
    uint8_t random[8];
    char hex[2 * sizeof random + 1], path[64], skew[SHOW_SIZE];
    struct store_file *f = NULL;
    struct store_stat st = {0};
    struct err e = ERR_INIT;
    const char *name = w->conf->name;
    io_random(random, sizeof random);
    hex_encode(random, sizeof random, hex);
    snprintf(path, sizeof path, "tmp/check-%s", hex);
    int64_t before_us = clock_now_us();
    int rc = store_create(w->store, path, &f, &e);
    if (rc == 0)
        rc = store_write(f, hex, sizeof hex, &e);
    int closed = store_close_file(f, rc ? NULL : &e);
    rc = rc ? rc : closed;
    if (rc == 0)
        rc = store_stat(w->store, path, &st, &e);
    store_remove(w->store, path, NULL);
    if (rc) {
        add(c, LEVEL_ERROR, &e);
        return;
    }
    int64_t off_us = st.mtime_us - before_us;
    off_us = off_us < 0 ? -off_us : off_us;
    if (off_us <= SKEW_SHOWN_US)
        return;
    show_duration(off_us, skew);
    err_set(&e, 0, name, "%s: its clock and this machine's are %s apart%s", name, skew,
            off_us > SKEW_STOPS_US ? "; freshness is shown as 'clock' and nothing is pruned" : "");
    err_hint(&e, "Set the clock of the machine that is wrong (systemd-timesyncd does it).");
    add(c, off_us > SKEW_STOPS_US ? LEVEL_ERROR : LEVEL_WARNING, &e);
}

static void check_worker(struct checking *c, const struct session_worker *w)
{
    struct err e = ERR_INIT;
    const char *name = w->conf->name;
    if (!w->store) {
        add(c, LEVEL_ERROR, &w->err);
        return;
    }
    err_set(&e, 0, name, "%s: %s, repository of '%s'", name, w->conf->url, w->repository.leader);
    add(c, LEVEL_OK, &e);
    if (!w->store->abilities.fsync) {
        err_set(&e, 0, name,
                "%s: its server cannot fsync: a power cut there can lose the newest files", name);
        err_hint(&e, "OpenSSH's sftp-server can; others often cannot. syncd notices lost files and "
                     "ships them again.");
        add(c, LEVEL_WARNING, &e);
    }
    check_writing(c, w);
    check_space(c, w);
}

/* ---- sources ---- */

static void check_owner(struct checking *c, const char *path, const struct stat *st)
{
    struct err e = ERR_INIT;
    if (st->st_uid == geteuid())
        return;
    err_set(&e, ERR_PERMISSION, path, "%s belongs to user %u, but syncd runs as user %u", path,
            (unsigned)st->st_uid, (unsigned)geteuid());
    err_hint(&e, "Run syncd as the owner of the databases: a reader of another user can leave "
                 "files beside them that lock the owner out.");
    add(c, LEVEL_WARNING, &e);
}

/* A copy on the disk that fails is no copy. */
static void check_other_disk(struct checking *c, const char *path, const struct stat *st)
{
    for (size_t i = 0; i < c->s->worker_count; i++) {
        struct url url;
        struct stat repo;
        struct err e = ERR_INIT;
        const char *name = c->s->workers[i].conf->name;
        if (url_parse(c->s->workers[i].conf->url, &url, &e) || url.scheme != URL_FILE ||
            stat(url.path, &repo) < 0 || repo.st_dev != st->st_dev)
            continue;
        err_set(&e, ERR_CONFIG, path, "%s is on the same file system as the repository of %s", path,
                name);
        err_hint(&e, "Put that repository on another disk, or on another machine.");
        add(c, LEVEL_ERROR, &e);
    }
}

static void check_path(struct checking *c, const struct conf_source *source, const char *path)
{
    struct err e = ERR_INIT;
    struct stat st;
    if (stat(path, &st) < 0) {
        err_sys(&e, errno, path, "source %s: cannot look at %s", source->name, path);
        err_hint(&e, "Is the path in the source's block right, and its disk mounted?");
        add(c, LEVEL_ERROR, &e);
        return;
    }
    if (access(path, R_OK) < 0) {
        err_sys(&e, errno, path, "source %s: cannot read %s", source->name, path);
        add(c, LEVEL_ERROR, &e);
        return;
    }
    if (!sqlite_is_database(path)) {
        err_set(&e, ERR_SOURCE, path, "source %s: %s is not a SQLite database (or it is encrypted)",
                source->name, path);
        add(c, LEVEL_ERROR, &e);
        return;
    }
    check_owner(c, path, &st);
    check_other_disk(c, path, &st);
    err_set(&e, 0, path, "source %s: %s", source->name, path);
    add(c, LEVEL_OK, &e);
}

static void check_sources(struct checking *c)
{
    struct err e = ERR_INIT;
    if (c->s->conf->source_count == 0) {
        err_set(&e, ERR_CONFIG, c->s->conf->file, "%s names no source: nothing is backed up",
                c->s->conf->file);
        add(c, LEVEL_ERROR, &e);
    }
    for (size_t i = 0; i < c->s->conf->source_count; i++) {
        const struct conf_source *source = &c->s->conf->sources[i];
        for (conf_list path = source->path; path && *path; path++)
            check_path(c, source, *path);
        if (!source->path) {
            err_set(&e, ERR_UNSUPPORTED, source->name,
                    "source %s: this version takes sources with `path` only", source->name);
            add(c, LEVEL_ERROR, &e);
        }
        if (source->max_age_s == 0) {
            err_set(&e, 0, source->name,
                    "source %s has neither every, schedule nor max_age: nobody can say whether it "
                    "is fresh",
                    source->name);
            add(c, LEVEL_WARNING, &e);
        }
    }
}

static void check_all(struct checking *c)
{
    struct err e = ERR_INIT;
    session_connect(c->s, &e);
    if (c->s->worker_count == 0)
        add(c, LEVEL_ERROR, &e);
    for (size_t i = 0; i < c->s->worker_count; i++)
        check_worker(c, &c->s->workers[i]);
    if (session_attached(c->s) && session_check_leader(c->s, &e))
        add(c, LEVEL_ERROR, &e);
    check_sources(c);
}

int cmd_check(const struct command_args *args, struct report *report)
{
    struct checking c = {.report = report, .list = json_array()};
    struct err e = ERR_INIT;
    int rc = session_open(args, report, true, &c.s, &e);
    if (rc == 0)
        check_all(&c);
    report_set(report, "checks", c.list);
    session_close(c.s);
    if (rc)
        return report_error(report, &e);
    if (c.errors)
        return EXIT_NOTHING;
    return c.warnings ? EXIT_PARTLY : EXIT_DONE;
}
