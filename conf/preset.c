#include "conf/preset.h"

#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

/* ---- Pioreactor ---- */

static const struct preset_place pioreactor_places[] = {
    {.what = "Pioreactor's folder: databases, config, calibrations, profiles, plugins",
     .env = "DOT_PIOREACTOR",
     .file = "/etc/pioreactor.env",
     .section = "",
     .key = "DOT_PIOREACTOR",
     .path = "/home/pioreactor/.pioreactor"},
    {.what = "the leader's SSH keys, which its workers know it by",
     .path = "/home/pioreactor/.ssh",
     .secret = true},
    {.what = NULL},
};

static const struct preset_leave pioreactor_leaves[] = {
    {.glob = "storage/pioreactor.sqlite.backup*",
     .why = "Pioreactor's own copies of a database that is taken itself"},
    {.glob = "__pycache__/", .why = "made again by Python"},
    {.glob = ".ssh/id_*", .why = "private keys", .secret = true},
    {.glob = NULL},
};

static const struct preset_store pioreactor_stores[] = {
    {.what = "the database of all experiments",
     .globs = {"storage/pioreactor.sqlite"},
     .else_where =
         "is this machine the leader? [storage] in config.ini says where the database is"},
    {.what = NULL},
};

static const char *const pioreactor_outside[] = {
    "/etc/mosquitto: the broker's settings and password file (root's)",
    "/etc/pioreactor.env and what else the image or installer puts under /etc and /opt",
    NULL,
};

static const char *const pioreactor_services[] = {
    "pioreactor*",       "huey.service",         "lighttpd.service",
    "backup-database.*", "ui-exports-cleanup.*", NULL,
};

/* ---- Piri ---- */

static const struct preset_place piri_places[] = {
    {.what = "Piri's data folder: its databases, datastores and journals",
     .env = "PIRI_REPO_DATA_DIR",
     .file = "/opt/piri/etc/piri-config.toml",
     .section = "repo",
     .key = "data_dir",
     .path = "~/.storacha",
     .empty_is_memory = true},
    {.what = NULL},
};

static const struct preset_leave piri_leaves[] = {
    {.glob = "blobs/", .why = "stored blobs, as large as the node itself"},
    {.glob = "pdp/datastore/", .why = "stored pieces, as large as the node itself"},
    {.glob = "pdp/stash/", .why = "uploads that are under way"},
    {.glob = "wallet/", .why = "the wallet's private keys", .secret = true},
    {.glob = "*.pem", .why = "private keys", .secret = true},
    {.glob = NULL},
};

static const struct preset_store piri_stores[] = {
    {.what = "Piri's SQLite databases",
     .globs = {"replicator/replicator.db", "pdp/state/state.db"},
     .else_where = "with repo.database.type = \"postgres\" they are in PostgreSQL, which wants a "
                   "source of its own (postgres = ...); with an empty data_dir, in memory"},
    {.what = NULL},
};

static const char *const piri_outside[] = {
    "the identity key and piri-config.toml (/opt/piri/etc, or where piri was told to look)",
    "blobs, here or in a Minio or S3 store",
    "a PostgreSQL database (repo.database.type = \"postgres\"): a source of its own",
    NULL,
};

static const char *const piri_services[] = {"piri.service", "piri-updater.*", NULL};

/* ---- Bacalhau ---- */

static const struct preset_place bacalhau_places[] = {
    {.what = "Bacalhau's folder: job and execution stores, settings, NATS store",
     .env = "BACALHAU_DIR",
     .path = "~/.bacalhau"},
    {.what = "the job store", .env = "BACALHAU_JOB_STORE_PATH"},
    {.what = "the execution store", .env = "BACALHAU_COMPUTE_STORE_PATH"},
    {.what = NULL},
};

static const struct preset_leave bacalhau_leaves[] = {
    {.glob = "compute/executions/", .why = "work folders of executions"},
    {.glob = "execution_store/", .why = "work folders of executions (before 1.5)"},
    {.glob = "executor_storages/", .why = "work folders of executions (before 1.5)"},
    {.glob = "plugins/", .why = "programs, installed again with Bacalhau"},
    {.glob = "*.pem", .why = "private keys", .secret = true},
    {.glob = "*.key", .why = "private keys", .secret = true},
    {.glob = "tokens.json", .why = "access tokens", .secret = true},
    {.glob = NULL},
};

