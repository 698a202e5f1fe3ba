#include "snapshot/sqlite_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "snapshot/attributes.h"
#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define SHM_DMS_BYTE 128 /* of the -shm: walformat.html 2.3.1 ends at 127, this one follows */
#define MAGIC "SQLite format 3"
#define WAL_HEADER 32u
#define WAL_MAGIC 0x377f0682u

static int open_for_look(const char *path)
{
    return io_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
}

/* A fresh path + suffix; NULL when out of memory. */
static char *beside(const char *path, const char *suffix)
{
    char *ret = NULL;
    return asprintf(&ret, "%s%s", path, suffix) < 0 ? NULL : ret;
}

bool sqlite_is_database(const char *path)
{
    char magic[sizeof MAGIC];
    OWN_FD int fd = open_for_look(path);
    return fd >= 0 && io_pread_full(fd, magic, sizeof magic, 0) == sizeof magic &&
           memcmp(magic, MAGIC, sizeof magic) == 0;
}

int sqlite_signature(const char *path, struct entry_bytes *ret, struct err *e)
{
    static const char *const suffixes[] = {"", "-wal", "-journal"};
    OWN_BUF struct buf b = BUF_INIT;
    bool quiet = true;
    for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
        struct stat st;
        OWN_MEM char *file = beside(path, suffixes[i]);
        if (!file)
            return err_nomem(e);
        if (stat(file, &st) < 0) {
            if (i == 0 || errno != ENOENT)
                return err_sys(e, errno, file, "cannot look at %s", file);
            buf_put_u8(&b, 0);
            continue;
        }
        quiet &= attributes_settled(&st);
        buf_put_u8(&b, 1);
        buf_put_u64(&b, (uint64_t)st.st_ino);
        buf_put_u64(&b, (uint64_t)st.st_size);
        buf_put_u64(&b, (uint64_t)attributes_ns(&st.st_mtim));
        buf_put_u64(&b, (uint64_t)attributes_ns(&st.st_ctim));
    }
    *ret = (struct entry_bytes){0};
    if (b.bad)
        return err_nomem(e);
    if (quiet) {
        *ret = (struct entry_bytes){.data = b.data, .len = b.len};
        b = BUF_INIT;
    }
    return 0;
}

/* ---- at one moment ---- */

static int look_beside(const char *path, const char *suffix, struct stat *ret, bool *ret_there,
                       struct err *e)
{
    OWN_MEM char *file = beside(path, suffix);
    if (!file)
        return err_nomem(e);
    *ret_there = stat(file, ret) == 0;
    return *ret_there || errno == ENOENT ? 0 : err_sys(e, errno, file, "cannot look at %s", file);
}

int sqlite_files_look(const char *path, struct sqlite_files *ret, struct err *e)
{
    struct sqlite_files f = {.at_us = clock_now_us()};
    if (stat(path, &f.db) < 0)
        return err_sys(e, errno, path, "cannot look at %s", path);
    int rc = look_beside(path, "-wal", &f.wal, &f.has_wal, e);
    if (rc == 0)
        rc = look_beside(path, "-shm", &f.shm, &f.has_shm, e);
    if (rc == 0)
        rc = look_beside(path, "-journal", &f.journal, &f.has_journal, e);
    if (rc == 0)
        *ret = f;
    return rc;
}

bool sqlite_files_is_same_database(const struct sqlite_files *a, const struct sqlite_files *b)
{
    return a->db.st_ino == b->db.st_ino && a->db.st_dev == b->db.st_dev;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           attributes_ns(&a->st_mtim) == attributes_ns(&b->st_mtim) &&
           attributes_ns(&a->st_ctim) == attributes_ns(&b->st_ctim);
}

static bool same_beside(bool has_a, const struct stat *a, bool has_b, const struct stat *b)
{
    return has_a == has_b && (!has_a || same_file(a, b));
}

bool sqlite_files_are_same(const struct sqlite_files *a, const struct sqlite_files *b)
{
    return same_file(&a->db, &b->db) && same_beside(a->has_wal, &a->wal, b->has_wal, &b->wal) &&
           same_beside(a->has_shm, &a->shm, b->has_shm, &b->shm) &&
           same_beside(a->has_journal, &a->journal, b->has_journal, &b->journal);
}

static int64_t written_us(const struct stat *st)
{
    return MAX(attributes_ns(&st->st_mtim), attributes_ns(&st->st_ctim)) / 1000;
}

int64_t sqlite_files_written_us(const struct sqlite_files *f)
{
    int64_t us = written_us(&f->db);
    if (f->has_wal)
        us = MAX(us, written_us(&f->wal));
    if (f->has_journal)
        us = MAX(us, written_us(&f->journal));
    return f->has_shm ? MAX(us, written_us(&f->shm)) : us;
}

