#include "syncd/enrol_login.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/conf.h"
#include "syncd/ask.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/host_pin.h"
#include "syncd/identity.h"
#include "syncd/key_pair.h"
#include "syncd/report.h"
#include "syncd/signals.h"
#include "transport/open.h"
#include "transport/store.h"

/* ---- files that may lie where only root writes, /etc/syncd for one ---- */

static bool needs_root(const char *path)
{
    if (!identity_is_root() || geteuid() == 0)
        return false;
    OWN_MEM char *folder = strdup(path);
    char *slash = folder ? strrchr(folder, '/') : NULL;
    if (!slash || slash == folder)
        return false;
    *slash = '\0';
    return eaccess(folder, W_OK | X_OK) < 0;
}

static const char *user_of(const struct enrol_login *l, char room[static IDENTITY_NAME_SIZE])
{
    return l->url.user[0] ? l->url.user : identity_name(geteuid(), room);
}

/* Who the key is of, in the worker's list of keys. */
static void comment_of(const struct enrol_login *l, char ret[static CONF_NAME_MAX + 8])
{
    snprintf(ret, CONF_NAME_MAX + 8, "syncd@%s", l->conf->name);
}

static struct store_options options_of(const struct enrol_login *l)
{
    return (struct store_options){.name = l->name,
                                  .url = l->url,
                                  .known_hosts = l->known_hosts,
                                  .cancel_fd = signals_cancel_fd()};
}

/* ---- the worker's key ---- */

static int pin(struct enrol_login *l, struct err *e)
{
    struct store_options o = options_of(l);
    struct host_key shown;
    int rc = store_host_key(&o, &shown, e);
    if (rc)
        return rc;
    snprintf(l->sha256, sizeof l->sha256, "%s", shown.sha256);
    rc = host_pin_confirm(&shown, &l->url, l->host_key, e);
    if (rc || shown.known)
        return rc;
    bool as_root = needs_root(l->known_hosts);
    rc = as_root ? identity_act_as_root(e) : 0;
    if (rc == 0)
        rc = host_pin_write(l->known_hosts, shown.known_hosts_line, e);
    int back = as_root ? identity_act_as_owner(l->conf, rc ? NULL : e) : 0;
    if (rc || back)
        return rc ? rc : back;
    l->pinned = true;
    report_say(l->report, "%s: host key %s pinned in %s\n", l->name, shown.sha256, l->known_hosts);
    return 0;
}

/* ---- our key ---- */

static int give_key(const char *path, uid_t uid, struct err *e)
{
    OWN_MEM char *pub = NULL;
    if (asprintf(&pub, "%s.pub", path) < 0) {
        pub = NULL;
        return err_nomem(e);
    }
    if (lchown(path, uid, (gid_t)-1) < 0 || lchown(pub, uid, (gid_t)-1) < 0)
        return err_sys(e, errno, path, "cannot give the key %s to its user", path);
    return 0;
}

static int make_key_as_root(struct enrol_login *l, const char *comment, struct err *e)
{
    uid_t owner = geteuid();
    int rc = identity_act_as_root(e);
    if (rc == 0)
        rc = key_pair_ensure(l->identity_file, comment, &l->key_made, e);
    if (rc == 0 && l->key_made)
        rc = give_key(l->identity_file, owner, e);
    int back = identity_act_as_owner(l->conf, rc ? NULL : e);
    return rc ? rc : back;
}

static int ensure_key(struct enrol_login *l, struct err *e)
{
    char comment[CONF_NAME_MAX + 8], owner[IDENTITY_NAME_SIZE];
    comment_of(l, comment);
    int rc = eaccess(l->identity_file, F_OK) < 0 && needs_root(l->identity_file)
                 ? make_key_as_root(l, comment, e)
                 : key_pair_ensure(l->identity_file, comment, &l->key_made, e);
    if (rc == ERR_PERMISSION && identity_is_root() && geteuid() != 0)
        err_hint(e, "Backups run as %s, the owner of state_dir: chown %s %s && chmod 600 %s",
                 identity_name(geteuid(), owner), owner, l->identity_file, l->identity_file);
    if (rc == 0 && l->key_made)
        report_say(l->report, "%s: key %s made\n", l->name, l->identity_file);
    return rc;
}

