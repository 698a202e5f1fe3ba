#include "transport/sftp.h"

#include <stdio.h>
#include <string.h>

#include "syncd/base/clock.h"
#include "syncd/base/mem.h"
#include "transport/host_key.h"
#include "transport/sftp_session.h"

#define TIMEOUT_DEFAULT_S 30

static void sftp_close(struct store *st)
{
    sftp_session_end(sftp_of(st));
    free(st);
}

static const struct store_ops sftp_ops = {
    .list = sftp_list,
    .stat = sftp_stat,
    .make_dir = sftp_make_dir,
    .remove = sftp_remove,
    .rename = sftp_rename,
    .set_mtime = sftp_set_mtime,
    .space = sftp_space,
    .probe = sftp_probe,
    .create = sftp_create,
    .open = sftp_open_file,
    .write = sftp_write,
    .read_at = sftp_read_at,
    .sync = sftp_sync,
    .sync_name = sftp_sync_name,
    .close_file = sftp_close_file,
    .make_root = sftp_make_root,
    .enrol_key = sftp_enrol_key,
    .close = sftp_close,
};

static void sftp_freep(struct sftp **s)
{
    if (*s)
        sftp_close(&(*s)->store);
}

/* A session object on which nothing has happened yet, or NULL. */
static struct sftp *new_sftp(const char *name, const struct url *url, int timeout_s,
                             const int *cancel_fd, struct err *e)
{
    struct sftp *s = mem_alloc(1, sizeof *s);
    if (!s) {
        err_nomem(e);
        return NULL;
    }
    s->store.ops = &sftp_ops;
    snprintf(s->store.name, sizeof s->store.name, "%s", name);
    s->url = *url;
    s->fd = -1;
    s->wait.cancel_fd = cancel_fd;
    s->timeout_us = (timeout_s > 0 ? timeout_s : TIMEOUT_DEFAULT_S) * US_PER_S;
    s->patience_us = s->timeout_us;
    if (sftp_session_new(s, e)) {
        free(s);
        return NULL;
    }
    return s;
}

/* Connects and makes sure that it is the right server. */
static int connect_to_known(struct sftp *s, const struct store_options *o, struct err *e)
{
    struct host_keys keys;
    char types[HOST_KEY_TYPES_SIZE];
    int rc = host_keys_load(s->session, o->known_hosts, &keys, e);
    if (rc)
        return rc;
    host_keys_types(&keys, &s->url, types);
    rc = sftp_session_connect(s, types, e);
    if (rc == 0)
        rc = host_keys_check(&keys, s->session, &s->url, o->host_key_sha256, s->store.name, e);
    host_keys_free(&keys);
    return rc;
}

int sftp_open(const struct store_options *o, struct store **ret, struct err *e)
{
    CLEANUP(sftp_freep)
    struct sftp *s = new_sftp(o->name, &o->url, o->timeout_s, o->cancel_fd, e);
    if (!s)
        return ERR_NOMEM;
    s->rate.bytes_per_s = o->max_rate;
    int rc = connect_to_known(s, o, e);
    if (rc == 0)
        rc = sftp_login(s, o, e);
    if (rc == 0)
        rc = sftp_session_start(s, e);
    if (rc == 0)
        *ret = &TAKE_PTR(s)->store;
    return rc;
}

int store_host_key(const struct store_options *o, struct host_key *ret, struct err *e)
{
    if (o->url.scheme != URL_SFTP)
        return err_set(e, ERR_UNSUPPORTED, o->url.path, "a folder has no host key");
    CLEANUP(sftp_freep)
    struct sftp *s = new_sftp(o->name, &o->url, o->timeout_s, o->cancel_fd, e);
    if (!s)
        return ERR_NOMEM;
    struct host_keys keys;
    char types[HOST_KEY_TYPES_SIZE];
    int rc = host_keys_load(s->session, o->known_hosts, &keys, e);
    if (rc)
        return rc;
    host_keys_types(&keys, &s->url, types);
    rc = sftp_session_connect(s, types, e);
    enum host_standing standing =
        rc ? HOST_UNKNOWN : host_keys_standing(&keys, s->session, &s->url);
    if (standing == HOST_CHANGED || standing == HOST_REVOKED)
        rc = host_keys_check(&keys, s->session, &s->url, NULL, s->store.name, e);
    host_keys_free(&keys);
    if (rc == 0)
        rc = host_key_shown(s->session, &s->url, ret, e);
    if (rc == 0)
        ret->known = standing == HOST_KNOWN;
    return rc;
}
