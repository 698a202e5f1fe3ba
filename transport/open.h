/* Opening a store by its worker's settings. */
#ifndef SYNCD_TRANSPORT_OPEN_H
#define SYNCD_TRANSPORT_OPEN_H

#include <stdbool.h>
#include <stdint.h>

#include "transport/url.h"

struct err;
struct store;

struct store_options {
    const char *name; /* the worker's title, for messages */
    struct url url;
    const char *identity_file;   /* private key (OpenSSH or PEM), or NULL */
    const char *password;        /* or NULL; never logged */
    bool use_agent;              /* try the keys of the agent at SSH_AUTH_SOCK */
    const char *known_hosts;     /* OpenSSH known_hosts file; NULL: only host_key_sha256 counts */
    const char *host_key_sha256; /* "SHA256:<base64>" that is accepted as well, or NULL */
    int timeout_s;               /* deadline of each operation and of the connection; 0: 30 */
    uint64_t max_rate;           /* bytes per second written, 0: no limit */
    const int *cancel_fd; /* becomes readable: running operations end with ERR_CANCELLED; or NULL */
};

/* Connects, checks the host key, logs in (key file, then agent, then password) and starts SFTP, or
 * opens the local folder. Does not need the repository's folder to exist: a missing one shows as
 * ERR_NOT_FOUND of the operations. *ret is the caller's, to be given to store_close.
 * Errors, each with a hint that mends it: ERR_CONNECT (name, route, refused, not an SSH server, no
 * cipher in common), ERR_TIMEOUT, ERR_HOST_KEY (unknown: shows the SHA-256; changed: says so in
 * plain words), ERR_AUTH (key refused, RSA key that libssh2 cannot use, encrypted key, wrong
 * password), ERR_PERMISSION (key file readable by others), ERR_UNSUPPORTED (no SFTP). */
int store_open_url(const struct store_options *o, struct store **ret, struct err *e);

/* The login's home and its repositories are looked for by `restore --from` and made by `setup`:
 * makes the repository's folder (0700) with its missing parents. */
int store_make_root(struct store *s, struct err *e);

/* What the server shows of itself: the host key's SHA-256, as "SHA256:<base64 without padding>",
 * the line for known_hosts, and whether o->known_hosts (may be NULL) has it already. Connects
 * without logging in; for `setup` to show and pin. ERR_HOST_KEY when known_hosts has another key
 * for this server or has it revoked: that is never to be pinned without a person's doing. */
struct host_key {
    char sha256[64];
    char type[64]; /* "ssh-ed25519", ... */
    char known_hosts_line[2048];
    bool known;
};
int store_host_key(const struct store_options *o, struct host_key *ret, struct err *e);

/* Adds one line to ~/.ssh/authorized_keys on the worker over SFTP (folder 0700 and file 0600 are
 * made when missing). The line goes to the end of the file as it is, and is taken back when it does
 * not get there whole: replacing the file takes two renames, and a cut between them would lock its
 * owner out. A file that has the same key already is left as it is. `line` has no newline.
 * ERR_UNSUPPORTED for a local store. */
int store_enrol_key(struct store *s, const char *line, struct err *e);

#endif
