/* Local file I/O. Every call by which syncd changes or reads a file goes through here: it restarts
 * after EINTR, finishes short transfers, sets O_CLOEXEC, and is where the crash and torture tests
 * (build option SYNCD_FAULTS) make a call fail or be the last one.
 *
 * The plain calls answer as the system calls do: -1 and errno. The composite ones fill a struct
 * err. All may block as long as the file system does. */
#ifndef SYNCD_BASE_IO_H
#define SYNCD_BASE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct buf;
struct err;

int io_open(const char *path, int flags, mode_t mode);
int io_openat(int dirfd, const char *path, int flags, mode_t mode);
/* For reading what is not ours: no link is followed at the end of the path, nothing is waited for,
 * and the time of last access stays where this user may ask for that. */
int io_openat_source(int dirfd, const char *path);
int io_close(int fd); /* never restarted after EINTR: on Linux the descriptor is gone by then */

/* Reads until n bytes or the end of the file; returns the count, or -1. */
ssize_t io_read_full(int fd, void *p, size_t n);
ssize_t io_pread_full(int fd, void *p, size_t n, uint64_t offset);

/* Writes all n bytes; 0 or -1. */
int io_write_all(int fd, const void *p, size_t n);
int io_pwrite_all(int fd, const void *p, size_t n, uint64_t offset);

int io_fsync(int fd); /* a failure is final: the caller discards the file and writes again */
/* Has the kernel begin to write these bytes to the disk, if it can; a failure shows at the fsync.
 */
void io_write_back(int fd, uint64_t offset, uint64_t n);
int io_ftruncate(int fd, uint64_t size);
int io_unlink(const char *path);
int io_mkdir(const char *path, mode_t mode);
int io_link(const char *from, const char *to);
int io_rename(const char *from, const char *to);     /* may replace `to` */
int io_rename_new(const char *from, const char *to); /* EEXIST when `to` exists */
int io_set_mtime(const char *path, int64_t mtime_us);
int io_fsync_dir(const char *path);    /* makes the names in the folder `path` durable */
int io_fsync_parent(const char *path); /* the same for the folder that holds `path` */

/* Writes path through "<path>.tmp": write, fsync, rename over path, fsync the folder. */
int io_replace_file(const char *path, const void *p, size_t n, mode_t mode, struct err *e);

/* The same with mode, owner and group of `like` (ERR_PERMISSION when that cannot be). */
int io_replace_file_like(const char *path, const void *p, size_t n, const struct stat *like,
                         struct err *e);

/* Appends the file's bytes to *ret; ERR_LIMIT when it holds more than limit_bytes. */
int io_read_file(const char *path, size_t limit_bytes, struct buf *ret, struct err *e);

/* Makes the folder and its missing parents, each with `mode`; an existing folder is fine. */
int io_make_dirs(const char *path, mode_t mode, struct err *e);

/* n random bytes from the kernel; cannot fail on Linux 3.17 and later. */
void io_random(void *p, size_t n);

/* "<dir>/<name>" freshly allocated, or NULL when out of memory. */
char *io_path(const char *dir, const char *name);

#endif