static const struct preset_store bacalhau_stores[] = {
    {.what = "the job store (orchestrator)",
     .globs = {"orchestrator/state_boltdb.db", "orchestrator_store/jobs.db", "*-requester/jobs.db",
               "*-requester.db"},
     .env = "BACALHAU_JOB_STORE_PATH",
     .type_env = "BACALHAU_JOB_STORE_TYPE",
     .else_where = "a node that is no orchestrator has none; before 1.5 it could be in memory"},
    {.what = "the execution store (compute node)",
     .globs = {"compute/state_boltdb.db", "compute_store/executions.db", "*-compute/executions.db",
               "*-compute.db"},
     .env = "BACALHAU_COMPUTE_STORE_PATH",
     .type_env = "BACALHAU_COMPUTE_STORE_TYPE",
     .else_where = "a node that does not compute has none; before 1.5 it could be in memory"},
    {.what = NULL},
};

static const char *const bacalhau_outside[] = {
    "a config file that lies elsewhere (bacalhau serve --config)",
    "results of jobs: what was published is where the publisher put it",
    NULL,
};

static const char *const bacalhau_services[] = {"bacalhau*.service", NULL};

/* ---- all ---- */

const struct preset preset_table[] = {
    {.name = "pioreactor",
     .system = "Pioreactor",
     .places = pioreactor_places,
     .leaves = pioreactor_leaves,
     .stores = pioreactor_stores,
     .outside = pioreactor_outside,
     .services = pioreactor_services,
     .every = "15m",
     .max_age = "1h",
     .owner = "pioreactor",
     .workers_file = "config.ini",
     .workers_section = "cluster.addresses",
     .dialect = PRESET_DIALECT_PIOREACTOR},
    {.name = "piri",
     .system = "Piri",
     .places = piri_places,
     .leaves = piri_leaves,
     .stores = piri_stores,
     .outside = piri_outside,
     .services = piri_services,
     .every = "15m",
     .max_age = "1h",
     .notice = "Piri signs chain transactions with rising nonces. An older state does not know the "
               "ones it has sent since: it can use a nonce again, and send twice what the chain "
               "has seen already. Look at the chain's nonce and pending transactions of its "
               "addresses before Piri runs again. Blobs that came later are unknown to it."},
    {.name = "bacalhau",
     .system = "Bacalhau",
     .places = bacalhau_places,
     .leaves = bacalhau_leaves,
     .stores = bacalhau_stores,
     .outside = bacalhau_outside,
     .services = bacalhau_services,
     .every = "15m",
     .max_age = "1h"},
    {.name = NULL},
};

const struct preset *preset_find(const char *name)
{
    for (const struct preset *p = preset_table; p->name; p++)
        if (strcmp(p->name, name) == 0)
            return p;
    return NULL;
}

/* ---- into a source ---- */

static size_t length_of(conf_list list)
{
    size_t n = 0;
    while (list && list[n])
        n++;
    return n;
}

/* One more at the end; a list that was not given begins with it. */
static int add(conf_list *list, const char *text)
{
    size_t n = length_of(*list);
    char **more = realloc(*list, (n + 2) * sizeof *more);
    if (!more)
        return ERR_NOMEM;
    *list = more;
    more[n] = strdup(text);
    more[n + 1] = NULL;
    return more[n] ? 0 : ERR_NOMEM;
}

static int add_places(struct conf_source *s)
{
    int rc = 0;
    for (const struct preset_place *p = s->known->places; rc == 0 && p->what; p++)
        if (p->path && *p->path == '/' && (s->secrets || !p->secret))
            rc = add(&s->path, p->path);
    return rc;
}

int preset_apply(struct conf_source *s, struct err *e)
{
    s->known = s->preset ? preset_find(s->preset) : NULL;
    if (!s->known)
        return 0;
    int rc = s->path ? 0 : add_places(s);
    for (const struct preset_leave *l = s->known->leaves; rc == 0 && l->glob; l++)
        if (!l->secret || !s->secrets)
            rc = add(&s->exclude, l->glob);
    return rc ? err_nomem(e) : 0;
}
