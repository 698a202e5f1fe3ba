#include "syncd/enrol.h"

#include <string.h>

#include "restore/rescue_text.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "transport/store.h"

static int look_at(struct session *s, struct session_worker *w, struct err *e)
{
    int rc = w->store ? 0 : session_connect_worker(s, w, e);
    if (rc == 0)
        rc = repository_read(w->store, &w->repository, e);
    w->has_repository = rc == 0;
    if (rc == 0)
        return epoch_read(w->store, &w->epoch, &w->highest_epoch, e);
    return rc == ERR_NOT_FOUND && w->store ? 0 : rc;
}

/* Connects each worker and looks whether a repository is there. How many cannot be asked; those
 * have their err set. */
static size_t look_at_workers(struct session *s)
{
    size_t failed = 0;
    for (size_t i = 0; i < s->worker_count; i++) {
        struct session_worker *w = &s->workers[i];
        if (look_at(s, w, &w->err))
            failed++;
        else
            w->err = ERR_INIT;
    }
    return failed;
}

static int ways_on(const char *leader, struct err *e)
{
    return err_hint(e,
                    "If '%s' is another machine, give this one a path of its own in the URL. If "
                    "this machine replaces it: `syncd restore --from URL` brings its data back; "
                    "where the data here is right as it is, `syncd adopt` makes it the leader.",
                    leader);
}

static int foreign(const struct session_worker *w, struct err *e)
{
    err_set(e, ERR_FOREIGN, w->conf->name,
            "%s: the URL holds the repository of another leader, '%s'; it is left alone",
            w->conf->name, w->repository.leader);
    return ways_on(w->repository.leader, e);
}

static bool is_same(const struct repository *a, const struct repository *b)
{
    return memcmp(a->id, b->id, REPO_ID_SIZE) == 0 && memcmp(a->seed, b->seed, SEED_SIZE) == 0;
}

/* One that nobody leads yet: made by a setup that was cut, of this leader or of another. */
static bool is_ours(const struct session *s, const struct session_worker *w)
{
    return w->epoch.number > 0 || strcmp(w->repository.leader, s->conf->name) == 0;
}

/* Takes the repository that a worker has for this leader's; `only`, the one that is new, last. */
static int take_over(struct session *s, const struct session_worker *only, struct err *e)
{
    const struct session_worker *from = only && only->has_repository ? only : NULL;
    for (size_t i = 0; i < s->worker_count; i++)
        if (s->workers[i].has_repository && (!from || from == only))
            from = &s->workers[i];
    if (!from)
        return ERR_NOT_FOUND;
    if (!is_ours(s, from))
        return foreign(from, e);
    s->repository = from->repository;
    s->has_repository = true;
    return 0;
}

/* What only a worker that is away can tell. */
static int refuse_without(const struct session *s, const char *why, struct err *e)
{
    const char *name = "";
    for (size_t i = 0; i < s->worker_count; i++)
        if (s->workers[i].err.code)
            name = s->workers[i].conf->name;
    err_set(e, ERR_REFUSED, name, "%s cannot be asked now, and %s; nothing is written", name, why);
    return err_hint(e,
                    "Bring %s back and run setup again, or take its block out of the config for "
                    "now.",
                    name);
}

/* Whose repository it is to be: the one known here, the one that a worker has, or a new one.
 * Workers that hold another are left out. */
static int choose_repository(struct session *s, const struct session_worker *only,
                             size_t unreachable, struct err *e)
{
    int rc = s->has_repository ? 0 : take_over(s, only, e);
    if (rc && rc != ERR_NOT_FOUND)
        return rc;
    if (rc && unreachable)
        return refuse_without(s, "it may hold this leader's repository, which state_dir lacks", e);
    if (rc) {
        repository_new(s->conf->name, &s->repository);
        s->has_repository = true;
    }
    for (size_t i = 0; i < s->worker_count; i++) {
        struct session_worker *w = &s->workers[i];
        if (w->has_repository && !w->err.code && !is_same(&w->repository, &s->repository))
            foreign(w, &w->err);
    }
    return 0;
}

static bool token_is_zero(const uint8_t *token)
{
    static const uint8_t zero[TOKEN_SIZE];
    return memcmp(token, zero, TOKEN_SIZE) == 0;
}

/* The epoch that rules on some worker; NULL when there is none yet. */
static const struct epoch *ruling(const struct session *s)
{
    const struct epoch *best = NULL;
    for (size_t i = 0; i < s->worker_count; i++) {
        const struct session_worker *w = &s->workers[i];
        if (w->has_repository && !w->err.code && w->epoch.number > 0 &&
            (!best || w->epoch.number > best->number))
            best = &w->epoch;
    }
    return best;
}

