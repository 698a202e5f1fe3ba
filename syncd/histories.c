#include "syncd/histories.h"

#include "syncd/base/clock.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"

static const struct listed_part *newest_on(const struct session *s, size_t worker,
                                           const char *source)
{
    const struct listing *l = &s->workers[worker].listing;
    for (size_t i = l->count; s->workers[worker].store && i > 0; i--)
        if (l->parts[i - 1].mark == PART_SNAP && epoch_has(&s->ruler, source, &l->parts[i - 1].ref))
            return &l->parts[i - 1];
    return NULL;
}

static void say_one(const struct session *s, size_t behind, size_t ahead,
                    const struct part_ref *own, const struct part_ref *best, struct report *report)
{
    char id[SHOW_SIZE], best_id[SHOW_SIZE], time[CLOCK_TEXT_SIZE], best_time[CLOCK_TEXT_SIZE];
    const char *name = s->workers[behind].conf->name, *other = s->workers[ahead].conf->name;
    bool apart = !listing_find(&s->workers[ahead].listing, own);
    show_id(own->id, id);
    show_id(best->id, best_id);
    clock_local(own->time_s * US_PER_S, time);
    clock_local(best->time_s * US_PER_S, best_time);
    if (apart)
        report_say(report,
                   "      the two histories differ: %s ends with %s (%s), which %s does not have; "
                   "%s ends with %s (%s), which is newer and is preferred\n",
                   name, id, time, other, other, best_id, best_time);
    else
        report_say(report, "      %s is behind: it ends with %s (%s)\n", name, id, time);
}

void histories_say(const struct session *s, const char *source, struct report *report)
{
    const struct listed_part *best = NULL;
    size_t ahead = 0;
    for (size_t i = 0; i < s->worker_count; i++) {
        const struct listed_part *own = newest_on(s, i, source);
        if (own && (!best || part_order(&own->ref, &best->ref) > 0)) {
            best = own;
            ahead = i;
        }
    }
    for (size_t i = 0; best && i < s->worker_count; i++) {
        const struct listed_part *own = newest_on(s, i, source);
        if (i != ahead && own && !part_same(&own->ref, &best->ref))
            say_one(s, i, ahead, &own->ref, &best->ref, report);
    }
}
