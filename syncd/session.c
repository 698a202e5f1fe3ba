#include "syncd/session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "syncd/base/buf.h"
#include "syncd/base/io.h"
#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/command.h"
#include "syncd/lock.h"
#include "syncd/report.h"

#define REPOSITORY_FILE "repository.json"
#define TOKEN_FILE "token"
#define EPOCH_FILE "epoch.json"
#define SMALL_FILE_MAX 65536u

char *session_state_path(const struct session *s, const char *name)
{
    return io_path(s->conf->state_dir, name);
}

/* ---- what lies in state_dir ---- */

static int read_small(const struct session *s, const char *name, struct buf *ret, struct err *e)
{
    OWN_MEM char *path = session_state_path(s, name);
    return path ? io_read_file(path, SMALL_FILE_MAX, ret, e) : err_nomem(e);
}

static int load_epoch(struct session *s, struct err *e)
{
    OWN_BUF struct buf text = BUF_INIT;
    int rc = read_small(s, EPOCH_FILE, &text, e);
    if (rc)
        return rc == ERR_NOT_FOUND ? 0 : rc;
    return epoch_decode(text.data, text.len, s->conf->state_dir, &s->own, e);
}

static int load_identity(struct session *s, struct err *e)
{
    OWN_BUF struct buf repository = BUF_INIT, token = BUF_INIT;
    int rc = read_small(s, REPOSITORY_FILE, &repository, e);
    if (rc == 0) {
        rc = repository_decode(repository.data, repository.len, s->conf->state_dir, &s->repository,
                               e);
        s->has_repository = rc == 0;
    } else if (rc == ERR_NOT_FOUND) {
        rc = 0;
    }
    if (rc)
        return rc;
    rc = read_small(s, TOKEN_FILE, &token, e);
    if (rc)
        return rc == ERR_NOT_FOUND ? 0 : rc;
    while (token.len && token.data[token.len - 1] == '\n')
        token.len--;
    const char *text = buf_cstr(&token);
    if (!text || !hex_decode(text, s->token, TOKEN_SIZE))
        return err_set(e, ERR_DAMAGED, TOKEN_FILE, "%s/%s is damaged", s->conf->state_dir,
                       TOKEN_FILE);
    s->has_token = true;
    return load_epoch(s, e);
}

static int save_small(struct session *s, const char *name, const struct buf *b, struct err *e)
{
    OWN_MEM char *path = session_state_path(s, name);
    if (!path || b->bad)
        return err_nomem(e);
    return io_replace_file(path, b->data, b->len, 0600, e);
}

int session_save_repository(struct session *s, struct err *e)
{
    OWN_BUF struct buf b = BUF_INIT;
    int rc = repository_encode(&s->repository, &b, e);
    return rc ? rc : save_small(s, REPOSITORY_FILE, &b, e);
}

int session_save_token(struct session *s, struct err *e)
{
    char hex[2 * TOKEN_SIZE + 1];
    OWN_BUF struct buf b = BUF_INIT;
    hex_encode(s->token, TOKEN_SIZE, hex);
    buf_printf(&b, "%s\n", hex);
    return save_small(s, TOKEN_FILE, &b, e);
}

int session_save_epoch(struct session *s, struct err *e)
{
    OWN_BUF struct buf b = BUF_INIT;
    int rc = epoch_encode(&s->own, &b, e);
    return rc ? rc : save_small(s, EPOCH_FILE, &b, e);
}

/* ---- opening ---- */

void session_config_errors(struct report *report, const struct conf_errors *more, struct err *e)
{
    for (size_t i = 0; i < more->count; i++) {
        report_error(report, e);
        err_set(e, ERR_CONFIG, NULL, "%s", more->line[i]);
    }
}

int session_read_config(const struct command_args *args, struct report *report, struct conf **ret,
                        struct err *e)
{
    struct conf_errors more = {0};
    int rc = conf_read(args_config_path(args), ret, &more, e);
    if (rc == ERR_NOT_FOUND || rc == ERR_PERMISSION) /* no config is a mistake of the config, too */
        rc = e->code = ERR_CONFIG;
    if (rc)
        session_config_errors(report, &more, e);
    return rc;
}

static bool is_read_only(const char *path)
{
    struct statvfs vfs;
    return statvfs(path, &vfs) == 0 && (vfs.f_flag & ST_RDONLY);
}

/* A disk that takes nothing does not keep anybody from making or bringing back a snapshot: then
 * what the workers show has to do. */
static int open_catalog(struct session *s, struct err *e)
{
    OWN_MEM char *notice = NULL;
    int rc = catalog_open(s->conf->state_dir, &s->catalog, &notice, e);
    if (rc == ERR_NO_SPACE || (rc == ERR_PERMISSION && is_read_only(s->conf->state_dir))) {
        err_prefix(e, "going on without the catalog");
        log_err(LOG_LEVEL_WARNING, e);
        *e = ERR_INIT;
        rc = catalog_open_memory(&s->catalog, e);
    }
    if (rc == 0 && notice)
        log_msg(LOG_LEVEL_WARNING, "%s", notice);
    return rc;
}

int session_new_bare(struct conf *conf, struct session **ret, struct err *e)
{
    struct session *s = mem_alloc(1, sizeof *s);
    if (!s) {
        conf_free(conf);
        return err_nomem(e);
    }
    s->conf = conf;
    for (size_t i = 0; i < CONF_MAX_WORKERS; i++) {
        s->workers[i].cancel_event = s->workers[i].cancel_fd = -1;
        s->workers[i].cancel = &s->workers[i].cancel_fd;
    }
    int rc = digest_init(e);
    for (size_t i = 0; rc == 0 && i < s->conf->worker_count; i++)
        s->workers[s->worker_count++].conf = &s->conf->workers[i];
    if (rc) {
        session_close(s);
        return rc;
    }
    *ret = s;
    return 0;
}

int session_new(struct conf *conf, bool with_catalog, struct session **ret, struct err *e)
{
    struct session *s = NULL;
    int rc = session_new_bare(conf, &s, e);
    if (rc == 0)
        rc = state_dir_check(s->conf->state_dir, e);
    if (rc == 0)
        rc = load_identity(s, e);
    if (rc == 0 && with_catalog)
        rc = open_catalog(s, e);
    if (rc) {
        session_close(s);
        return rc;
    }
    *ret = s;
    return 0;
}

int session_open(const struct command_args *args, struct report *report, bool with_catalog,
                 struct session **ret, struct err *e)
{
    struct conf *conf = NULL;
    int rc = session_read_config(args, report, &conf, e);
    return rc ? rc : session_new(conf, with_catalog, ret, e);
}
