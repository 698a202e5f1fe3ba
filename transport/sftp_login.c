#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "syncd/base/buf.h"
#include "syncd/base/mem.h"
#include "transport/agent.h"
#include "transport/key_file.h"
#include "transport/sftp_session.h"

#define AGENT_KEYS_MAX 4 /* sshd cuts the connection after MaxAuthTries, 6 by default */

/* Each way of logging in answers 0, ERR_AUTH (refused: try the next way), or another code, which
 * ends the login. *why keeps the first reason that a person can do something about. */
struct login {
    struct sftp *s;
    const struct store_options *o;
    struct err why;
    struct agent agent;
    struct err agent_err;
    const uint8_t *agent_key;
    size_t agent_key_len;
    int agent_tries;
};

static bool refused(int rc)
{
    return rc == LIBSSH2_ERROR_AUTHENTICATION_FAILED || rc == LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED ||
           rc == LIBSSH2_ERROR_PASSWORD_EXPIRED || rc == LIBSSH2_ERROR_METHOD_NOT_SUPPORTED ||
           rc == LIBSSH2_ERROR_FILE || rc == LIBSSH2_ERROR_HOSTKEY_INIT ||
           rc == LIBSSH2_ERROR_HOSTKEY_SIGN || rc == LIBSSH2_ERROR_METHOD_NONE ||
           rc == LIBSSH2_ERROR_AGENT_PROTOCOL;
}

static int answer_of(struct sftp *s, int rc, struct err *e)
{
    if (rc == 0)
        return 0;
    if (!s->broken.code && refused(rc))
        return ERR_AUTH;
    rc = sftp_fail(s, rc, "log in to", s->url.host, e);
    if (s->broken.code == ERR_CONNECT)
        err_hint(e, "sshd cut the connection during the login: too many failed keys, or "
                    "AllowUsers, MaxStartups or fail2ban on the worker");
    return rc;
}

/* The first reason that is kept is the one that is told when no way in is left. */
static struct err *reason(struct login *l, struct err *spare)
{
    return l->why.code ? spare : &l->why;
}

static void explain_key(struct login *l, const char *path, enum key_kind kind)
{
    struct err spare = ERR_INIT, *why = reason(l, &spare);
    const char *worker = l->s->store.name, *host = l->s->url.host;
    switch (kind) {
    case KEY_RSA:
        err_set(why, ERR_AUTH, worker,
                "%s: the key %s is an RSA key, and %s does not take the SHA-1 signatures that "
                "libssh2 makes with it",
                worker, path, host);
        err_hint(why,
                 "use an ed25519 key: \"ssh-keygen -t ed25519 -N '' -f FILE\", add FILE.pub to "
                 "the worker's authorized_keys, name FILE in identity_file (syncd setup does "
                 "all of it)");
        return;
    case KEY_ENCRYPTED:
        err_set(why, ERR_AUTH, worker,
                "%s: the key %s is locked with a passphrase, which nobody is there to type", worker,
                path);
        err_hint(why, "use a key without a passphrase for syncd alone (syncd setup makes one), or "
                      "load this one into an ssh-agent");
        return;
    case KEY_HARDWARE:
        err_set(why, ERR_AUTH, worker,
                "%s: the key %s needs a security key, which libssh2 "
                "cannot use",
                worker, path);
        err_hint(why, "use a plain ed25519 key (syncd setup makes one)");
        return;
    case KEY_PUBLIC:
    case KEY_UNREADABLE:
        err_set(why, ERR_AUTH, worker, "%s: %s is %s", worker, path,
                kind == KEY_PUBLIC ? "a public key; the private one is needed"
                                   : "no private key that can be read");
        err_hint(why, "identity_file names the private key, the file without .pub");
        return;
    case KEY_USABLE:
        err_set(why, ERR_AUTH, worker, "%s: %s does not accept the key %s for the user %s", worker,
                host, path, l->s->user);
        err_hint(why, "is the user right? The key's .pub line belongs in that user's "
                      "~/.ssh/authorized_keys on the worker: syncd setup puts it there");
        return;
    }
}

static int try_key_file(struct login *l, const char *path, struct err *e)
{
    struct sftp *s = l->s;
    OWN_BUF struct buf key = BUF_INIT;
    enum key_kind kind;
    struct err why = ERR_INIT;
    int rc = key_file_read(path, &key, &kind, &why);
    if (rc == ERR_NOT_FOUND && (l->o->use_agent || l->o->password)) {
        l->why = why;
        return ERR_AUTH;
    }
    if (rc) {
        if (e)
            *e = why;
        err_prefix(e, "%s", s->store.name);
        return rc;
    }
    rc = ERR_AUTH;
    if (kind == KEY_USABLE || kind == KEY_RSA) {
        sftp_progress(s);
        SFTP_AWAIT(s, rc,
                   libssh2_userauth_publickey_frommemory(s->session, s->user, strlen(s->user), NULL,
                                                         0, (const char *)key.data, key.len, NULL));
        rc = answer_of(s, rc, e);
    }
    sodium_memzero(key.data, key.len);
    if (rc == ERR_AUTH)
        explain_key(l, path, kind);
    return rc;
}

static int sign_with_agent(LIBSSH2_SESSION *session, unsigned char **sig, size_t *sig_len,
                           const unsigned char *data, size_t len, void **abstract)
{
    (void)session;
    struct login *l = *abstract;
    struct buf b = BUF_INIT;
    l->agent.wait = l->s->wait;
    if (agent_sign(&l->agent, l->agent_key, l->agent_key_len, data, len, &b, &l->agent_err)) {
        buf_free(&b);
        return -1;
    }
    *sig = b.data; /* libssh2 frees it with free */
    *sig_len = b.len;
    return 0;
}

