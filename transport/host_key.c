#include "transport/host_key.h"

#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "transport/open.h"

#define KNOWN_HOSTS_LIMIT (4 * 1024 * 1024)
#define HOST_NAME_SIZE (sizeof((struct url *)0)->host + 8)

struct key_type {
    int shown; /* LIBSSH2_HOSTKEY_TYPE_... */
    int known; /* LIBSSH2_KNOWNHOST_KEY_... */
    const char *name;
};

/* In the order in which we would like to see them. */
static const struct key_type key_types[] = {
    {LIBSSH2_HOSTKEY_TYPE_ED25519, LIBSSH2_KNOWNHOST_KEY_ED25519, "ssh-ed25519"},
    {LIBSSH2_HOSTKEY_TYPE_ECDSA_256, LIBSSH2_KNOWNHOST_KEY_ECDSA_256, "ecdsa-sha2-nistp256"},
    {LIBSSH2_HOSTKEY_TYPE_ECDSA_384, LIBSSH2_KNOWNHOST_KEY_ECDSA_384, "ecdsa-sha2-nistp384"},
    {LIBSSH2_HOSTKEY_TYPE_ECDSA_521, LIBSSH2_KNOWNHOST_KEY_ECDSA_521, "ecdsa-sha2-nistp521"},
    {LIBSSH2_HOSTKEY_TYPE_RSA, LIBSSH2_KNOWNHOST_KEY_SSHRSA, "ssh-rsa"},
};

static void add_line(struct host_keys *k, const char *line)
{
    static const char revoked[] = "@revoked";
    LIBSSH2_KNOWNHOSTS *into = k->known;
    if (strncmp(line, revoked, sizeof revoked - 1) == 0) {
        line += sizeof revoked - 1;
        into = k->revoked;
    } else if (line[0] == '@') {
        return; /* certificates: libssh2 knows none */
    }
    libssh2_knownhost_readline(into, line, strlen(line), LIBSSH2_KNOWNHOST_FILE_OPENSSH);
}

int host_keys_load(LIBSSH2_SESSION *session, const char *path, struct host_keys *ret, struct err *e)
{
    OWN_BUF struct buf b = BUF_INIT;
    struct host_keys k = {.path = path};
    if (path) {
        struct err why = ERR_INIT;
        int rc = io_read_file(path, KNOWN_HOSTS_LIMIT, &b, &why);
        if (rc && rc != ERR_NOT_FOUND) {
            if (e)
                *e = why;
            return rc;
        }
    }
    k.known = libssh2_knownhost_init(session);
    k.revoked = libssh2_knownhost_init(session);
    if (!k.known || !k.revoked) {
        host_keys_free(&k);
        return err_nomem(e);
    }
    /* libssh2 looks one byte past the line that it is given, so each must end in a NUL. */
    if (!buf_cstr(&b)) {
        host_keys_free(&k);
        return err_nomem(e);
    }
    char *rest = (char *)b.data, *line;
    while ((line = strsep(&rest, "\r\n")))
        add_line(&k, line);
    *ret = k;
    return 0;
}

void host_keys_free(struct host_keys *k)
{
    if (k->known)
        libssh2_knownhost_free(k->known);
    if (k->revoked)
        libssh2_knownhost_free(k->revoked);
    *k = (struct host_keys){0};
}

/* The two names by which OpenSSH may have written the host down. */
static void host_names(const struct url *url, char ret_port[static HOST_NAME_SIZE],
                       const char **ret_plain)
{
    snprintf(ret_port, HOST_NAME_SIZE, "[%s]:%u", url->host, (unsigned)url->port);
    *ret_plain = url->host;
}

static int check_name(LIBSSH2_KNOWNHOSTS *hosts, const char *name, const char *key, size_t len,
                      int known_type)
{
    return libssh2_knownhost_check(
        hosts, name, key, len,
        LIBSSH2_KNOWNHOST_TYPE_PLAIN | LIBSSH2_KNOWNHOST_KEYENC_RAW | known_type, NULL);
}

/* LIBSSH2_KNOWNHOST_CHECK_MATCH, _MISMATCH or _NOTFOUND. A key that is written down for the host
 * without a port is good for any port, but says nothing against another key there. */
static int check_key(LIBSSH2_KNOWNHOSTS *hosts, const struct url *url, const char *key, size_t len,
                     int known_type)
{
    char with_port[HOST_NAME_SIZE];
    const char *plain;
    host_names(url, with_port, &plain);
    int rc = check_name(hosts, with_port, key, len, known_type);
    if (rc != LIBSSH2_KNOWNHOST_CHECK_NOTFOUND)
        return rc;
    rc = check_name(hosts, plain, key, len, known_type);
    if (rc == LIBSSH2_KNOWNHOST_CHECK_MISMATCH && url->port != 22)
        rc = LIBSSH2_KNOWNHOST_CHECK_NOTFOUND;
    return rc;
}

/* libssh2 has no question "is there any key of this type for this (perhaps hashed) name"; but a
 * key that is none cannot match, so that an entry shows as a mismatch. */
static bool type_is_known(const struct host_keys *k, const struct url *url, int known_type)
{
    char with_port[HOST_NAME_SIZE];
    const char *plain;
    host_names(url, with_port, &plain);
    return check_name(k->known, with_port, "?", 1, known_type) ==
               LIBSSH2_KNOWNHOST_CHECK_MISMATCH ||
           check_name(k->known, plain, "?", 1, known_type) == LIBSSH2_KNOWNHOST_CHECK_MISMATCH;
}