/* ---- logging in ---- */

static int log_in_by_key(struct enrol_login *l, struct store **ret, struct err *e)
{
    struct store_options o = options_of(l);
    o.identity_file = l->identity_file;
    return store_open_url(&o, ret, e);
}

/* Without a password to type: by a key of the agent. ERR_AUTH when there is none that fits. */
static int log_in_by_agent(struct enrol_login *l, struct store **ret, struct err *e)
{
    struct store_options o = options_of(l);
    o.use_agent = true;
    return getenv("SSH_AUTH_SOCK") ? store_open_url(&o, ret, e) : ERR_AUTH;
}

static int log_in_by_password(struct enrol_login *l, const char *line, struct store **ret,
                              struct err *e)
{
    struct store_options o = options_of(l);
    char question[512], room[IDENTITY_NAME_SIZE], hint[sizeof e->hint];
    const char *user = user_of(l, room);
    int rc = 0;
    snprintf(question, sizeof question, "Password of %s at %s (for this once; it is not kept)",
             user, l->url.host);
    if (!l->password)
        rc = ask_password(question, "--password-file FILE", &l->password, e);
    o.password = l->password;
    if (rc == 0)
        rc = store_open_url(&o, ret, e);
    ask_wipe(&l->password);
    if (rc == ERR_USAGE) {
        err_set(
            e, rc, l->name,
            "%s: %s does not know the key yet, and there is no terminal to ask for the password "
            "of %s",
            l->name, l->url.host, user);
        err_hint(e, "Give it with --password-file FILE");
    }
    if (rc != ERR_AUTH && rc != ERR_USAGE)
        return rc;
    snprintf(hint, sizeof hint, "%s", e->hint);
    return err_hint(e,
                    "%s; or by hand: add to that user's ~/.ssh/authorized_keys there and run "
                    "setup again: %s",
                    hint, line);
}

static int prove(struct enrol_login *l, struct store **ret, struct err *e)
{
    char user[IDENTITY_NAME_SIZE];
    int rc = log_in_by_key(l, ret, e);
    if (rc != ERR_AUTH)
        return rc;
    err_set(e, ERR_AUTH, l->name,
            "%s: the key is in ~/.ssh/authorized_keys of %s, but %s does not let it in", l->name,
            user_of(l, user), l->url.host);
    return err_hint(e,
                    "Its sshd log says why. Often: home or ~/.ssh there can be written by others "
                    "(chmod go-w), or sshd_config turns PubkeyAuthentication off or has another "
                    "AuthorizedKeysFile.");
}

static int add_key(struct enrol_login *l, struct err *e)
{
    char comment[CONF_NAME_MAX + 8], user[IDENTITY_NAME_SIZE];
    OWN_BUF struct buf line = BUF_INIT;
    struct store *store = NULL;
    comment_of(l, comment);
    int rc = key_pair_authorized_line(l->identity_file, comment, &line, e);
    if (rc)
        return rc;
    const char *text = buf_cstr(&line);
    if (!text)
        return err_nomem(e);
    bool added = l->door && store_enrol_key(l->door, text, e) == 0;
    if (!added)
        rc = log_in_by_agent(l, &store, e);
    if (rc == ERR_AUTH)
        rc = log_in_by_password(l, text, &store, e);
    if (rc == 0 && !added)
        rc = store_enrol_key(store, text, e);
    store_close(store);
    if (rc)
        return rc;
    l->key_added = true;
    report_say(l->report,
               "%s: key added to %s's ~/.ssh/authorized_keys; it may do nothing but "
               "SFTP there\n",
               l->name, user_of(l, user));
    return 0;
}

int enrol_log_in(struct enrol_login *l, struct store **ret_store, struct err *e)
{
    int rc = pin(l, e);
    if (rc == 0)
        rc = ensure_key(l, e);
    if (rc)
        return rc;
    rc = l->key_made ? ERR_AUTH : log_in_by_key(l, ret_store, e);
    if (rc == ERR_AUTH) {
        rc = add_key(l, e);
        if (rc == 0)
            rc = prove(l, ret_store, e);
    }
    if (rc == 0)
        report_say(l->report, "%s: logged in with the key alone\n", l->name);
    return rc;
}
