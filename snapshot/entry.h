/* Entries: what a snapshot holds, one record for each file, folder, link, database or dump
 * (FORMAT.md 3). Encoding and checked decoding; no I/O. */
#ifndef SYNCD_SNAPSHOT_ENTRY_H
#define SYNCD_SNAPSHOT_ENTRY_H

#include "snapshot/run_list.h"

struct err;

#define ENTRY_PATH_MAX 4096u
#define ENTRY_RECORD_MAX (8u << 20)
#define ENTRY_RECORD_LONG 262144u /* one beyond is never in memory as a whole */

enum entry_type {
    ENTRY_FILE = 1,
    ENTRY_DIR = 2,
    ENTRY_SYMLINK = 3,
    ENTRY_HARDLINK = 4,
    ENTRY_IMAGE = 5,
    ENTRY_DUMP = 6,
    ENTRY_CONFIG = 7,
};

enum image_kind { IMAGE_SQLITE = 1, IMAGE_BOLT = 2 };

struct entry_image {
    uint64_t id;
    uint8_t kind, page_shift;
    uint64_t page_count, sum;
};

/* A byte string that an entry owns. */
struct entry_bytes {
    uint8_t *data;
    size_t len;
};

struct entry {
    uint8_t type;
    char *path;     /* bytes, no NUL inside */
    bool has_owner; /* mode, uid, gid and mtime are meant */
    uint32_t mode, uid, gid;
    char *owner, *group; /* names; NULL when unknown */
    int64_t mtime_ns;
    int64_t as_of_us;
    struct entry_image image;     /* ENTRY_IMAGE */
    uint64_t size;                /* FILE, DUMP, CONFIG */
    struct run_list runs;         /* ... and where it lies */
    char *link;                   /* SYMLINK, HARDLINK */
    struct entry_bytes xattrs;    /* as in the record */
    struct entry_bytes holes;     /* as in the record */
    struct entry_bytes signature; /* what the source noted */
    char *carried;                /* the reason, or NULL */
    struct entry_bytes details;   /* JSON of a dump; of a folder: leveldb.h */
};

void entry_free(struct entry *e); /* frees what it owns and zeroes it */

/* A copy of its own. ERR_NOMEM. */
int entry_copy(const struct entry *from, struct entry *ret, struct err *err);

/* The size of the entry's content as a user counts it. */
uint64_t entry_size(const struct entry *e);

/* Appends the record, all of it in memory. */
void entry_encode(const struct entry *e, struct buf *to);

/* The same in pieces of at most 64 KiB, for an entry of many runs; what `put` answers other than 0
 * ends it. ERR_LIMIT, before anything was put: it is longer than a record may be. */
typedef int entry_put_fn(void *arg, const void *p, size_t n, struct err *err);
int entry_write(const struct entry *e, entry_put_fn *put, void *arg, struct err *err);

/* Reads one record from the cursor. ERR_DAMAGED with what is wrong; ERR_VERSION for a field that
 * must be understood and is not. *ret is the caller's, to be given to entry_free. */
int entry_decode(struct cursor *c, struct entry *ret, struct err *err);

/* The same for a record (without its length) that lies in a file; a long list of runs is left there
 * and the entry holds on to the file, which must not be changed meanwhile. */
int entry_decode_at(struct shared_file *f, uint64_t at, uint64_t len, struct entry *ret,
                    struct err *err);

#endif
