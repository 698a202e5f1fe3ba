/* One run: a source becomes a snapshot on the workers that answer. DESIGN 4.
 *
 * The stores are connected and their listings read; the source's lock is held. What was a parent,
 * an unchanged source, a cut run's packs, a list that is too long: plan.h. */
#ifndef SYNCD_SNAPSHOT_BACKUP_H
#define SYNCD_SNAPSHOT_BACKUP_H

#include <stdatomic.h>

#include "snapshot/pipeline.h"
#include "snapshot/repository.h"

struct conf_source;
struct err;

struct backup_params {
    const struct repository *repository;
    const struct conf_source *source;
    const char *config_text; /* kept in the snapshot; may be NULL */
    size_t config_len;
    uint32_t epoch;
    const struct epoch *ruler;   /* epoch's: what it does not continue is not built on; or NULL */
    uint64_t min_sequence;       /* the catalog's: never used before */
    const char *fingerprint_dir; /* of this source; exists; a tmpfs */
    const char *state_dir;       /* never part of a source; may be NULL */
    size_t worker_count;         /* that answer */
    struct {
        struct store *store;
        const int *cancel_fd;
        const struct listing *listing;
    } workers[PIPELINE_WORKERS_MAX];
    bool (*is_ours)(void *arg, const struct part_ref *ref);
    bool (*is_damaged)(void *arg, const struct store *s, const struct part_ref *ref);
    void (*publishing)(void *arg, const struct part_ref *ref, bool snapshot);
    int (*may_begin)(void *arg, size_t worker, struct err *e);   /* pipeline.h */
    int (*may_publish)(void *arg, size_t worker, struct err *e); /* pipeline.h */
    void (*read)(void *arg, uint64_t bytes);
    void (*total)(void *arg, uint64_t bytes);
    void (*sent)(void *arg, size_t worker, uint64_t bytes);
    void (*notice)(void *arg, const char *text);
    void *arg;
    const atomic_bool *cancel;
};

/* An entry that could not be taken; its state in the parent was carried over, if there was one. */
struct backup_failed {
    char *path, *reason, *hint; /* "": none */
    bool lost;                  /* there was one, but it is not whole on the workers any more */
};

struct backup_result {
    struct part_ref snapshot;
    bool unchanged;    /* the parent still holds: nothing was shipped, its mtime moved forward */
    bool complete;     /* nothing is carried over or missing */
    bool consolidated; /* this run shipped pages again to keep the list of parts short */
    int64_t as_of_us;
    uint64_t size_bytes; /* of the entries' content */
    uint64_t read_bytes, changed_bytes, sent_bytes;
    size_t new_part_count;
    int64_t skew_us; /* between the first and the last of the databases that were taken */
    size_t failed_count;
    size_t carried_count; /* entries in it that are as an earlier snapshot had them */
    size_t failed_listed; /* the first of them; more are only counted */
    struct backup_failed *failed;
    struct {
        bool stored;  /* under its final mark, with all that it needs */
        bool as_pack; /* stored, but the worker lacks listed parts: sync brings the rest */
        bool lost;    /* pipeline.h */
        uint64_t sent_bytes;
        struct err err;
    } workers[PIPELINE_WORKERS_MAX];
};

/* 0 when at least one worker has the snapshot, by itself or as .pack. Else the error of the source
 * (when nothing of it could be taken: of its first entry) or of the last worker; ret is filled in
 * any case, and given to backup_result_free. */
int backup_run(const struct backup_params *p, struct backup_result *ret, struct err *e);
void backup_result_free(struct backup_result *r);

#endif
