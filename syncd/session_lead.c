/* Who leads: which epoch rules, and whether it is this machine's (DESIGN 6, Fencing). */
#include <inttypes.h>
#include <string.h>

#include "syncd/base/log.h"
#include "syncd/base/mem.h"
#include "syncd/session.h"
#include "transport/store.h"

static bool is_ours(const struct session *s, const struct epoch *ep)
{
    return s->has_token && memcmp(ep->token, s->token, TOKEN_SIZE) == 0;
}

/* The highest rules. What this machine took while a worker was away counts also when that worker is
 * now the only one that answers. */
void session_find_ruler(struct session *s)
{
    const struct epoch *best = is_ours(s, &s->own) ? &s->own : NULL;
    for (size_t i = 0; i < s->worker_count; i++) {
        const struct session_worker *w = &s->workers[i];
        if (w->store && w->epoch.number > 0 && (!best || w->epoch.number > best->number))
            best = &w->epoch;
    }
    s->ruler = best ? *best : (struct epoch){0};
}

static int fenced(const struct session_worker *w, const char *why, struct err *e)
{
    err_set(e, ERR_FENCED, w->conf->name,
            "%s: the repository of '%s' has another leader than this machine (%s); nothing is "
            "written",
            w->conf->name, w->repository.leader, why);
    return err_hint(e, "If this is a re-installed or replaced leader, `syncd restore --from URL` "
                       "brings its data back first; if its data is right as it is, `syncd adopt` "
                       "makes it the leader.");
}

static const char *why_fenced(const struct session *s)
{
    return s->has_token ? "a newer one took over"
                        : "this machine never was it, or lost its state_dir";
}

static int claim_missed(const struct session *s, struct session_worker *w, struct err *e)
{
    int rc = epoch_claim(w->store, &s->ruler, e);
    if (rc == ERR_EXISTS) {
        err_set(e, ERR_FENCED, w->conf->name,
                "%s: epoch %" PRIu32 " is taken there, but not by this leader; nothing is written "
                "there",
                w->conf->name, s->ruler.number);
        rc = err_hint(e, "If this machine is to lead, run `syncd adopt` once more.");
    }
    if (rc)
        return rc;
    w->epoch = s->ruler;
    w->highest_epoch = s->ruler.number;
    log_msg(LOG_LEVEL_NOTICE, "%s: missed the change of leader; it knows of epoch %" PRIu32 " now",
            w->conf->name, s->ruler.number);
    return 0;
}

int session_check_leader(struct session *s, struct err *e)
{
    s->epoch = 0;
    for (size_t i = 0; i < s->worker_count; i++) {
        const struct session_worker *w = &s->workers[i];
        if (!w->store || w->epoch.number != s->ruler.number || w->epoch.number == 0)
            continue;
        if (!is_ours(s, &w->epoch)) /* two may have taken the same number, on one worker each */
            return fenced(w, why_fenced(s), e);
    }
    if (s->ruler.number == 0) {
        err_set(e, ERR_FENCED, NULL, "the repository has no leader yet");
        return err_hint(e, "Run `syncd setup`.");
    }
    for (size_t i = 0; i < s->worker_count; i++) {
        struct session_worker *w = &s->workers[i];
        if (w->store && w->epoch.number < s->ruler.number && claim_missed(s, w, &w->err))
            session_leave_out(w);
    }
    s->epoch = s->ruler.number;
    if (session_attached(s) > 0)
        return 0;
    *e = s->workers[0].err;
    return e->code;
}

int session_still_leads(const struct session *s, const struct session_worker *w,
                        struct store *store, struct err *e)
{
    uint32_t highest = 0;
    struct epoch now;
    int rc = epoch_highest(store, &highest, e);
    if (rc == 0 && highest <= w->highest_epoch)
        return 0;
    if (rc == 0)
        rc = epoch_read(store, &now, &highest, e);
    if (rc)
        return rc;
    return is_ours(s, &now) ? 0 : fenced(w, "a newer one has just taken over", e);
}
