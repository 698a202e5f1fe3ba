/* Whether a server is the one that it should be: its host key against a known_hosts file of
 * OpenSSH's format (hashed names and @revoked too; no wildcards, no @cert-authority) or a pinned
 * SHA-256. There is no "accept for now": what is not known is refused. */
#ifndef SYNCD_TRANSPORT_HOST_KEY_H
#define SYNCD_TRANSPORT_HOST_KEY_H

#include <libssh2.h>

struct err;
struct host_key;
struct url;

struct host_keys {
    LIBSSH2_KNOWNHOSTS *known, *revoked; /* NULL: none */
    const char *path;                    /* the file, for messages; may be NULL */
};

#define HOST_KEY_TYPES_SIZE 256

/* Reads the file; a missing one and a NULL path are an empty one, lines that make no sense are
 * passed over as OpenSSH does. `path` must outlive *ret. */
int host_keys_load(LIBSSH2_SESSION *session, const char *path, struct host_keys *ret,
                   struct err *e);
void host_keys_free(struct host_keys *k);

/* The types of key to ask the server for, best first: those that are known for it before the
 * others, or a host known by its ed25519 key would show another one and look unknown. */
void host_keys_types(const struct host_keys *k, const struct url *url,
                     char ret[static HOST_KEY_TYPES_SIZE]);

/* After the handshake: how the key that the server shows stands to what is known. */
enum host_standing { HOST_KNOWN, HOST_UNKNOWN, HOST_CHANGED, HOST_REVOKED };
enum host_standing host_keys_standing(const struct host_keys *k, LIBSSH2_SESSION *session,
                                      const struct url *url);

/* After the handshake: 0, or ERR_HOST_KEY that says in plain words whether the key is unknown,
 * changed or revoked, what its SHA-256 is and what to do. pinned_sha256 may be NULL. */
int host_keys_check(const struct host_keys *k, LIBSSH2_SESSION *session, const struct url *url,
                    const char *pinned_sha256, const char *worker, struct err *e);

/* After the handshake: what the server showed. */
int host_key_shown(LIBSSH2_SESSION *session, const struct url *url, struct host_key *ret,
                   struct err *e);

#endif
