/* Writing to the config file, which only `setup` does: a worker's or a source's block at its end.
 * The user's own text, the file's mode and its owner stay as they are. */
#ifndef SYNCD_CONFIG_FILE_H
#define SYNCD_CONFIG_FILE_H

#include <stdbool.h>
#include <sys/stat.h>

#include "syncd/base/buf.h"

struct err;

struct config_file {
    char *path;     /* links resolved */
    bool exists;    /* else `text` is the beginning of a new one */
    struct stat st; /* mode, owner and group that it has, or is to have */
    struct buf text;
};

/* Reads the file as it is; a missing one begins with a name, a state_dir and a commented source.
 * ERR_PERMISSION, ERR_IO, ERR_LIMIT. */
int config_file_load(const char *path, struct config_file *ret, struct err *e);
void config_file_free(struct config_file *f);

/* ERR_PERMISSION, with the way out, when the file could not be replaced. Changes nothing. */
int config_file_check_writable(const struct config_file *f, struct err *e);

/* Puts `text` in the file's place, making its folder (0755) when that is missing. ERR_CHANGED when
 * it is no longer what was loaded: nothing is written then. */
int config_file_save(const struct config_file *f, const struct buf *text, struct err *e);

/* The text of a new config. */
void config_put_skeleton(const char *name, const char *state_dir, struct buf *to);

struct config_worker {
    const char *name, *url;
    const char *identity_file, *known_hosts; /* NULL: no such line */
};

/* Appends a worker's block, after an empty line when `to` holds something. */
void config_put_worker(const struct config_worker *w, struct buf *to);

struct config_source {
    const char *name, *preset;
    const char *const *paths; /* NULL-terminated */
    bool secrets;
    const char *every, *max_age;
};

/* Appends a source's block likewise. */
void config_put_source(const struct config_source *s, struct buf *to);

/* How to call the worker of this URL in the config: its host's first label (of an address all of
 * it), "disk" for a folder, made fit to be a title, with a number when `taken` says so. */
struct url;
typedef bool config_taken_fn(const void *arg, const char *title);
void config_worker_title(const struct url *url, config_taken_fn *taken, const void *arg, char *ret,
                         size_t size);

#endif
