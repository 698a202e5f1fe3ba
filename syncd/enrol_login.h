/* `setup URL`: getting to a worker over SSH - its host key, our key, and the login. */
#ifndef SYNCD_ENROL_LOGIN_H
#define SYNCD_ENROL_LOGIN_H

#include <stdbool.h>

#include "transport/url.h"

struct conf;
struct err;
struct report;
struct store;

struct enrol_login {
    const struct conf *conf;
    struct report *report;
    struct url url;
    const char *name;                        /* the worker's title */
    const char *identity_file, *known_hosts; /* where they are or are to be */
    const char *host_key;                    /* of --host-key, or NULL */
    struct store *door; /* a login that is open already, the caller's, or NULL */
    char *password;     /* or NULL: the person is asked, once */
    /* what was done */
    char sha256[64]; /* the host key's */
    bool pinned, key_made, key_added;
};

/* Makes sure that the host key is known, that there is a key, and that the worker lets it in; a
 * login that works already is left as it is. *ret_store is the connection by the key alone, the
 * caller's. The caller acts as the owner of state_dir (identity.h); what lies where only root may
 * write is made as root. Errors as of host_pin_confirm, key_pair_ensure, store_open_url. */
int enrol_log_in(struct enrol_login *l, struct store **ret_store, struct err *e);

#endif
