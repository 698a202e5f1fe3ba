/* syncd check: the sources. */
#include "syncd/check.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/tree_file.h"
#include "syncd/identity.h"
#include "syncd/session.h"
#include "transport/url.h"

static void check_owner(struct checking *c, const char *path, const struct stat *st)
{
    struct err e = ERR_INIT;
    char owner[IDENTITY_NAME_SIZE], us[IDENTITY_NAME_SIZE];
    const char *state_dir = c->s->conf->state_dir;
    if (st->st_uid == geteuid())
        return;
    identity_name(st->st_uid, owner);
    identity_name(geteuid(), us);
    err_set(&e, ERR_PERMISSION, path,
            "%s belongs to %s, but syncd runs as %s: what a reader of another user leaves beside a "
            "database can lock its owner out",
            path, owner, us);
    err_hint(&e,
             "Run syncd as the owner of the databases: chown -R %s: %s, and start it as root "
             "or as %s.",
             owner, state_dir, owner);
    check_add(c, CHECK_ERROR, &e);
}

/* One syncd works as one user. */
static void check_one_owner(struct checking *c)
{
    struct err e = ERR_INIT;
    uid_t uid;
    gid_t gid;
    if (identity_sources_owner(c->s->conf, &uid, &gid, &e) == ERR_CONFIG)
        check_add(c, CHECK_ERROR, &e);
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
        check_add(c, CHECK_ERROR, &e);
    }
}

static const char *kind_of(const char *path, const struct stat *st)
{
    char real[PATH_MAX];
    struct tree_item item = {.path = real, .dir_fd = AT_FDCWD, .name = real};
    enum image_kind kind;
    if (S_ISDIR(st->st_mode))
        return "a folder";
    if (!realpath(path, real) || !tree_file_is_database(&item, &kind))
        return "a file, copied as it is";
    return kind == IMAGE_BOLT ? "a bolt database" : "a SQLite database";
}

static void check_path(struct checking *c, const struct conf_source *source, const char *path)
{
    struct err e = ERR_INIT;
    struct stat st;
    if (stat(path, &st) < 0) {
        err_sys(&e, errno, path, "source %s: cannot look at %s", source->name, path);
        err_hint(&e, "Is the path in the source's block right, and its disk mounted?");
        check_add(c, CHECK_ERROR, &e);
        return;
    }
    if (access(path, S_ISDIR(st.st_mode) ? R_OK | X_OK : R_OK) < 0) {
        err_sys(&e, errno, path, "source %s: cannot read %s", source->name, path);
        check_add(c, CHECK_ERROR, &e);
        return;
    }
    check_owner(c, path, &st);
    check_other_disk(c, path, &st);
    err_set(&e, 0, path, "source %s: %s (%s)", source->name, path, kind_of(path, &st));
    check_add(c, CHECK_OK, &e);
}

static void check_source(struct checking *c, const struct conf_source *source)
{
    for (conf_list path = source->path; path && *path; path++)
        check_path(c, source, *path);
    check_versions(c, source->name);
    check_preset(c, source);
    if (source->postgres)
        check_postgres(c, source);
}

void check_sources(struct checking *c)
{
    struct err e = ERR_INIT;
    const struct conf *conf = c->s->conf;
    if (conf->source_count == 0) {
        err_set(&e, ERR_CONFIG, conf->file, "%s names no source: nothing is backed up", conf->file);
        err_hint(&e, "Add a block such as: source \"data\" { path = \"/srv/data.sqlite\" every = "
                     "\"15m\" }");
        check_add(c, CHECK_ERROR, &e);
    }
    for (size_t i = 0; i < conf->source_count; i++)
        check_source(c, &conf->sources[i]);
    check_one_owner(c);
}
