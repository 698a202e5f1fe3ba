/* The systems that syncd knows: what a source with `preset` stands for. One table, nothing but
 * data: places, what is left out there, services, what a person should know.
 *
 * A source with a preset means the same as one that spells all of this out (preset_apply). What
 * depends on the machine - environment variables, homes, the system's own config - is looked up
 * once, by `setup --preset`, which writes literal paths into the config. */
#ifndef SYNCD_CONF_PRESET_H
#define SYNCD_CONF_PRESET_H

#include <stdbool.h>
#include <stddef.h>

struct conf_source;
struct err;

enum preset_dialect { PRESET_DIALECT_NONE, PRESET_DIALECT_PIOREACTOR };

/* A folder or file to protect; `what` NULL ends a list. */
struct preset_place {
    const char *what;
    const char *env;                  /* the variable that names it; NULL: none */
    const char *file, *section, *key; /* the system's own config that names it; NULL: none */
    const char *path; /* where it is else: "/..." the same on each machine, "~/..." under the home
                         of who runs it, NULL: only where the variable says */
    bool empty_is_memory; /* named, but empty: the system keeps its state in memory */
    bool secret;          /* only with `secrets = true` */
};

/* What is left out below the places: a glob as in exclude.h; NULL ends a list. */
struct preset_leave {
    const char *glob, *why;
    bool secret; /* taken with `secrets = true` */
};

#define PRESET_STORE_GLOBS 5

/* A database that should be there, under the name of one release or another, below one of the
 * places or by the place's own variable; `what` NULL ends a list. */
struct preset_store {
    const char *what;
    const char *globs[PRESET_STORE_GLOBS]; /* relative to a place; NULL-terminated */
    const char *env;                       /* a variable that names the file; NULL: none */
    const char *type_env;   /* a variable that says "inmemory" when it is; NULL: none */
    const char *else_where; /* why it may be missing */
};

struct preset {
    const char *name;   /* "pioreactor"; NULL ends the table */
    const char *system; /* as people call it */
    const struct preset_place *places;
    const struct preset_leave *leaves;
    const struct preset_store *stores;
    const char *const *outside;  /* what it does not take, for people; NULL-terminated */
    const char *const *services; /* patterns of systemd units that use the files, all releases' */
    const char *every, *max_age; /* what `setup --preset` writes */
    const char *owner;           /* whose files they are; NULL: any one user's */
    /* Where its own list of machines stands, for `setup --preset NAME --workers`; NULL: nowhere. */
    const char *workers_file, *workers_section;
    const char *notice; /* said before a restore in place asks; NULL: nothing */
    enum preset_dialect dialect;
};

extern const struct preset preset_table[];

/* NULL when there is none of that name. */
const struct preset *preset_find(const char *name);

/* Puts into a source with a preset what its preset says: its fixed places when no path is given,
 * and its leaves to the excludes; s->known is the preset. A source without is left alone. A preset
 * whose places differ from machine to machine leaves s->path NULL. ERR_NOMEM. */
int preset_apply(struct conf_source *s, struct err *e);

#endif
