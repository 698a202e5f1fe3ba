/* Bringing one snapshot back, as far as commands have it in common: what is told of each file, and
 * the way back in place with its question and its hooks. */
#ifndef SYNCD_BRING_H
#define SYNCD_BRING_H

#include <jansson.h>

#include "restore/restore.h"
#include "snapshot/pool.h"
#include "syncd/found.h"
#include "syncd/services.h"

struct command_args;
struct conf;
struct err;
struct progress;
struct report;
struct session;

/* Damage that was met, for a catalog that is yet to be. */
struct bring_damages {
    size_t count, cap;
    struct bring_damage {
        char worker[256]; /* as the session calls it */
        char source[SOURCE_NAME_SIZE];
        char part[PART_NAME_SIZE]; /* its stem */
    } * items;
};

struct bringing {
    struct session *s;
    struct report *report;
    const struct command_args *args;
    struct progress *progress;
    struct pool pool;
    struct snapshot snapshot;
    struct found found; /* with --from */
    json_t *files;
    struct bring_damages *damages; /* added to, the caller's; NULL: the session's catalog is told */
    char *old_kept_at;
    bool to_stdout;
    bool briefly; /* only what is not in order is told of on the terminal */
    bool agreed;  /* the person has said yes to all of it */
    /* Whose hooks: this machine's config, or (foreign) the one that the snapshot keeps. NULL: none
     * is known. Set by bring_in_place when it is NULL. */
    const struct conf_source *hooks;
    struct conf *hooks_conf; /* owned, when the session's is not the one */
    bool hooks_foreign, hook_ran;
    bool hooks_trusted;       /* foreign ones may run; --run-hooks says so too */
    struct services services; /* of the preset, stopped for the time of the restore */
};
void bring_free(struct bringing *b); /* all but the session, the report and what --json got */

/* Callbacks of restore_params and of in_place_params, with a struct bringing as their arg; the last
 * one is the pool's. */
void bring_on_file(void *arg, const struct restored_file *f);
void bring_on_total(void *arg, uint64_t bytes);
void bring_on_progress(void *arg, uint64_t bytes);
void bring_on_checking(void *arg, const char *path);
void bring_on_damage(void *arg, struct store *store, const struct part_ref *ref,
                     const struct err *e);

/* Which snapshot it is, and at the end what became of it. */
void bring_say_choice(struct bringing *b);
void bring_say_summary(struct bringing *b, const struct restore_summary *sum);

/* The chosen snapshot to where it was (in_place.h), by --path, --dry-run, --keep-special, --yes and
 * --run-hooks. Hooks of this machine's config run around it; those that the repository brings are
 * shown, and run only with --run-hooks. Where there are none, the services of the source's preset
 * are stopped before and started again after; what the preset knows of the danger is said first. */
void bring_say_notice(struct report *report, const struct conf_source *source);
int bring_in_place(struct bringing *b, struct restore_summary *sum, struct err *e);

#endif
