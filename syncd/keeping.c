#include "syncd/keeping.h"

#include <stdio.h>

#include "conf/conf.h"
#include "syncd/base/mem.h"
#include "syncd/retention.h"

/* The groups that retention judges one by one. */
enum group {
    GROUP_ALL = 1,
    GROUP_COMPLETE = 2,  /* nothing carried over or missing */
    GROUP_WHOLE = 4,     /* all its parts are on some worker */
    GROUP_OVERRULED = 8, /* from an overruled leader: in none of the others */
    GROUP_HERE = 16      /* shifted left by the worker's place */
};

struct deciding {
    const struct keeping_params *p;
    struct history *h;
    struct keeping *k;
    struct retention_item *items;
};

static bool is_history(const struct keeping_params *p, const struct part_ref *ref)
{
    return !p->is_history || p->is_history(p->arg, ref);
}

static bool is_whole(const struct keeping_params *p, const struct history_snapshot *s)
{
    bool whole = false;
    for (size_t at = 0; at < p->store_count; at++)
        whole |= s->at[at].whole;
    return whole;
}

/* Whether the worker's own retention may count on it. */
static bool counts_on(const struct keeping_params *p, const struct history_snapshot *s, size_t at)
{
    if (s->at[at].whole)
        return true;
    return p->tight[at] && is_whole(p, s) && p->is_ours(p->arg, &s->ref);
}

static unsigned groups_of(const struct keeping_params *p, const struct history_snapshot *s)
{
    if (!is_history(p, &s->ref))
        return GROUP_OVERRULED;
    unsigned groups = GROUP_ALL;
    groups |= s->complete ? GROUP_COMPLETE : 0;
    groups |= is_whole(p, s) ? GROUP_WHOLE : 0;
    for (size_t at = 0; at < p->store_count; at++)
        groups |= counts_on(p, s, at) ? (unsigned)GROUP_HERE << at : 0;
    return groups;
}

static void judge(struct deciding *d, unsigned group)
{
    retention_judge(d->p->keep, d->p->now_us, group, d->items, d->h->count);
}

static void judge_all(struct deciding *d)
{
    for (size_t i = 0; i < d->h->count; i++) {
        const struct history_snapshot *s = &d->h->snapshots[i];
        d->items[i] = (struct retention_item){.time_us = s->taken_us, .groups = groups_of(d->p, s)};
        d->k[i].overruled = d->items[i].groups == GROUP_OVERRULED;
    }
    judge(d, GROUP_ALL);
    judge(d, GROUP_COMPLETE);
    judge(d, GROUP_WHOLE);
    judge(d, GROUP_OVERRULED);
    for (size_t i = 0; i < d->h->count; i++) {
        d->k[i].rules = d->items[i].rules;
        d->items[i].rules = 0;
    }
    for (size_t at = 0; at < d->p->store_count; at++) {
        judge(d, (unsigned)GROUP_HERE << at);
        for (size_t i = 0; i < d->h->count; i++) {
            d->k[i].here[at] = d->h->snapshots[i].at[at].there ? d->items[i].rules : 0;
            d->items[i].rules = 0;
        }
    }
}

/* The worker's newest whole one, and its newest one that is complete, too. */
static void keep_newest(struct deciding *d, size_t at)
{
    bool any = false, complete = false;
    for (size_t i = d->h->count; i > 0 && !complete; i--) {
        const struct history_snapshot *s = &d->h->snapshots[i - 1];
        if (!s->at[at].whole || d->k[i - 1].overruled || (any && !s->complete))
            continue;
        d->k[i - 1].newest[at] = any = true;
        complete = s->complete;
    }
}

/* Of all workers; sync brings it to those that lack it, whatever the rules say. */
static void keep_newest_of_all(struct deciding *d)
{
    for (size_t i = d->h->count; i > 0; i--) {
        if (d->k[i - 1].overruled || !is_whole(d->p, &d->h->snapshots[i - 1]))
            continue;
        d->k[i - 1].newest_of_all = true;
        return;
    }
}

static void conclude(struct deciding *d)
{
    for (size_t i = 0; i < d->h->count; i++) {
        struct history_snapshot *s = &d->h->snapshots[i];
        const struct keeping *k = &d->k[i];
        s->wanted = k->rules || k->newest_of_all || s->newer;
        for (size_t at = 0; at < d->p->store_count; at++)
            s->keep[at] = s->at[at].there && (s->wanted || k->here[at] || k->newest[at]);
    }
}

int keeping_decide(const struct keeping_params *p, struct history *h, struct keeping **ret,
                   struct err *e)
{
    size_t n = h->count ? h->count : 1;
    OWN_MEM struct keeping *k = mem_alloc(n, sizeof *k);
    OWN_MEM struct retention_item *items = mem_alloc(n, sizeof *items);
    if (!k || !items)
        return err_nomem(e);
    struct deciding d = {.p = p, .h = h, .k = k, .items = items};
    judge_all(&d);
    for (size_t at = 0; at < p->store_count; at++)
        keep_newest(&d, at);
    keep_newest_of_all(&d);
    conclude(&d);
    *ret = TAKE_PTR(k);
    return 0;
}

bool keeping_stays(const struct history_snapshot *s, size_t store_count)
{
    bool stays = false;
    for (size_t at = 0; at < store_count; at++)
        stays |= s->keep[at];
    return stays;
}

static void say_rules(unsigned rules, int64_t taken_us, keeping_say_fn *say, void *arg)
{
    char reason[RETENTION_REASON_SIZE];
    for (enum retention_rule rule = 0; rule < RETENTION_RULE_COUNT; rule++) {
        if (!(rules & 1u << rule))
            continue;
        retention_reason(rule, taken_us, reason);
        say(arg, reason);
    }
}

void keeping_reasons(const struct keeping *k, const struct history_snapshot *s, size_t store_count,
                     const char *const *names, keeping_say_fn *say, void *arg)
{
    char reason[160];
    say_rules(k->rules, s->taken_us, say, arg);
    if (k->newest_of_all)
        say(arg, "newest");
    for (size_t at = 0; at < store_count; at++) {
        if (k->newest[at] && !k->newest_of_all) {
            snprintf(reason, sizeof reason, "newest%s that is whole on %s",
                     s->complete ? " complete one" : "", names[at]);
            say(arg, reason);
        }
        if (k->here[at] && !s->wanted) {
            snprintf(reason, sizeof reason, "on %s until what replaces it is there", names[at]);
            say(arg, reason);
        }
    }
    if (k->overruled)
        say(arg, "from an overruled leader");
    if (!s->readable)
        say(arg, s->newer ? "written by a newer syncd" : "cannot be read");
    if (!keeping_stays(s, store_count))
        say(arg, "no rule keeps it");
}
