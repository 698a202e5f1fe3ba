#include "syncd/choose.h"

#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/base/nearest.h"
#include "syncd/session.h"

#define PREFIX_MIN 6
#define SLACK_S                                                                                    \
    (7 * 86400) /* a run takes no longer, so no cut is further before its part's time              \
                 */

int choose_no_source(const struct conf *conf, const char *named, struct err *e)
{
    OWN_BUF struct buf names = BUF_INIT;
    struct nearest n = nearest_start(named);
    for (size_t i = 0; i < conf->source_count; i++) {
        nearest_offer(&n, conf->sources[i].name);
        buf_printf(&names, "%s%s", i ? ", " : "", conf->sources[i].name);
    }
    err_set(e, ERR_USAGE, named, "there is no source '%s' in %s%s%s%s", named, conf->file,
            n.best ? "; did you mean '" : "", n.best ? n.best : "", n.best ? "'?" : "");
    if (names.len && buf_cstr(&names))
        err_hint(e, "it has %s", buf_cstr(&names));
    return ERR_USAGE;
}

int choose_source(const struct session *s, const char *named, const char **ret, struct err *e)
{
    if (!named && s->conf->source_count == 1)
        named = s->conf->sources[0].name;
    if (!named) {
        err_set(e, ERR_USAGE, NULL, "there are %zu sources; name one", s->conf->source_count);
        return err_hint(e, "`syncd check` lists them.");
    }
    if (!conf_find_source(s->conf, named))
        return choose_no_source(s->conf, named, e);
    *ret = named;
    return 0;
}

/* Goes back through the snapshots that any worker has, but those of an overruled leader, newest
 * first; `before` is the last one that
 * was given (NULL to begin). NULL at the end. */
static const struct listed_part *previous(const struct pool *pool, const struct part_ref *before)
{
    const struct listed_part *best = NULL;
    for (size_t i = 0; i < pool->store_count; i++) {
        const struct listing *l = pool->at[i].listing;
        for (size_t k = l->count; k > 0; k--) {
            const struct listed_part *p = &l->parts[k - 1];
            if (p->mark != PART_SNAP || (before && part_order(&p->ref, before) >= 0) ||
                !epoch_has(pool->ruler, pool->source, &p->ref))
                continue;
            if (!best || part_order(&p->ref, &best->ref) > 0)
                best = p;
            break;
        }
    }
    return best;
}

static int read_snapshot(struct pool *pool, const struct listed_part *p, struct snapshot *ret,
                         struct err *e)
{
    struct part_ref ref = p->ref;
    ref.size_bytes = 0;
    int rc = pool_snapshot(pool, &ref, ret, e);
    if (rc == ERR_DAMAGED)
        err_hint(e, "`syncd verify` shows what is damaged; an older snapshot is chosen with "
                    "--snapshot ID.");
    return rc;
}

static int nothing_found(const struct pool *pool, const char *what, struct err *e)
{
    err_set(e, ERR_NOT_FOUND, pool->source, "there is no snapshot of source '%s'%s%s", pool->source,
            what ? " " : "", what ? what : "");
    return err_hint(e, "`syncd snapshots %s` lists them.", pool->source);
}

static int not_a_time(const char *at, struct err *e)
{
    err_set(e, ERR_USAGE, at, "'%s' is no time", at);
    return err_hint(e, "Write YYYY-MM-DD[ HH:MM[:SS]][Z|+hh:mm], or for example '2 hours ago'.");
}

static int by_time(struct pool *pool, const char *at, struct snapshot *ret, struct err *e)
{
    int64_t t_us;
    if (!clock_parse_user(at, clock_now_us(), &t_us))
        return not_a_time(at, e);
    for (const struct listed_part *p = previous(pool, NULL); p; p = previous(pool, &p->ref)) {
        if (p->ref.time_s > t_us / US_PER_S + SLACK_S)
            continue;
        int rc = read_snapshot(pool, p, ret, e);
        if (rc)
            return rc;
        /* By whole seconds, as times are shown: a time copied from a list means that snapshot. */
        if (ret->section.as_of_us / US_PER_S <= t_us / US_PER_S)
            return 0;
        snapshot_free(ret);
    }
    return nothing_found(pool, "from that time or before", e);
}

static bool is_prefix(const char *s)
{
    size_t n = strlen(s);
    return n >= PREFIX_MIN && n <= 2 * DIGEST_SIZE && strspn(s, "0123456789abcdef") == n;
}

static int by_id(struct pool *pool, const char *id, struct snapshot *ret, struct err *e)
{
    const struct listed_part *found = NULL;
    char hex[2 * DIGEST_SIZE + 1];
    for (size_t i = 0; i < pool->store_count; i++) {
        const struct listing *l = pool->at[i].listing;
        for (size_t k = 0; k < l->count; k++) {
            hex_encode(l->parts[k].ref.id, DIGEST_SIZE, hex);
            if (l->parts[k].mark != PART_SNAP || strncmp(hex, id, strlen(id)) != 0)
                continue;
            if (found && !part_same(&found->ref, &l->parts[k].ref))
                return err_set(e, ERR_USAGE, id, "'%s' fits more than one snapshot", id);
            found = &l->parts[k];
        }
    }
    return found ? read_snapshot(pool, found, ret, e) : nothing_found(pool, "with that id", e);
}

int choose_check(const char *id, const char *at, struct err *e)
{
    int64_t t_us;
    if (id && at)
        return err_set(e, ERR_USAGE, NULL, "--snapshot and --at exclude each other");
    if (at && !clock_parse_user(at, clock_now_us(), &t_us))
        return not_a_time(at, e);
    if (id && strcmp(id, "latest") != 0 && !is_prefix(id))
        return err_set(e, ERR_USAGE, id,
                       "'%s' is no snapshot id: give %d or more of its hex digits, or 'latest'", id,
                       PREFIX_MIN);
    return 0;
}

int choose_snapshot(struct pool *pool, const char *id, const char *at, struct snapshot *ret,
                    struct err *e)
{
    int rc = choose_check(id, at, e);
    if (rc)
        return rc;
    if (at)
        return by_time(pool, at, ret, e);
    if (id && strcmp(id, "latest") != 0)
        return by_id(pool, id, ret, e);
    const struct listed_part *p = previous(pool, NULL);
    return p ? read_snapshot(pool, p, ret, e) : nothing_found(pool, NULL, e);
}
