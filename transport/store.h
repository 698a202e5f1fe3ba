/* A store: a worker's repository folder, as a set of immutable files.
 *
 * One interface, two back ends: `sftp.h` (a worker over SSH) and `local.h` (a folder: a USB stick,
 * a NAS mount). Paths are relative to the repository's folder, with '/' between at most two names
 * and no "." or ".."; "" is the folder itself.
 *
 * Every call fails with ERR_TIMEOUT when for the store's deadline (SFTP: `timeout_s` of its
 * options) nothing moved on the connection; making a file durable, which waits for the worker's
 * disk, has four times as long. A local folder blocks as long as its file system does, be it for
 * ever (may_hang): then the thread that called is lost, and with it the store, which must not be
 * closed either. A store and
 * the files opened on it are used by one thread at a time, the files are closed before the store,
 * and a store_list_fn does not use the store. After ERR_TIMEOUT, ERR_CONNECT or ERR_CANCELLED the
 * store is of no more use but to be closed: open it anew and do the operation again.
 *
 * Errors, besides those: ERR_NOT_FOUND, ERR_EXISTS, ERR_PERMISSION, ERR_NO_SPACE, ERR_UNSUPPORTED
 * (the server cannot do that), ERR_CANCELLED, ERR_IO. Messages name the worker and the path. */
#ifndef SYNCD_TRANSPORT_STORE_H
#define SYNCD_TRANSPORT_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct store;
struct store_file;

enum store_kind { STORE_OTHER, STORE_FILE, STORE_DIR };

struct store_stat {
    enum store_kind kind;
    uint64_t size_bytes;
    int64_t mtime_us; /* SFTP knows whole seconds only */
};

struct store_space {
    uint64_t total_bytes;
    uint64_t free_bytes; /* for this user */
};

/* What the server was found to be able to do, asked at run time. `fsync` is true until a server has
 * said no, at the first store_publish or store_probe of a connection. */
struct store_abilities {
    bool fsync; /* "stored" is durable; else a power cut on the worker can lose the newest files */
    bool space; /* free space can be asked; else min_free cannot be kept */
};

/* Called for each name in a folder, in no order, without "." and ".."; a nonzero answer ends the
 * listing and is returned. `name` is whatever the worker sent (no '/' and no NUL, up to 255 bytes).
 */
typedef int store_list_fn(void *arg, const char *name, const struct store_stat *st, struct err *e);

#define STORE_NAME_MAX 255                       /* bytes in one name */
#define STORE_PATH_SIZE (2 * STORE_NAME_MAX + 2) /* a path and its NUL */

/* One name of a path: 1 to 255 bytes without '/' and NUL, neither "." nor "..". */
bool store_name_ok(const char *name, size_t len);

struct store_ops {
    int (*list)(struct store *s, const char *dir, store_list_fn *fn, void *arg, struct err *e);
    int (*stat)(struct store *s, const char *path, struct store_stat *ret, struct err *e);
    int (*make_dir)(struct store *s, const char *path, struct err *e);
    int (*remove)(struct store *s, const char *path, struct err *e);
    int (*rename)(struct store *s, const char *from, const char *to, struct err *e);
    int (*set_mtime)(struct store *s, const char *path, int64_t mtime_us, struct err *e);
    int (*space)(struct store *s, struct store_space *ret, struct err *e);
    int (*probe)(struct store *s, struct err *e); /* NULL: abilities are certain */
    int (*create)(struct store *s, const char *path, struct store_file **ret, struct err *e);
    int (*open)(struct store *s, const char *path, struct store_file **ret, struct err *e);
    int (*write)(struct store_file *f, const void *p, size_t n, struct err *e);
    int (*read_at)(struct store_file *f, uint64_t offset, void *p, size_t n, size_t *ret_n,
                   struct err *e);
    int (*sync)(struct store_file *f, struct err *e);
    int (*sync_name)(struct store_file *f, const char *path, struct err *e);
    int (*close_file)(struct store_file *f, struct err *e);
    int (*make_root)(struct store *s, struct err *e);
    int (*enrol_key)(struct store *s, const char *line, struct err *e); /* NULL: not needed */
    void (*close)(struct store *s);
};

/* The part that every back end's own structs begin with. */
struct store {
    const struct store_ops *ops;
    char name[64];                    /* the worker's title, for messages */
    bool may_hang;                    /* its calls have no deadline: they are the kernel's */
    struct store_abilities abilities; /* filled by the back end's open */
};

