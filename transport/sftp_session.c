#include "transport/sftp_session.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/sockios.h>

#include "syncd/base/clock.h"
#include "syncd/base/mem.h"

/* No CBC, no SHA-1, and aes128 first: it is a third quicker on machines without AES instructions,
 * which is what a Raspberry Pi 4 is. */
#define KEX_METHODS                                                                                \
    "curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,"        \
    "ecdh-sha2-nistp521,diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,"       \
    "diffie-hellman-group18-sha512,diffie-hellman-group14-sha256"
#define CIPHERS "aes128-ctr,aes192-ctr,aes256-ctr"
#define MACS "hmac-sha2-256,hmac-sha2-512"

/* libssh2 1.10 spins for ever when a channel ends in the middle of an SFTP packet; a healthy call
 * reads the socket in vain once or twice for each message that it sends. */
#define FRUITLESS_LIMIT 20000

#define WAIT_SLICE_US US_PER_S

static pthread_once_t library_once = PTHREAD_ONCE_INIT;
static int library_rc;

static void library_start(void)
{
    library_rc = libssh2_init(0);
}

static ssize_t socket_receive(libssh2_socket_t fd, void *p, size_t n, int flags, void **abstract)
{
    struct sftp *s = *abstract;
    if (s->broken.code || s->fruitless > FRUITLESS_LIMIT)
        return -ECONNRESET;
    ssize_t got;
    do
        got = recv(fd, p, n, flags);
    while (got < 0 && errno == EINTR);
    s->fruitless = got < 0 ? s->fruitless + 1 : 0;
    return got < 0 ? -errno : got;
}

static ssize_t socket_send(libssh2_socket_t fd, const void *p, size_t n, int flags, void **abstract)
{
    struct sftp *s = *abstract;
    if (s->broken.code)
        return -EPIPE;
    ssize_t put;
    do
        put = send(fd, p, n, flags | MSG_NOSIGNAL);
    while (put < 0 && errno == EINTR);
    return put < 0 ? -errno : put;
}

/* The callbacks travel as object pointers in libssh2's interface. */
static void set_callback(LIBSSH2_SESSION *session, int which, void (*f)(void))
{
    void *p;
    _Static_assert(sizeof p == sizeof f, "functions and objects have one size of pointer");
    memcpy(&p, &f, sizeof p);
    libssh2_session_callback_set(session, which, p);
}

int sftp_session_new(struct sftp *s, struct err *e)
{
    pthread_once(&library_once, library_start);
    if (library_rc)
        return err_set(e, ERR_INTERNAL, s->store.name, "libssh2 does not start (%d)", library_rc);
    s->session = libssh2_session_init_ex(NULL, NULL, NULL, s);
    if (!s->session)
        return err_nomem(e);
    libssh2_session_set_blocking(s->session, 0);
    set_callback(s->session, LIBSSH2_CALLBACK_RECV, (void (*)(void))socket_receive);
    set_callback(s->session, LIBSSH2_CALLBACK_SEND, (void (*)(void))socket_send);
    return 0;
}

static int handshake_failed(struct sftp *s, int rc, struct err *e)
{
    char *text = NULL;
    if (s->broken.code) {
        rc = sftp_fail(s, rc, "begin SSH with", s->url.host, e);
        err_hint(e, "something accepts connections there but does not answer: is it sshd?");
        return rc;
    }
    libssh2_session_last_error(s->session, &text, NULL, 0);
    if (rc == LIBSSH2_ERROR_KEX_FAILURE || rc == LIBSSH2_ERROR_KEY_EXCHANGE_FAILURE ||
        rc == LIBSSH2_ERROR_METHOD_NONE) {
        rc = err_set(e, ERR_CONNECT, s->store.name, "%s: %s and this machine have no %s in common",
                     s->store.name, s->url.host, "way to encrypt or to prove the host key");
        err_hint(e, "in the worker's sshd_config allow Ciphers aes256-ctr, MACs hmac-sha2-256, "
                    "KexAlgorithms curve25519-sha256 and an ed25519 or ECDSA HostKey: libssh2 1.10 "
                    "knows no GCM, chacha20 or EtM");
    } else if (rc == LIBSSH2_ERROR_ALLOC) {
        rc = err_nomem(e);
    } else {
        rc = err_set(e, ERR_CONNECT, s->store.name, "%s: %s port %u is no SSH server: %s",
                     s->store.name, s->url.host, (unsigned)s->url.port, text ? text : "");
        err_hint(e, "is the port right? sshd may also refuse new connections for a while "
                    "(MaxStartups, fail2ban)");
    }
    sftp_break(s, ERR_CONNECT, "the connection was not set up");
    return rc;
}

