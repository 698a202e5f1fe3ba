/* A client of ssh-agent (OpenSSH's PROTOCOL.agent), for keys that stay in the agent. libssh2 has
 * one too, but that one waits for ever for an agent that does not answer. */
#ifndef SYNCD_TRANSPORT_AGENT_H
#define SYNCD_TRANSPORT_AGENT_H

#include <stddef.h>
#include <stdint.h>

#include "transport/net.h"

struct buf;
struct err;

struct agent {
    int fd;
    struct net_wait wait;
};

/* Connects to SSH_AUTH_SOCK; ERR_NOT_FOUND when there is no agent. */
int agent_open(const struct net_wait *w, struct agent *ret, struct err *e);
void agent_close(struct agent *a);

/* Called for each public key (the blob of RFC 4253 section 6.6) that libssh2 can sign with; a
 * nonzero answer ends it and is returned. */
typedef int agent_key_fn(void *arg, const uint8_t *key, size_t len);
int agent_keys(struct agent *a, agent_key_fn *fn, void *arg, struct err *e);

/* Has the agent sign the data with the key; the signature without its type is appended to *ret. */
int agent_sign(struct agent *a, const uint8_t *key, size_t key_len, const uint8_t *data, size_t len,
               struct buf *ret, struct err *e);

#endif
