/* What the files of `backup` share: one source's run, and what is said of it. */
#ifndef SYNCD_BACKUP_JOB_H
#define SYNCD_BACKUP_JOB_H

#include <jansson.h>

#include "snapshot/backup.h"
#include "syncd/catalog.h"
#include "syncd/clock_doubt.h"
#include "syncd/upkeep.h"

/* One source's run. */
struct backup_job {
    struct upkeep u; /* first: its callbacks get a job as their arg */
    struct session *s;
    struct report *report;
    const struct conf_source *source;
    size_t session_index[CONF_MAX_WORKERS]; /* of the run's workers */
    char *runtime_dir;                      /* of this source; not kept */
    struct unnoted *unnoted;
    struct backup_result result;
    struct catalog_run run;
    struct catalog_run_worker workers[CONF_MAX_WORKERS];
    bool behind[CONF_MAX_WORKERS]; /* it lacks what other snapshots need, whether this is stored or
                                      not */
    struct err worker_errors[CONF_MAX_WORKERS];
    struct err unwritten;   /* the catalog took nothing; code 0: it did */
    enum clock_doubt clock; /* what to think of the run's times */
    int64_t started_us;
    int rc;
    struct err err;
};

/* backup_say.c */

/* The run as its object in the answer. */
json_t *backup_job_json(const struct backup_job *j);

/* Says what became of the run, adds its object to the list and frees the result. */
void backup_job_report(struct backup_job *j, json_t *list);

#endif