int sftp_session_connect(struct sftp *s, const char *host_key_types, struct err *e)
{
    const struct {
        int method;
        const char *names;
    } methods[] = {{LIBSSH2_METHOD_KEX, KEX_METHODS},  {LIBSSH2_METHOD_HOSTKEY, host_key_types},
                   {LIBSSH2_METHOD_CRYPT_CS, CIPHERS}, {LIBSSH2_METHOD_CRYPT_SC, CIPHERS},
                   {LIBSSH2_METHOD_MAC_CS, MACS},      {LIBSSH2_METHOD_MAC_SC, MACS},
                   {LIBSSH2_METHOD_COMP_CS, "none"},   {LIBSSH2_METHOD_COMP_SC, "none"}};
    for (size_t i = 0; i < ARRAY_LEN(methods); i++)
        if (libssh2_session_method_pref(s->session, methods[i].method, methods[i].names))
            return err_set(e, ERR_UNSUPPORTED, s->store.name,
                           "this machine's libssh2 knows none of %s", methods[i].names);
    sftp_progress(s);
    int rc = net_connect(s->url.host, s->url.port, &s->wait, &s->fd, e);
    if (rc) {
        err_prefix(e, "%s", s->store.name);
        return rc;
    }
    SFTP_AWAIT(s, rc, libssh2_session_handshake(s->session, s->fd));
    return rc ? handshake_failed(s, rc, e) : 0;
}

/* Asks for the home folder, and for the free space, which also tells how long a question takes. */
static int look_around(struct sftp *s, struct err *e)
{
    int rc;
    char home[sizeof s->home];
    int64_t start_us = clock_mono_us();
    SFTP_AWAIT(s, rc, libssh2_sftp_realpath(s->sftp, ".", home, sizeof home - 1));
    if (rc < 0)
        return sftp_fail(s, rc, "find", "the home folder", e);
    home[MIN((size_t)rc, sizeof home - 1)] = '\0';
    if (home[0] != '/')
        return err_set(e, ERR_UNSUPPORTED, s->store.name,
                       "%s: the server names the home folder \"%s\", which is no absolute path",
                       s->store.name, home);
    int64_t middle_us = clock_mono_us();
    LIBSSH2_SFTP_STATVFS vfs;
    SFTP_AWAIT(s, rc, libssh2_sftp_statvfs(s->sftp, ".", 1, &vfs));
    if (rc && !sftp_says(s, rc, libssh2_sftp_last_error(s->sftp)))
        return sftp_fail(s, rc, "ask the free space of", "the home folder", e);
    s->store.abilities.space = rc == 0 || !sftp_says(s, rc, LIBSSH2_FX_OP_UNSUPPORTED);
    s->round_trip_us = MIN(middle_us - start_us, clock_mono_us() - middle_us);
    if (strcmp(home, "/") == 0)
        home[0] = '\0';
    memcpy(s->home, home, sizeof home);
    return 0;
}