uint64_t sqlite_wal_bytes(const char *path)
{
    struct stat st;
    OWN_MEM char *wal = beside(path, "-wal");
    return wal && stat(wal, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* ---- the header of a -wal (file format documentation, 4.1 and 4.2) ---- */

static uint32_t be32_get(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool wal_header_is_good(const uint8_t head[static WAL_HEADER])
{
    uint32_t magic = be32_get(head), size = be32_get(head + 8), s0 = 0, s1 = 0;
    if ((magic & ~1u) != WAL_MAGIC || size < 512 || size > 65536 || (size & (size - 1)) != 0)
        return false;
    for (size_t i = 0; i < WAL_HEADER - 8; i += 8) {
        s0 += (magic & 1 ? be32_get(head + i) : le32_get(head + i)) + s1;
        s1 += (magic & 1 ? be32_get(head + i + 4) : le32_get(head + i + 4)) + s0;
    }
    return s0 == be32_get(head + WAL_HEADER - 8) && s1 == be32_get(head + WAL_HEADER - 4);
}

int sqlite_wal_counts(const char *path, bool *ret, struct err *e)
{
    uint8_t head[WAL_HEADER];
    OWN_MEM char *wal = beside(path, "-wal");
    if (!wal)
        return err_nomem(e);
    OWN_FD int fd = open_for_look(wal);
    if (fd < 0 && errno != ENOENT)
        return err_sys(e, errno, wal, "cannot open %s", wal);
    *ret = fd >= 0 && io_pread_full(fd, head, sizeof head, 0) == sizeof head &&
           wal_header_is_good(head);
    return 0;
}

int sqlite_journal_is_there(const char *path, bool *ret, struct err *e)
{
    uint8_t first = 0; /* zeroed when a journal that persists is done with */
    OWN_MEM char *journal = beside(path, "-journal");
    if (!journal)
        return err_nomem(e);
    OWN_FD int fd = open_for_look(journal);
    if (fd < 0 && errno != ENOENT)
        return err_sys(e, errno, journal, "cannot open %s", journal);
    *ret = fd >= 0 && io_pread_full(fd, &first, 1, 0) == 1 && first != 0;
    return 0;
}

bool sqlite_has_log(const char *path)
{
    struct sqlite_files files;
    bool journal = false;
    return (sqlite_files_look(path, &files, NULL) == 0 && files.has_wal) ||
           (sqlite_journal_is_there(path, &journal, NULL) == 0 && journal);
}

/* ---- who else ---- */

int sqlite_is_open_elsewhere(const char *path, bool *ret, struct err *e)
{
    OWN_MEM char *shm = beside(path, "-shm");
    if (!shm)
        return err_nomem(e);
    OWN_FD int fd = open_for_look(shm);
    struct flock who = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = SHM_DMS_BYTE, .l_len = 1};
    *ret = false;
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0)
        return err_sys(e, errno, shm, "cannot open %s", shm);
    /* Asked as another owner, so that a connection of this process counts, too. */
    if (fcntl(fd, F_OFD_GETLK, &who) < 0)
        return err_sys(e, errno, shm, "cannot ask who has %s open", shm);
    *ret = who.l_type != F_UNLCK;
    return 0;
}

/* ---- the header (file format documentation, 1.3) ---- */

int sqlite_header_read(const char *path, struct sqlite_header *ret, struct err *e)
{
    uint8_t head[100];
    OWN_FD int fd = open_for_look(path);
    if (fd < 0)
        return err_sys(e, errno, path, "cannot open %s", path);
    ssize_t n = io_pread_full(fd, head, sizeof head, 0);
    if (n < 0)
        return err_sys(e, errno, path, "cannot read %s", path);
    if (n < (ssize_t)sizeof head || memcmp(head, MAGIC, sizeof MAGIC) != 0) {
        err_set(e, ERR_SOURCE, path, "%s is not a SQLite database (or it is encrypted)", path);
        return err_hint(e, "Check the path in this source's block of the configuration.");
    }
    uint32_t size = (uint32_t)head[16] << 8 | head[17];
    size = size == 1 ? 65536 : size;
    if (size < 512 || size > 65536 || (size & (size - 1)) != 0) {
        err_set(e, ERR_SOURCE, path, "%s is damaged: its header gives a page size of %u", path,
                size);
        return err_hint(e, "`syncd restore --path` brings an earlier state back. If it is no "
                           "database, name it in the source's exclude.");
    }
    ret->page_shift = (uint8_t)__builtin_ctz(size);
    ret->wal_mode = head[18] == 2 || head[19] == 2;
    return 0;
}