struct store_file {
    struct store *store;
};

/* Lists a folder; ERR_NOT_FOUND when it does not exist. */
int store_list(struct store *s, const char *dir, store_list_fn *fn, void *arg, struct err *e);

int store_stat(struct store *s, const char *path, struct store_stat *ret, struct err *e);

/* Makes a folder (0700); an existing one is fine. Its parent must exist. */
int store_make_dir(struct store *s, const char *path, struct err *e);

int store_remove(struct store *s, const char *path, struct err *e);

/* Never over an existing name: ERR_EXISTS (on servers whose rename would replace, by a look first;
 * names are write-once and a source has one writer). */
int store_rename(struct store *s, const char *from, const char *to, struct err *e);

int store_set_mtime(struct store *s, const char *path, int64_t mtime_us, struct err *e);

/* ERR_UNSUPPORTED when the server cannot tell (abilities.space). */
int store_space(struct store *s, struct store_space *ret, struct err *e);

/* Makes sure of s->abilities without writing anything; for `check`. */
int store_probe(struct store *s, struct err *e);

/* Opens a new file (0600) for writing from its start; ERR_EXISTS when the name is taken. *ret is
 * the caller's, to be given to store_close_file. */
int store_create(struct store *s, const char *path, struct store_file **ret, struct err *e);

/* Opens a file for reading. */
int store_open(struct store *s, const char *path, struct store_file **ret, struct err *e);

/* Appends n bytes, and waits only when the window is full or the rate is used up: up to 990,000
 * bytes (480,000 where a round trip takes less than 1 ms) are on their way when it returns, and the
 * SFTP back end keeps a copy. An error of theirs shows at a later call for this file. The size of n
 * does not matter. Any other call on the store first waits for these bytes, so write one file at a
 * time. */
int store_write(struct store_file *f, const void *p, size_t n, struct err *e);

/* Reads up to n bytes at `offset`; *ret_n < n only at the end of the file. Over SFTP reads in order
 * are fast from 240,000 bytes on: from the second of them 960,000 bytes are asked for ahead. A jump
 * costs a round trip, and nothing is asked for beyond its n bytes; in a file that is read in order
 * a gap of up to 240,000 bytes is read through instead. */
int store_read_at(struct store_file *f, uint64_t offset, void *p, size_t n, size_t *ret_n,
                  struct err *e);

/* The two durable steps of store_publish by themselves, for a file that takes another's place:
 * waits for everything written and makes it durable; makes the name durable that the open file was
 * given by store_rename. Nothing on a server without fsync (abilities.fsync). */
int store_sync(struct store_file *f, struct err *e);
int store_sync_name(struct store_file *f, const char *path, struct err *e);

/* Waits for everything written and makes it durable, gives the file its final name `to` and makes
 * that name durable too; nothing more can be written to it then. mtime_us >= 0 is set before the
 * rename. On a server without fsync the durable steps are left out (abilities.fsync). `from` is the
 * name it was created under. ERR_EXISTS when `to` exists. When it fails the file may be there under
 * either name, or both. */
int store_publish(struct store_file *f, const char *from, const char *to, int64_t mtime_us,
                  struct err *e);

/* Closes; the file is freed whatever the answer. NULL is fine. What was not published is not known
 * to be stored. */
int store_close_file(struct store_file *f, struct err *e);

/* Closes the connection and frees the store. NULL is fine. Blocks at most 2 s. */
void store_close(struct store *s);

/* The worker's clock, in whole seconds over SFTP: the mtime of an empty file that is made in tmp/
 * ("check-<hex>") and removed again. *ret_ahead_us: by how much it is ahead of this machine's
 * clock (0 within the time that asking took); may be NULL. */
int store_clock(struct store *s, int64_t *ret_us, int64_t *ret_ahead_us, struct err *e);

/* Small whole files: read at most limit_bytes (ERR_LIMIT beyond), or create, write and publish by
 * way of tmp/<random> (ERR_EXISTS when the name is taken, also when two do it at once). */
struct buf;
int store_read_file(struct store *s, const char *path, size_t limit_bytes, struct buf *ret,
                    struct err *e);
int store_write_file(struct store *s, const char *path, const void *p, size_t n, struct err *e);

#endif
