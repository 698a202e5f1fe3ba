/* syncd adopt: this machine becomes the leader of a repository that another one wrote. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "syncd/ask.h"
#include "syncd/base/clock.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/command.h"
#include "syncd/commands.h"
#include "syncd/found.h"
#include "syncd/lead.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"

struct adopting {
    struct session *s;
    struct report *report;
    struct found found;
    struct repository known; /* what state_dir knew before */
    bool had_repository;
};

static void say_found(struct adopting *a)
{
    char id[SHOW_SIZE], age[SHOW_SIZE], time[CLOCK_TEXT_SIZE];
    json_t *list = json_array();
    report_say(a->report, "the repository of '%s':\n", a->s->repository.leader);
    for (size_t i = 0; i < a->found.count; i++) {
        const struct found_source *f = &a->found.sources[i];
        json_t *o = json_object();
        report_json_set(o, "name", report_json_text(f->name));
        report_json_set(o, "snapshot", report_json_id(f->has_snapshot ? f->newest.id : NULL));
        report_json_set(o, "known_at", report_json_time(f->known_us));
        json_array_append_new(list, o);
        if (!f->has_snapshot) {
            report_say(a->report, "  %s: no snapshot\n", f->name);
            continue;
        }
        show_id(f->newest.id, id);
        clock_local(f->known_us, time);
        show_age(f->known_us, clock_now_us(), age);
        report_say(a->report, "  %s: snapshot %s, of %s, %s\n", f->name, id, time, age);
    }
    report_set(a->report, "sources", list);
}

/* What only an absent worker holds cannot be gone on from: say so before the question. */
static int ask(struct adopting *a, const struct command_args *args, struct err *e)
{
    OWN_MEM char *question = NULL;
    const char *away = NULL;
    for (size_t i = 0; i < a->s->worker_count; i++)
        if (!a->s->workers[i].store)
            away = a->s->workers[i].conf->name;
    if (away)
        report_say(a->report,
                   "%s does not answer: what only it holds will count as the old leader's\n", away);
    if (asprintf(&question,
                 "Is this machine the leader of the repository of '%s' from now on? The old leader "
                 "is refused then.",
                 a->s->repository.leader) < 0) {
        question = NULL;
        return err_nomem(e);
    }
    return ask_yes(question, "--lead", args_flag(args, "lead"), e);
}

/* A catalog that speaks of another repository would tell of snapshots that are not here. */
static int part_from_other(struct adopting *a, struct err *e)
{
    OWN_MEM char *aside = NULL;
    if (!a->had_repository || memcmp(a->known.id, a->s->repository.id, REPO_ID_SIZE) == 0)
        return 0;
    int rc = catalog_put_aside(a->s->conf->state_dir, &aside, e);
    if (rc == 0 && aside)
        report_say(a->report, "the catalog of this machine's former repository is now %s\n", aside);
    return rc;
}

static int say_taken(struct adopting *a, size_t claimed)
{
    json_t *list = json_array();
    size_t missing = 0;
    for (size_t i = 0; i < a->s->worker_count; i++) {
        const struct session_worker *w = &a->s->workers[i];
        bool taken = w->store && w->epoch.number == a->s->epoch;
        json_t *o = json_object();
        report_json_set(o, "name", report_json_text(w->conf->name));
        report_json_set(o, "adopted", json_boolean(taken));
        report_json_set(o, "error", report_json_error(&w->err));
        json_array_append_new(list, o);
        missing += !taken;
        if (!taken && w->store)
            report_warning(a->report, &w->err);
    }
    report_set(a->report, "workers", list);
    report_say(a->report, "this machine leads now (epoch %" PRIu32 "), on %zu of %zu worker%s%s\n",
               a->s->epoch, claimed, a->s->worker_count, show_plural(a->s->worker_count),
               missing ? "; the next backup tells the others when they answer" : "");
    report_say(a->report, "Next: `syncd backup`.\n");
    return missing ? EXIT_PARTLY : EXIT_DONE;
}

static int adopt(struct adopting *a, const struct command_args *args, struct err *e)
{
    struct session *s = a->s;
    size_t claimed = 0;
    a->known = s->repository;
    a->had_repository = s->has_repository;
    s->has_repository = false; /* whatever the workers hold, if it is the same on all */
    int rc = session_connect(s, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < s->worker_count; i++)
        if (s->workers[i].err.code)
            report_warning(a->report, &s->workers[i].err);
    bool same = a->had_repository && !memcmp(a->known.id, s->repository.id, REPO_ID_SIZE);
    if (same && session_check_leader(s, e) == 0) {
        report_set(a->report, "epoch", json_integer((json_int_t)s->epoch));
        report_say(a->report, "this machine leads already; nothing was changed\n");
        return EXIT_DONE;
    }
    *e = ERR_INIT;
    rc = found_read(s, &a->found, e);
    if (rc)
        return rc;
    say_found(a);
    rc = ask(a, args, e);
    if (rc == 0)
        rc = part_from_other(a, e);
    if (rc == 0)
        rc = lead_take(s, &a->found, &claimed, e);
    if (rc)
        return rc;
    report_set(a->report, "epoch", json_integer((json_int_t)s->epoch));
    return say_taken(a, claimed);
}

int cmd_adopt(const struct command_args *args, struct report *report)
{
    struct adopting a = {.report = report};
    struct err e = ERR_INIT;
    int rc = session_open(args, report, false, &a.s, &e);
    if (rc == 0)
        rc = adopt(&a, args, &e);
    found_free(&a.found);
    session_close(a.s);
    return rc < 0 ? report_error(report, &e) : rc;
}