/* 1: logged in, 0: refused, go on with the next key. */
static int try_agent_key(void *arg, const uint8_t *key, size_t len)
{
    struct login *l = arg;
    struct sftp *s = l->s;
    if (l->agent_tries++ >= AGENT_KEYS_MAX)
        return ERR_AUTH;
    l->agent_key = key;
    l->agent_key_len = len;
    void *abstract = l;
    int rc;
    sftp_progress(s);
    SFTP_AWAIT(
        s, rc,
        libssh2_userauth_publickey(s->session, s->user, key, len, sign_with_agent, &abstract));
    if (rc == 0)
        return 1;
    return !s->broken.code && refused(rc) ? 0 : answer_of(s, rc, &l->agent_err);
}

static int try_agent(struct login *l, struct err *e)
{
    struct sftp *s = l->s;
    sftp_progress(s);
    int rc = agent_open(&s->wait, &l->agent, &l->agent_err);
    if (rc == 0)
        rc = agent_keys(&l->agent, try_agent_key, l, &l->agent_err);
    agent_close(&l->agent);
    if (rc == 1)
        return 0;
    if (s->broken.code) {
        if (e)
            *e = l->agent_err;
        return s->broken.code;
    }
    struct err spare = ERR_INIT, *why = reason(l, &spare);
    if (l->agent_err.code) {
        *why = l->agent_err;
        err_prefix(why, "%s", s->store.name);
    } else {
        err_set(why, ERR_AUTH, s->store.name, "%s: %s accepts none of the ssh-agent's keys",
                s->store.name, s->url.host);
    }
    err_hint(why, "\"ssh-add -l\" lists the agent's keys; RSA keys are not tried");
    return ERR_AUTH;
}

/* Answers every question that hides what is typed with the password; the others get nothing. */
static void answer_prompts(const char *name, int name_len, const char *text, int text_len,
                           int count, const LIBSSH2_USERAUTH_KBDINT_PROMPT *prompts,
                           LIBSSH2_USERAUTH_KBDINT_RESPONSE *responses, void **abstract)
{
    (void)name;
    (void)name_len;
    (void)text;
    (void)text_len;
    const struct sftp *s = *abstract;
    for (int i = 0; i < count; i++) {
        responses[i].text = strdup(prompts[i].echo ? "" : s->password);
        responses[i].length = responses[i].text ? (unsigned)strlen(responses[i].text) : 0;
    }
}

static int try_password(struct login *l, struct err *e)
{
    struct sftp *s = l->s;
    char *methods;
    sftp_progress(s);
    SFTP_AWAIT_PTR(s, methods,
                   libssh2_userauth_list(s->session, s->user, (unsigned)strlen(s->user)));
    if (!methods && libssh2_userauth_authenticated(s->session))
        return 0;
    if (!methods)
        return answer_of(s, libssh2_session_last_errno(s->session), e);
    bool plain = strstr(methods, "password"), asks = strstr(methods, "keyboard-interactive");
    int rc = LIBSSH2_ERROR_AUTHENTICATION_FAILED;
    const char *password = l->o->password;
    if (plain)
        SFTP_AWAIT(s, rc,
                   libssh2_userauth_password_ex(s->session, s->user, (unsigned)strlen(s->user),
                                                password, (unsigned)strlen(password), NULL));
    if (rc && !s->broken.code && asks) {
        s->password = password;
        SFTP_AWAIT(s, rc,
                   libssh2_userauth_keyboard_interactive_ex(
                       s->session, s->user, (unsigned)strlen(s->user), answer_prompts));
        s->password = NULL;
    }
    rc = answer_of(s, rc, e);
    if (rc != ERR_AUTH)
        return rc;
    struct err spare = ERR_INIT, *why = reason(l, &spare);
    err_set(why, ERR_AUTH, s->store.name, "%s: %s %s for the user %s", s->store.name, s->url.host,
            plain || asks ? "does not accept the password" : "allows no login by password",
            s->user);
    err_hint(why, plain || asks
                      ? "try again; the user may be wrong too, or may not log in there"
                      : "allow it in sshd_config for the set-up (PasswordAuthentication yes), or "
                        "add the key by hand");
    return ERR_AUTH;
}

static int choose_user(struct sftp *s, struct err *e)
{
    if (s->url.user[0]) {
        memcpy(s->user, s->url.user, sizeof s->user);
        return 0;
    }
    struct passwd entry, *found = NULL;
    char room[4096];
    if (getpwuid_r(geteuid(), &entry, room, sizeof room, &found) || !found ||
        strlen(found->pw_name) >= sizeof s->user)
        return err_set(e, ERR_CONFIG, s->store.name,
                       "%s: the URL names no user, and this machine has no name for its own",
                       s->store.name);
    snprintf(s->user, sizeof s->user, "%s", found->pw_name);
    return 0;
}

int sftp_login(struct sftp *s, const struct store_options *o, struct err *e)
{
    struct login l = {.s = s, .o = o, .agent.fd = -1};
    int rc = choose_user(s, e);
    if (rc)
        return rc;
    rc = ERR_AUTH;
    if (o->identity_file)
        rc = try_key_file(&l, o->identity_file, e);
    if (rc == ERR_AUTH && o->use_agent)
        rc = try_agent(&l, e);
    if (rc == ERR_AUTH && o->password)
        rc = try_password(&l, e);
    if (rc != ERR_AUTH)
        return rc;
    if (!l.why.code) {
        err_set(&l.why, ERR_AUTH, s->store.name, "%s: there is nothing to log in to %s with",
                s->store.name, s->url.host);
        err_hint(&l.why, "give the worker an identity_file; syncd setup makes a key and puts it on "
                         "the worker");
    }
    l.why.code = ERR_AUTH;
    if (e)
        *e = l.why;
    return ERR_AUTH;
}
