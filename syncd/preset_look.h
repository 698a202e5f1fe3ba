/* A preset on this machine: where its system's files are, which of its databases are there, and
 * which of its machines can be workers. */
#ifndef SYNCD_PRESET_LOOK_H
#define SYNCD_PRESET_LOOK_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct err;
struct preset;
struct preset_store;

#define PRESET_PLACES_MAX 8

struct preset_found {
    size_t count;
    struct {
        char *path;
        const char *what;
        char *from; /* what named it: "PIRI_REPO_DATA_DIR", a file; NULL: its usual place */
    } places[PRESET_PLACES_MAX];
};

/* Looks each place up: its variable, else the system's own config, else its usual place. One that
 * does not exist is ERR_NOT_FOUND with what named it; one that is named but empty, and so stands
 * for a store in memory, is ERR_UNSUPPORTED. The places of `secrets` only with it; one that lies in
 * another is left out. *ret is for preset_found_free. */
int preset_look(const struct preset *p, bool secrets, struct preset_found *ret, struct err *e);
void preset_found_free(struct preset_found *f);

enum preset_store_state { PRESET_STORE_THERE, PRESET_STORE_MEMORY, PRESET_STORE_MISSING };

/* Whether the database is below one of the paths (NULL-terminated), by a variable in memory, or
 * neither. */
enum preset_store_state preset_store_look(const struct preset_store *s, char *const *paths);

struct preset_worker {
    char *name, *address;
};

/* The machines in the system's own list but this one, by name; at most `max`. *ret_all is how many
 * there are. ERR_NOT_FOUND: there is no list, or it is empty. The caller frees with
 * preset_workers_free. */
int preset_workers(const struct preset *p, const char *place, size_t max,
                   struct preset_worker **ret, size_t *ret_count, size_t *ret_all, struct err *e);
void preset_workers_free(struct preset_worker *w, size_t count);

#endif