/* The highest epoch that this leader has written parts of, as far as it is known here. */
static uint32_t epoch_of_catalog(const struct session *s)
{
    struct catalog *c = NULL;
    uint32_t highest = 0;
    if (catalog_open_readonly(s->conf->state_dir, &c, NULL))
        return 0;
    for (size_t i = 0; i < s->conf->source_count; i++) {
        OWN_MEM struct catalog_part *parts = NULL;
        size_t count = 0;
        if (catalog_parts(c, s->conf->sources[i].name, &parts, &count, NULL))
            continue;
        for (size_t j = 0; j < count; j++)
            highest = MAX(highest, parts[j].epoch);
    }
    catalog_close(c);
    return highest;
}

/* This machine leads when nobody does, or when its token rules already. */
static int check_token(struct session *s, size_t unreachable, struct err *e)
{
    const struct epoch *now = ruling(s);
    if (now && (!s->has_token || memcmp(now->token, s->token, TOKEN_SIZE) != 0)) {
        err_set(e, ERR_FENCED, s->repository.leader,
                "the repository of '%s' has another leader than this machine; nothing is written",
                s->repository.leader);
        return ways_on(s->repository.leader, e);
    }
    /* An epoch that begins anew would be overruled by the one there, with all its snapshots. */
    if (!now && unreachable && (!s->has_token || epoch_of_catalog(s) > 1))
        return refuse_without(s, "it alone knows which epoch rules", e);
    if (!s->has_token || token_is_zero(s->token))
        io_random(s->token, sizeof s->token);
    s->has_token = true;
    s->epoch = now ? now->number : 1;
    for (size_t i = 0; !now && i < s->worker_count; i++) /* an empty one blocks its number */
        if (s->workers[i].err.code == 0)
            s->epoch = MAX(s->epoch, s->workers[i].highest_epoch + 1);
    return 0;
}

/* Beside the README: what reads the repository without syncd. An older one is left as it is. */
static int put_rescue(struct store *store, struct err *e)
{
    struct store_stat st;
    int rc = store_stat(store, "rescue.py", &st, e);
    if (rc == ERR_NOT_FOUND)
        rc = store_write_file(store, "rescue.py", rescue_text,
                              (size_t)(rescue_text_end - rescue_text), e);
    return rc == ERR_EXISTS ? 0 : rc;
}

static int enrol_worker(struct session *s, struct session_worker *w, struct report *report,
                        struct err *e)
{
    const struct epoch *now = ruling(s);
    struct epoch ep = {.number = s->epoch};
    memcpy(ep.token, s->token, TOKEN_SIZE);
    if (now) /* with what it continues from */
        ep = *now;
    int rc = repository_create(w->store, &s->repository, e);
    if (rc == 0)
        rc = put_rescue(w->store, e);
    if (rc == 0 && w->epoch.number < s->epoch)
        rc = epoch_claim(w->store, &ep, e);
    if (rc == 0)
        report_say(report, "%s: %s\n", w->conf->name,
                   w->has_repository ? "repository is there" : "repository created");
    if (rc == 0 && !w->store->abilities.fsync)
        report_say(report,
                   "%s: this server cannot fsync; a power cut there can lose the newest "
                   "files\n",
                   w->conf->name);
    return rc;
}

static int enrol_each(struct session *s, struct session_worker *only, struct report *report)
{
    int first = 0;
    for (size_t i = 0; i < s->worker_count; i++) {
        struct session_worker *w = &s->workers[i];
        if (only && w != only)
            continue;
        /* On success what a step on the way left in err is none. */
        if (w->err.code == 0 && enrol_worker(s, w, report, &w->err) == 0)
            w->err = ERR_INIT;
        if (w->err.code)
            report_error(report, &w->err);
        first = first ? first : w->err.code;
    }
    return first;
}

/* So that no backup has to begin one: it writes little to the card. What is wrong with it is the
 * first backup's to tell. */
static void begin_catalog(const struct session *s)
{
    struct catalog *c = NULL;
    struct err ignored = ERR_INIT;
    if (catalog_open(s->conf->state_dir, &c, NULL, &ignored) == 0)
        catalog_close(c);
}

int enrol_repositories(struct session *s, struct session_worker *only, struct report *report,
                       struct err *e)
{
    if (s->worker_count == 0) {
        err_set(e, ERR_CONFIG, s->conf->file, "%s names no worker", s->conf->file);
        return err_hint(e, "Run `syncd setup sftp://USER@HOST/PATH` to add one.");
    }
    size_t unreachable = look_at_workers(s);
    if (only && only->err.code) {
        *e = only->err;
        return e->code;
    }
    if (unreachable == s->worker_count)
        return enrol_each(s, NULL, report); /* tells of each of them */
    int rc = choose_repository(s, only, unreachable, e);
    if (rc == 0)
        rc = check_token(s, unreachable, e);
    if (rc == 0)
        rc = session_save_token(s, e);
    if (rc == 0)
        rc = session_save_repository(s, e);
    if (rc)
        return rc;
    begin_catalog(s);
    *e = ERR_INIT;
    return enrol_each(s, only, report);
}