int sftp_session_start(struct sftp *s, struct err *e)
{
    sftp_progress(s);
    SFTP_AWAIT_PTR(s, s->sftp, libssh2_sftp_init(s->session));
    if (!s->sftp) {
        int code = s->broken.code == ERR_CANCELLED ? ERR_CANCELLED : ERR_UNSUPPORTED;
        sftp_fail(s, 0, "start SFTP on", s->url.host, e);
        if (e)
            e->code = code;
        err_hint(e,
                 "does \"sftp %s@%s\" work? sshd_config needs \"Subsystem sftp internal-sftp\", "
                 "and a shell start-up file that prints something breaks SFTP",
                 s->user, s->url.host);
        return code;
    }
    int rc = look_around(s, e);
    if (rc)
        return rc;
    const char *banner = libssh2_session_banner_get(s->session);
    s->is_openssh = banner && strstr(banner, "OpenSSH") != NULL;
    s->store.abilities.fsync = true;
    const char *path = s->url.path;
    bool at_home = s->url.under_home || *path == '\0';
    int n = snprintf(s->root, sizeof s->root, "%s%s%s", at_home ? s->home : "",
                     at_home && *path ? "/" : "", path);
    if (n < 0 || (size_t)n >= sizeof s->root)
        return err_set(e, ERR_LIMIT, s->store.name, "%s: the repository's path is too long",
                       s->store.name);
    return 0;
}

void sftp_session_end(struct sftp *s)
{
    /* What was to be kept has been acknowledged, so nothing is left to wait for. A word of
     * farewell spares the worker's log a line, if it can be said at once. */
    if (s->session && s->fd >= 0 && !s->broken.code)
        libssh2_session_disconnect(s->session, "done");
    sftp_break(s, ERR_CONNECT, "closed");
    if (s->sftp)
        libssh2_sftp_shutdown(s->sftp);
    if (s->session)
        libssh2_session_free(s->session);
    s->sftp = NULL;
    s->session = NULL;
    mem_closep(&s->fd);
}

void sftp_break(struct sftp *s, int code, const char *why)
{
    if (s->broken.code == 0)
        err_set(&s->broken, code, s->store.name, "%s", why);
}

void sftp_progress(struct sftp *s)
{
    s->wait.deadline_us = clock_mono_us() + s->patience_us;
}

int sftp_begin(struct sftp *s, struct err *e)
{
    int rc = sftp_settle(s, e);
    if (rc)
        return rc;
    sftp_progress(s);
    return 0;
}

/* On a slow line a message may be on its way for longer than the deadline; as long as the worker
 * takes bytes from us it is not stuck. */
static bool still_sending(struct sftp *s)
{
    int unsent = 0;
    if (ioctl(s->fd, SIOCOUTQ, &unsent) < 0)
        return false;
    bool fewer = unsent < s->unsent;
    s->unsent = unsent;
    return fewer;
}

/* sshd collects small answers (Nagle) for a session without a terminal: it sends the next one only
 * when the last is acknowledged, and the kernel would keep that back for 40 ms. Not lasting: the
 * kernel forgets it as it goes. */
static void acknowledge_at_once(struct sftp *s)
{
    int one = 1;
    setsockopt(s->fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof one);
}

bool sftp_wait(struct sftp *s)
{
    if (s->broken.code)
        return false;
    if (s->sftp && libssh2_channel_eof(libssh2_sftp_get_channel(s->sftp)) == 1) {
        sftp_break(s, ERR_CONNECT, "the SFTP server on the worker has ended");
        return false;
    }
    int directions = libssh2_session_block_directions(s->session);
    short events = directions & LIBSSH2_SESSION_BLOCK_OUTBOUND ? POLLOUT : 0;
    if (directions & LIBSSH2_SESSION_BLOCK_INBOUND || !events)
        events |= POLLIN;
    s->fruitless = 0;
    if (events & POLLIN)
        acknowledge_at_once(s);
    for (;;) {
        struct net_wait slice = s->wait;
        slice.deadline_us = MIN(clock_mono_us() + WAIT_SLICE_US, s->wait.deadline_us);
        int rc = net_poll(s->fd, events, &slice);
        if (rc == 0)
            return true;
        if (rc == ERR_CANCELLED) {
            sftp_break(s, rc, "stopped");
            return false;
        }
        if (still_sending(s)) {
            sftp_progress(s);
        } else if (clock_mono_us() >= s->wait.deadline_us) {
            char why[64];
            snprintf(why, sizeof why, "no answer for %d s", (int)(s->patience_us / US_PER_S));
            sftp_break(s, ERR_TIMEOUT, why);
            return false;
        }
    }
}

