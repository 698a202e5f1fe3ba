#include "syncd/enrol.h"

#include <string.h>

#include "syncd/base/io.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "transport/store.h"

/* Connects each worker and looks whether a repository is there. */
static size_t look_at_workers(struct session *s, struct report *report)
{
    size_t failed = 0;
    for (size_t i = 0; i < s->worker_count; i++) {
        struct session_worker *w = &s->workers[i];
        int rc = session_connect_worker(s, w, &w->err);
        if (rc == 0)
            rc = repository_read(w->store, &w->repository, &w->err);
        w->has_repository = rc == 0;
        if (rc == 0)
            rc = epoch_read(w->store, &w->epoch, &w->highest_epoch, &w->err);
        else if (rc == ERR_NOT_FOUND && w->store) {
            w->err = ERR_INIT;
            rc = 0;
        }
        if (rc) {
            report_error(report, &w->err);
            failed++;
        }
    }
    return failed;
}

/* Whose repository it is to be: the one known here, the one that a worker has, or a new one. */
static int choose_repository(struct session *s, size_t unreachable, struct err *e)
{
    for (size_t i = 0; i < s->worker_count && !s->has_repository; i++) {
        if (!s->workers[i].has_repository)
            continue;
        s->repository = s->workers[i].repository;
        s->has_repository = true;
    }
    if (s->has_repository)
        return 0;
    if (unreachable) {
        err_set(e, ERR_REFUSED, NULL,
                "a new repository is not made while a worker is out of reach: it may hold one");
        return err_hint(e, "Bring the worker back, or take its block out of the config for now.");
    }
    repository_new(s->conf->name, &s->repository);
    s->has_repository = true;
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
        if (w->has_repository && w->epoch.number > 0 && (!best || w->epoch.number > best->number))
            best = &w->epoch;
    }
    return best;
}

/* This machine leads when nobody does, or when its token rules already. */
static int check_token(struct session *s, struct err *e)
{
    const struct epoch *now = ruling(s);
    if (now && (!s->has_token || memcmp(now->token, s->token, TOKEN_SIZE) != 0)) {
        err_set(e, ERR_FENCED, s->repository.leader,
                "the repository of '%s' has another leader than this machine; nothing is written",
                s->repository.leader);
        return err_hint(e, "If this is a re-installed or replaced leader, `syncd restore --from "
                           "URL` brings its data back first; if its data is right as it is, "
                           "`syncd adopt` makes it the leader.");
    }
    if (!s->has_token || token_is_zero(s->token))
        io_random(s->token, sizeof s->token);
    s->has_token = true;
    s->epoch = now ? now->number : 1;
    return 0;
}

static int enrol_worker(struct session *s, struct session_worker *w, struct report *report,
                        struct err *e)
{
    struct epoch ep = {.number = s->epoch};
    memcpy(ep.token, s->token, TOKEN_SIZE);
    int rc = repository_create(w->store, &s->repository, e);
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

int enrol_repositories(struct session *s, struct report *report, struct err *e)
{
    int first = 0;
    if (s->worker_count == 0) {
        err_set(e, ERR_CONFIG, s->conf->file, "%s names no worker", s->conf->file);
        return err_hint(e, "Run `syncd setup sftp://USER@HOST/PATH` to add one.");
    }
    size_t unreachable = look_at_workers(s, report);
    if (unreachable == s->worker_count) {
        *e = s->workers[0].err;
        return e->code;
    }
    int rc = choose_repository(s, unreachable, e);
    if (rc == 0)
        rc = check_token(s, e);
    if (rc == 0)
        rc = session_save_token(s, e);
    if (rc == 0)
        rc = session_save_repository(s, e);
    for (size_t i = 0; rc == 0 && i < s->worker_count; i++) {
        struct session_worker *w = &s->workers[i];
        if (w->err.code)
            continue;
        if (enrol_worker(s, w, report, &w->err)) {
            report_error(report, &w->err);
            first = first ? first : w->err.code;
        }
    }
    if (rc == 0 && first)
        *e = ERR_INIT;
    return rc ? rc : first;
}
