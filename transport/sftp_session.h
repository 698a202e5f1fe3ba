/* What the files of the SFTP back end share: one SSH connection with one SFTP session on it.
 *
 * libssh2 runs in its non-blocking mode, and every call of it that may want the network is wrapped
 * in SFTP_AWAIT, which waits here: so each operation has a deadline and can be cancelled. A
 * connection on which a wait or libssh2 itself failed is `broken` for good: libssh2 is then in the
 * middle of a message, and nothing else may be sent. */
#ifndef SYNCD_TRANSPORT_SFTP_SESSION_H
#define SYNCD_TRANSPORT_SFTP_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libssh2.h>
#include <libssh2_sftp.h>

#include "syncd/base/err.h"
#include "transport/net.h"
#include "transport/open.h"
#include "transport/rate.h"
#include "transport/store.h"

#define SFTP_ROOT_SIZE 2048 /* a home folder and the URL's path under it */

struct sftp_file;

struct sftp {
    struct store store;
    struct url url;
    char user[65];        /* who we log in as */
    const char *password; /* only while logging in */
    int fd;
    LIBSSH2_SESSION *session;
    LIBSSH2_SFTP *sftp;
    struct net_wait wait;
    int64_t timeout_us;
    int64_t patience_us; /* the deadline of what is going on: timeout_us, or more */
    struct err broken;   /* code 0: usable */
    unsigned fruitless;  /* reads of the socket that gave nothing since the last wait */
    int unsent;          /* bytes in the socket's send queue when last looked at */
    bool is_openssh;     /* its rename and exclusive create never replace a file */
    int64_t round_trip_us;
    char home[SFTP_ROOT_SIZE];
    char root[SFTP_ROOT_SIZE];
    struct rate rate;
    struct sftp_file *writing; /* the file with bytes on their way; at most one */
};

struct sftp_path {
    char s[SFTP_ROOT_SIZE + STORE_PATH_SIZE];
};

/* rc = call, again after each wait while it says EAGAIN. EAGAIN in the end: broken. */
#define SFTP_AWAIT(s, rc, call)                                                                    \
    do                                                                                             \
        (rc) = (call);                                                                             \
    while ((rc) == LIBSSH2_ERROR_EAGAIN && sftp_wait(s))

/* The same for calls that answer with a pointer; NULL in the end: failed or broken. */
#define SFTP_AWAIT_PTR(s, p, call)                                                                 \
    do                                                                                             \
        (p) = (call);                                                                              \
    while (!(p) && libssh2_session_last_errno((s)->session) == LIBSSH2_ERROR_EAGAIN && sftp_wait(s))

/* A session, not connected. s->store.name, url, wait.cancel_fd and timeout_us are set; fd is -1. */
int sftp_session_new(struct sftp *s, struct err *e);

/* Connects and shakes hands, asking for host keys of these types (comma separated, best first). The
 * host key is not checked yet: nothing secret may be sent. */
int sftp_session_connect(struct sftp *s, const char *host_key_types, struct err *e);

/* Starts SFTP on the logged-in session and finds out what the server is and can do. */
int sftp_session_start(struct sftp *s, struct err *e);

/* Ends the connection without waiting for the other side, and frees what is libssh2's. */
void sftp_session_end(struct sftp *s);

/* Begins an operation: fails when the session is broken, sees the bytes of a file that is being
 * written to their end, sets the deadline. */
int sftp_begin(struct sftp *s, struct err *e);

/* The deadline counts anew from here. */
void sftp_progress(struct sftp *s);

/* Waits for the socket as libssh2 wants it. False: now broken. */
bool sftp_wait(struct sftp *s);

/* Marks the connection as broken, with the reason; later calls keep the first. */
void sftp_break(struct sftp *s, int code, const char *why);

/* The error of a libssh2 call that answered rc (< 0; 0 after a NULL pointer): fills e with
 * "<worker>: cannot <what> <path>: <why>" and breaks the session unless the server answered in good
 * order. */
int sftp_fail(struct sftp *s, int rc, const char *what, const char *path, struct err *e);

/* True when rc is the server's orderly answer `status` (LIBSSH2_FX_...). */
bool sftp_says(struct sftp *s, int rc, unsigned long status);

struct sftp_path sftp_path_in(const struct sftp *s, const char *path);

static inline struct sftp *sftp_of(struct store *s)
{
    return (struct sftp *)s;
}

/* sftp_login.c: key file, then agent, then password. */
int sftp_login(struct sftp *s, const struct store_options *o, struct err *e);

/* sftp_file.c */
int sftp_create(struct store *s, const char *path, struct store_file **ret, struct err *e);
int sftp_open_file(struct store *s, const char *path, struct store_file **ret, struct err *e);
int sftp_write(struct store_file *f, const void *p, size_t n, struct err *e);
int sftp_read_at(struct store_file *f, uint64_t offset, void *p, size_t n, size_t *ret_n,
                 struct err *e);
int sftp_sync(struct store_file *f, struct err *e);
int sftp_sync_name(struct store_file *f, const char *path, struct err *e);
int sftp_close_file(struct store_file *f, struct err *e);
/* Sees the bytes of the file that is being written to their end; a failure of the file itself is
 * kept for its next call and is none here. */
int sftp_settle(struct sftp *s, struct err *e);

/* sftp_folder.c: everything that goes by name */
int sftp_list(struct store *s, const char *dir, store_list_fn *fn, void *arg, struct err *e);
int sftp_stat(struct store *s, const char *path, struct store_stat *ret, struct err *e);
int sftp_make_dir(struct store *s, const char *path, struct err *e);
int sftp_remove(struct store *s, const char *path, struct err *e);
int sftp_rename(struct store *s, const char *from, const char *to, struct err *e);
int sftp_set_mtime(struct store *s, const char *path, int64_t mtime_us, struct err *e);
int sftp_space(struct store *s, struct store_space *ret, struct err *e);
int sftp_probe(struct store *s, struct err *e);
/* What is at a full path, without sftp_begin. */
int sftp_look(struct sftp *s, const char *full_path, LIBSSH2_SFTP_ATTRIBUTES *ret, struct err *e);

/* sftp_setup.c */
int sftp_make_root(struct store *s, struct err *e);
int sftp_enrol_key(struct store *s, const char *line, struct err *e);

#endif