/* X(status of the server, our code, the reason in words) */
#define STATUS_TABLE(X)                                                                            \
    X(LIBSSH2_FX_EOF, ERR_IO, "unexpected end of file")                                            \
    X(LIBSSH2_FX_NO_SUCH_FILE, ERR_NOT_FOUND, "no such file or folder")                            \
    X(LIBSSH2_FX_PERMISSION_DENIED, ERR_PERMISSION, "permission denied")                           \
    X(LIBSSH2_FX_FAILURE, ERR_IO, "the server says no more than \"failure\"")                      \
    X(LIBSSH2_FX_BAD_MESSAGE, ERR_IO, "the server did not understand the request")                 \
    X(LIBSSH2_FX_NO_CONNECTION, ERR_CONNECT, "the server has lost its storage")                    \
    X(LIBSSH2_FX_CONNECTION_LOST, ERR_CONNECT, "the server has lost its storage")                  \
    X(LIBSSH2_FX_OP_UNSUPPORTED, ERR_UNSUPPORTED, "the server cannot do that")                     \
    X(LIBSSH2_FX_INVALID_HANDLE, ERR_IO, "the server has forgotten the open file")                 \
    X(LIBSSH2_FX_NO_SUCH_PATH, ERR_NOT_FOUND, "no such folder")                                    \
    X(LIBSSH2_FX_FILE_ALREADY_EXISTS, ERR_EXISTS, "the name is taken")                             \
    X(LIBSSH2_FX_WRITE_PROTECT, ERR_PERMISSION, "write-protected")                                 \
    X(LIBSSH2_FX_NO_SPACE_ON_FILESYSTEM, ERR_NO_SPACE, "no space left")                            \
    X(LIBSSH2_FX_QUOTA_EXCEEDED, ERR_NO_SPACE, "quota exceeded")                                   \
    X(LIBSSH2_FX_NOT_A_DIRECTORY, ERR_IO, "not a folder")

static int code_of_status(unsigned long status, const char **ret_why)
{
    switch (status) {
#define STATUS_CASE(fx, code, why)                                                                 \
    case fx:                                                                                       \
        *ret_why = why;                                                                            \
        return code;
        STATUS_TABLE(STATUS_CASE)
#undef STATUS_CASE
    default:
        *ret_why = "an answer that SFTP does not know";
        return ERR_IO;
    }
}

bool sftp_says(struct sftp *s, int rc, unsigned long status)
{
    return rc == LIBSSH2_ERROR_SFTP_PROTOCOL && !s->broken.code && status != LIBSSH2_FX_OK &&
           libssh2_sftp_last_error(s->sftp) == status;
}

int sftp_fail(struct sftp *s, int rc, const char *what, const char *path, struct err *e)
{
    const char *why = NULL;
    int code;
    if (rc == 0 && s->session)
        rc = libssh2_session_last_errno(s->session);
    if (s->broken.code) {
        code = s->broken.code;
        why = s->broken.message;
    } else if (rc == LIBSSH2_ERROR_SFTP_PROTOCOL && s->sftp &&
               libssh2_sftp_last_error(s->sftp) != LIBSSH2_FX_OK) {
        code = code_of_status(libssh2_sftp_last_error(s->sftp), &why);
    } else {
        char *text = NULL;
        libssh2_session_last_error(s->session, &text, NULL, 0);
        code = rc == LIBSSH2_ERROR_ALLOC ? ERR_NOMEM : ERR_CONNECT;
        char reason[200];
        snprintf(reason, sizeof reason, "the connection is lost (%s, libssh2 error %d)",
                 text && *text ? text : "no reason given", rc);
        sftp_break(s, code, reason);
        why = s->broken.message;
    }
    return err_set(e, code, s->store.name, "%s: cannot %s %s: %s", s->store.name, what, path, why);
}

struct sftp_path sftp_path_in(const struct sftp *s, const char *path)
{
    struct sftp_path p;
    if (*path)
        snprintf(p.s, sizeof p.s, "%s/%s", s->root, path);
    else
        snprintf(p.s, sizeof p.s, "%s", s->root[0] ? s->root : "/");
    return p;
}
