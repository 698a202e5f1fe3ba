/* Shared by restore.c (the run), restore_image.c, restore_file.c, restore_link.c (links and
 * folders) and restore_batch.c (many small files durable at once). */
#ifndef SYNCD_RESTORE_RESTORE_INTERNAL_H
#define SYNCD_RESTORE_RESTORE_INTERNAL_H

#include "restore/chunk_source.h"
#include "restore/place.h"
#include "restore/restore.h"
#include "snapshot/spool.h"
#include "syncd/base/err.h"

#define BATCH_FILES 128
#define BATCH_BYTES (UINT64_C(16) << 20)

/* A file that is written but does not have its name yet. */
struct batched {
    struct place at;
    int fd; /* open, so that it stays locked */
    char tmp[64];
    struct entry entry; /* what is told of it: path, size, as_of, carried */
    struct restored_file file;
};

struct restoring {
    const struct restore_params *p;
    struct restore_summary *summary;
    struct spool *entries; /* all of the snapshot's */
    bool owns_entries;
    struct chunk_source *chunks;
    uint8_t *base_chunk; /* room for a chunk of what is there already */
    int base_fd;         /* the folder of params.base; -1: none */
    int root_fd;         /* -1: not there yet */
    char *root;
    char *top; /* the topmost folder that the entry in hand is in */
    size_t made_count, made_cap;
    char **made; /* the topmost folders that this run made */
    uint64_t needed_bytes;
    size_t matched;
    struct err first_difference;
    size_t folder_count, folder_cap;
    uint64_t *folders; /* places in `entries` of the folders that were made or met */
    uint64_t entry_at; /* of the entry in hand */
    size_t batch_count;
    uint64_t batch_bytes;
    struct batched batch[BATCH_FILES];
};

/* restore.c. Reads the snapshot's entries, unless the params bring them; *p must outlive it. */
int restoring_new(const struct restore_params *p, struct restore_summary *summary,
                  struct restoring **ret, struct err *e);
void restoring_free(struct restoring *r); /* NULL is fine */

/* What is at the entry's place now: *ret_result WOULD (nothing), EQUAL or DIFFERS. */
int restore_look(struct restoring *r, const struct entry *n, const struct place *at,
                 enum restore_result *ret_result, struct err *e);

/* What lies at the same path below params.base: a file, or -1. The caller's. */
int restore_open_base(const struct restoring *r, const char *path);

bool restore_matches(const struct restore_params *p, const struct entry *n);
void restore_tell(struct restoring *r, const struct entry *n, const struct place *at,
                  struct restored_file *f);
/* What stands at an entry's place is something else: *ret_result DIFFERS, and why, once. */
void restore_differs(struct restoring *r, const struct place *at, const char *what,
                     enum restore_result *ret_result);

/* restore_image.c. What is at the entry's place now: *ret_result WOULD (nothing), EQUAL or
 * DIFFERS; so for the others. */
int restore_look_image(struct restoring *r, const struct entry *n, const struct place *at,
                       enum restore_result *ret_result, struct err *e);
int restore_write_image(struct restoring *r, const struct entry *n, const struct place *at,
                        struct restored_file *f, struct err *e);
/* To standard output, by way of a scratch file at `at`. */
int restore_stream_image(struct restoring *r, const struct entry *n, const struct place *at,
                         struct restored_file *f, struct err *e);

/* restore_file.c */
int restore_look_file(struct restoring *r, const struct entry *n, const struct place *at,
                      enum restore_result *ret_result, struct err *e);
/* Writes it and hands it to the batch, which tells of it. */
int restore_write_file(struct restoring *r, const struct entry *n, struct place *at, struct err *e);
int restore_stream_file(struct restoring *r, const struct entry *n, struct restored_file *f,
                        struct err *e);

/* restore_dump.c. Keeps the dump in `entries` as it is asked for: whole, or by schemas; such an
 * extract has the whole one's runs and size, and its own bytes come from restore_extract. */
int restore_keep_dump(struct restoring *r, const struct entry *n, struct err *e);
bool restore_is_extract(const struct entry *n);
int restore_extract(struct restoring *r, const struct entry *n, chunk_source_fn *take, void *arg,
                    struct err *e);

/* restore_link.c */
int restore_look_plain(struct restoring *r, const struct entry *n, const struct place *at,
                       enum restore_result *ret_result, struct err *e);
int restore_make_folder(struct restoring *r, const struct entry *n, const struct place *at,
                        struct err *e);
int restore_make_symlink(struct restoring *r, const struct entry *n, const struct place *at,
                         struct restored_file *f, struct err *e);
/* A hard link to an entry that is restored too; else a file with that one's content. */
int restore_make_hard_link(struct restoring *r, struct entry *n, struct place *at,
                           struct restored_file *f, struct err *e);
/* The folder in hand (entry_at) is one of those. */
int restore_remember_folder(struct restoring *r, struct err *e);
/* Modes, owners, attributes and times of the folders, the deepest first. */
int restore_finish_folders(struct restoring *r, struct err *e);

/* restore_tidy.c. A folder was made, whose path is the first `n` bytes of `path`. */
int restore_note_made(struct restoring *r, const char *path, size_t n, struct err *e);
/* The same of the folder that params.target names, before it is made. */
int restore_note_target(struct restoring *r, struct err *e);
/* Removes what is empty of all that was noted. */
void restore_tidy(struct restoring *r);
void restore_made_free(struct restoring *r);

/* restore_batch.c. Takes over g, *at (emptied) and n's fields that it needs. */
int batch_add(struct restoring *r, struct placing *g, struct place *at, const struct entry *n,
              const struct restored_file *f, struct err *e);
/* Makes what waits durable and gives it its names. */
int batch_flush(struct restoring *r, struct err *e);
void batch_drop(struct restoring *r); /* on the way out: removes what has no name yet */

#endif
