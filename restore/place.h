/* Putting files under a folder, whatever names a snapshot holds: every component is opened by
 * itself and never through a link, so that nothing outside the folder can be reached. */
#ifndef SYNCD_RESTORE_PLACE_H
#define SYNCD_RESTORE_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

struct entry;
struct err;

/* Where an entry goes: the folder that will hold it, and the last component of its name. */
struct place {
    int dir_fd; /* -1: the folder does not exist yet (without `create`) */
    char name[256];
    char *shown; /* the whole path, for messages */
    size_t made; /* with `create`: the length in `shown` of the topmost folder made, 0: none was */
};
void place_close(struct place *p);
#define OWN_PLACE __attribute__((cleanup(place_close)))

/* Opens the folder of root/<path>; with `create` missing folders are made (0755 less the umask).
 * ERR_DAMAGED for a path with "..", ".", an empty or too long component; ERR_REFUSED when a
 * component is a link or no folder. */
int place_open(int root_fd, const char *root, const char *path, bool create, struct place *ret,
               struct err *e);

/* Whether a -wal, -shm or -journal lies beside the place: SQLite would read it into what is put
 * there. */
bool place_has_sidecar(const struct place *p);

/* Sets owner (when we may), extended attributes, mode and mtime of an open file or folder, or of
 * the link itself. *ret_owner_differs (set, never cleared): the owner, or an attribute, could not
 * be set. Capabilities, setuid and setgid bits are set only with keep_special. */
int place_attributes(int fd, const struct place *at, const struct entry *entry, bool keep_special,
                     bool *ret_owner_differs, struct err *e);
int place_link_attributes(const struct place *at, const struct entry *entry,
                          bool *ret_owner_differs, struct err *e);

/* Whether what lies there has them already, as far as this user could set them. */
bool place_has_attributes(const struct place *at, const struct entry *entry, bool keep_special);

/* A file under construction beside its final name; locked while it is open, so that a later run can
 * tell it from what a cut run has left. */
struct placing {
    int fd;
    char tmp[64]; /* in place.dir_fd */
};

/* Removes the folder's unfinished files that nobody is at work on any more. */
void place_collect(int dir_fd);
int placing_begin(const struct place *p, struct placing *ret, struct err *e);

/* Owner (when we may), mode and mtime of the entry, fsync, the final name (never over an existing
 * one: ERR_EXISTS), fsync of the folder. Closes the file. setuid and setgid bits come back only
 * with keep_special. *ret_owner_differs: the owner could not be set. */
int placing_finish(struct placing *g, const struct place *p, const struct entry *entry,
                   bool keep_special, bool *ret_owner_differs, struct err *e);

/* The steps of placing_finish by themselves, for many files at once: attributes, then (when the
 * caller has made the file durable) the name; the caller makes that durable too. */
int placing_attributes(struct placing *g, const struct place *p, const struct entry *entry,
                       bool keep_special, bool *ret_owner_differs, struct err *e);
int placing_name(const char *tmp, const struct place *p, struct err *e);

void placing_abort(struct placing *g, const struct place *p);

/* "/proc/self/fd/N/NAME": a path for libraries that know no openat(). */
void placing_path(const struct placing *g, const struct place *p, char ret[static 320]);

#endif