void host_keys_types(const struct host_keys *k, const struct url *url,
                     char ret[static HOST_KEY_TYPES_SIZE])
{
    size_t len = 0;
    ret[0] = '\0';
    for (int known = 1; known >= 0; known--)
        for (size_t i = 0; i < ARRAY_LEN(key_types); i++)
            if ((k->known && type_is_known(k, url, key_types[i].known)) == (known == 1))
                len += (size_t)snprintf(ret + len, HOST_KEY_TYPES_SIZE - len, "%s%s",
                                        len ? "," : "", key_types[i].name);
}

int host_key_shown(LIBSSH2_SESSION *session, const struct url *url, struct host_key *ret,
                   struct err *e)
{
    size_t len = 0;
    int type = 0;
    const char *key = libssh2_session_hostkey(session, &len, &type);
    const char *digest = libssh2_hostkey_hash(session, LIBSSH2_HOSTKEY_HASH_SHA256);
    const struct key_type *t = NULL;
    for (size_t i = 0; i < ARRAY_LEN(key_types); i++)
        if (key_types[i].shown == type)
            t = &key_types[i];
    char base64[1500];
    if (!key || !digest || !t ||
        sodium_base64_encoded_len(len, sodium_base64_VARIANT_ORIGINAL) > sizeof base64)
        return err_set(e, ERR_HOST_KEY, url->host,
                       "%s shows a host key of a kind that libssh2 cannot use", url->host);
    struct host_key k = {0};
    char name[HOST_NAME_SIZE];
    const char *plain;
    snprintf(k.type, sizeof k.type, "%s", t->name);
    memcpy(k.sha256, "SHA256:", 7);
    sodium_bin2base64(k.sha256 + 7, sizeof k.sha256 - 7, (const unsigned char *)digest, 32,
                      sodium_base64_VARIANT_ORIGINAL_NO_PADDING);
    sodium_bin2base64(base64, sizeof base64, (const unsigned char *)key, len,
                      sodium_base64_VARIANT_ORIGINAL);
    host_names(url, name, &plain);
    snprintf(k.known_hosts_line, sizeof k.known_hosts_line, "%s %s %s",
             url->port == 22 ? plain : name, k.type, base64);
    *ret = k;
    return 0;
}

static int refuse_unknown(const struct host_keys *k, const struct host_key *shown,
                          const struct url *url, const char *worker, struct err *e)
{
    err_set(e, ERR_HOST_KEY, worker, "%s: the host key of %s is not known: it shows %s (%s)",
            worker, url->host, shown->sha256, shown->type);
    err_hint(e,
             "compare it with \"ssh-keygen -lf /etc/ssh/ssh_host_%s_key.pub\" on the worker; if "
             "it is the same, syncd setup URL pins it%s%s",
             strstr(shown->type, "ed25519") ? "ed25519"
             : strstr(shown->type, "ecdsa") ? "ecdsa"
                                            : "rsa",
             k->path ? " in " : "", k->path ? k->path : "");
    return ERR_HOST_KEY;
}

static int refuse_changed(const struct host_keys *k, const struct host_key *shown,
                          const struct url *url, const char *worker, struct err *e)
{
    err_set(e, ERR_HOST_KEY, worker,
            "%s: the host key of %s has changed: it now shows %s (%s), which is not the key that "
            "is known. Either the worker was installed anew, or something else answers in its "
            "place; nothing was sent",
            worker, url->host, shown->sha256, shown->type);
    err_hint(e,
             "only if you know why it changed: remove the old key with \"ssh-keygen -R "
             "'[%s]:%u' -f %s\" (port 22: without [] and port), then run syncd setup",
             url->host, (unsigned)url->port, k->path ? k->path : "known_hosts");
    return ERR_HOST_KEY;
}

static bool digests_equal(const char *pinned, const char *sha256)
{
    size_t n = strlen(sha256);
    return strncmp(pinned, sha256, n) == 0 && strspn(pinned + n, "=") == strlen(pinned + n);
}

enum host_standing host_keys_standing(const struct host_keys *k, LIBSSH2_SESSION *session,
                                      const struct url *url)
{
    size_t len = 0;
    int type = 0, known_type = LIBSSH2_KNOWNHOST_KEY_UNKNOWN;
    const char *key = libssh2_session_hostkey(session, &len, &type);
    bool any_known = false;
    for (size_t i = 0; i < ARRAY_LEN(key_types); i++) {
        if (key_types[i].shown == type)
            known_type = key_types[i].known;
        any_known = any_known || check_key(k->known, url, "?", 1, key_types[i].known) ==
                                     LIBSSH2_KNOWNHOST_CHECK_MISMATCH;
    }
    if (check_key(k->revoked, url, key, len, known_type) == LIBSSH2_KNOWNHOST_CHECK_MATCH)
        return HOST_REVOKED;
    if (check_key(k->known, url, key, len, known_type) == LIBSSH2_KNOWNHOST_CHECK_MATCH)
        return HOST_KNOWN;
    return any_known ? HOST_CHANGED : HOST_UNKNOWN;
}

int host_keys_check(const struct host_keys *k, LIBSSH2_SESSION *session, const struct url *url,
                    const char *pinned_sha256, const char *worker, struct err *e)
{
    struct host_key shown;
    int rc = host_key_shown(session, url, &shown, e);
    if (rc) {
        err_prefix(e, "%s", worker);
        return rc;
    }
    enum host_standing standing = host_keys_standing(k, session, url);
    if (standing == HOST_REVOKED)
        return err_set(e, ERR_HOST_KEY, worker,
                       "%s: the host key of %s, %s, is marked as revoked in %s", worker, url->host,
                       shown.sha256, k->path);
    if (standing == HOST_KNOWN || (pinned_sha256 && digests_equal(pinned_sha256, shown.sha256)))
        return 0;
    if (standing == HOST_CHANGED || pinned_sha256)
        return refuse_changed(k, &shown, url, worker, e);
    return refuse_unknown(k, &shown, url, worker, e);
}
