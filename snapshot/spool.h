/* A list of entries in a temporary file without a name, written once and read in order: what would
 * be too much for memory in a tree of a million files. In a backup it lies in the folder of the
 * fingerprints (a tmpfs), so nothing is written to the source's disk.
 *
 * Memory: 64 KiB for writing and for each reader, up to 256 KiB for a longer record; the runs of
 * one that is longer still stay in the file, so that an entry with many is only good until the
 * spool is emptied. One thread. */
#ifndef SYNCD_SNAPSHOT_SPOOL_H
#define SYNCD_SNAPSHOT_SPOOL_H

#include "snapshot/entry.h"

struct err;
struct spool;

/* A file in `dir` (NULL: in memory) that is gone when it is closed, however the process ends. */
int spool_file(const char *dir, int *ret_fd, struct err *e);

/* Where what does not belong to a backup puts such files: TMPDIR, else /var/tmp; NULL when nothing
 * can be written there. */
const char *spool_dir(void);

int spool_open(const char *dir, struct spool **ret, struct err *e);
void spool_close(struct spool *s); /* NULL is fine */
void spool_closep(struct spool **s);
#define OWN_SPOOL __attribute__((cleanup(spool_closep)))

/* Appends one record; *ret_at (may be NULL) is where it lies, for spool_at. ERR_LIMIT: it is longer
 * than a record may be, and was not added. */
int spool_add(struct spool *s, const struct entry *entry, uint64_t *ret_at, struct err *e);
void spool_empty(struct spool *s);

uint64_t spool_count(const struct spool *s);
uint64_t spool_bytes(const struct spool *s);

/* Going through it; adding is not allowed meanwhile. */
struct spool_reader {
    struct spool *spool;
    uint64_t at;    /* of window's first byte */
    size_t taken;   /* of the window */
    uint64_t entry; /* where the last entry lies */
    struct buf window;
};
struct spool_reader spool_read(struct spool *s);
void spool_reader_free(struct spool_reader *r);
#define OWN_SPOOL_READER __attribute__((cleanup(spool_reader_free)))

/* 1: *ret is the next entry, the caller's; 0: there is none; or an error. */
int spool_next(struct spool_reader *r, struct entry *ret, struct err *e);

/* The entry that lies at this place. */
int spool_at(struct spool *s, uint64_t at, struct entry *ret, struct err *e);

#endif
