#include "transport/agent.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

#define AGENT_ANSWER_LIMIT (256 * 1024)
#define AGENT_LIST 11
#define AGENT_LIST_ANSWER 12
#define AGENT_SIGN 13
#define AGENT_SIGN_ANSWER 14

static void put_be32(struct buf *b, size_t v)
{
    uint8_t be[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
    buf_put(b, be, sizeof be);
}

static void put_string(struct buf *b, const uint8_t *p, size_t n)
{
    put_be32(b, n);
    buf_put(b, p, n);
}

static size_t take_be32(struct cursor *c)
{
    const uint8_t *p = cursor_take(c, 4);
    return p ? (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3] : 0;
}

static const uint8_t *take_string(struct cursor *c, size_t *ret_len)
{
    *ret_len = take_be32(c);
    return cursor_take(c, *ret_len);
}

int agent_open(const struct net_wait *w, struct agent *ret, struct err *e)
{
    const char *path = getenv("SSH_AUTH_SOCK");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || !*path || strlen(path) >= sizeof address.sun_path)
        return err_set(e, ERR_NOT_FOUND, "ssh-agent", "there is no ssh-agent (SSH_AUTH_SOCK)");
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    OWN_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return err_set(e, ERR_NOT_FOUND, "ssh-agent", "the ssh-agent at %s does not answer: %s",
                       path, strerror(errno));
    *ret = (struct agent){.fd = TAKE_FD(fd), .wait = *w};
    return 0;
}

void agent_close(struct agent *a)
{
    mem_closep(&a->fd);
}

static int transfer(struct agent *a, uint8_t *p, size_t n, bool out, struct err *e)
{
    for (size_t done = 0; done < n;) {
        ssize_t rc = out ? send(a->fd, p + done, n - done, MSG_NOSIGNAL)
                         : recv(a->fd, p + done, n - done, 0);
        if (rc > 0) {
            done += (size_t)rc;
            continue;
        }
        if (rc == 0 || (errno != EAGAIN && errno != EINTR))
            return err_set(e, ERR_IO, "ssh-agent", "the ssh-agent broke off");
        int waited = net_poll(a->fd, out ? POLLOUT : POLLIN, &a->wait);
        if (waited)
            return err_set(e, waited, "ssh-agent", "the ssh-agent does not answer");
    }
    return 0;
}

/* Sends the request and appends the answer, whose first byte must be `type`, to *ret. */
static int ask(struct agent *a, const struct buf *request, uint8_t type, struct buf *ret,
               struct err *e)
{
    OWN_BUF struct buf framed = BUF_INIT;
    put_string(&framed, request->data, request->len);
    if (request->bad || framed.bad)
        return err_nomem(e);
    uint8_t head[4];
    int rc = transfer(a, framed.data, framed.len, true, e);
    if (rc == 0)
        rc = transfer(a, head, sizeof head, false, e);
    if (rc)
        return rc;
    struct cursor c = cursor_of(head, sizeof head);
    size_t n = take_be32(&c);
    if (n == 0 || n > AGENT_ANSWER_LIMIT)
        return err_set(e, ERR_LIMIT, "ssh-agent", "the ssh-agent answered with %zu bytes", n);
    uint8_t *at = buf_extend(ret, n);
    if (!at)
        return err_nomem(e);
    rc = transfer(a, at, n, false, e);
    if (rc == 0 && at[0] != type)
        rc = err_set(e, ERR_AUTH, "ssh-agent", "the ssh-agent refused (is it locked?)");
    return rc;
}

/* RSA is left out: libssh2 1.10 would have it signed with SHA-1, which counts as a failed try. */
static bool usable(const uint8_t *key, size_t len)
{
    static const char *const types[] = {"ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384",
                                        "ecdsa-sha2-nistp521"};
    struct cursor c = cursor_of(key, len);
    size_t n;
    const uint8_t *type = take_string(&c, &n);
    for (size_t i = 0; type && i < ARRAY_LEN(types); i++)
        if (n == strlen(types[i]) && memcmp(type, types[i], n) == 0)
            return true;
    return false;
}

int agent_keys(struct agent *a, agent_key_fn *fn, void *arg, struct err *e)
{
    OWN_BUF struct buf request = BUF_INIT;
    OWN_BUF struct buf answer = BUF_INIT;
    buf_put_u8(&request, AGENT_LIST);
    int rc = ask(a, &request, AGENT_LIST_ANSWER, &answer, e);
    if (rc)
        return rc;
    struct cursor c = cursor_of(answer.data + 1, answer.len - 1);
    size_t count = take_be32(&c), len, comment_len;
    for (size_t i = 0; i < count && !c.bad; i++) {
        const uint8_t *key = take_string(&c, &len);
        take_string(&c, &comment_len);
        if (!key || c.bad || !usable(key, len))
            continue;
        rc = fn(arg, key, len);
        if (rc)
            return rc;
    }
    return 0;
}

int agent_sign(struct agent *a, const uint8_t *key, size_t key_len, const uint8_t *data, size_t len,
               struct buf *ret, struct err *e)
{
    OWN_BUF struct buf request = BUF_INIT;
    OWN_BUF struct buf answer = BUF_INIT;
    buf_put_u8(&request, AGENT_SIGN);
    put_string(&request, key, key_len);
    put_string(&request, data, len);
    put_be32(&request, 0);
    int rc = ask(a, &request, AGENT_SIGN_ANSWER, &answer, e);
    if (rc)
        return rc;
    struct cursor c = cursor_of(answer.data + 1, answer.len - 1);
    size_t whole_len, n = 0;
    const uint8_t *whole = take_string(&c, &whole_len);
    c = cursor_of(whole, whole ? whole_len : 0);
    take_string(&c, &n);
    const uint8_t *signature = take_string(&c, &n);
    if (!signature)
        return err_set(e, ERR_IO, "ssh-agent", "the ssh-agent's signature makes no sense");
    buf_put(ret, signature, n);
    return ret->bad ? err_nomem(e) : 0;
}
