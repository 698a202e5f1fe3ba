/* Freshness as other programs read it. */
#include <inttypes.h>
#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/mem.h"
#include "syncd/freshness.h"

/* ---- Prometheus ---- */

/* A label's value: names of the config need no more, hosts and paths of --from may. */
static void put_label(struct buf *to, const char *name, const char *value)
{
    buf_printf(to, "%s=\"", name);
    for (const char *c = value; *c; c++) {
        if (*c == '\\' || *c == '"')
            buf_put_u8(to, '\\');
        if (*c == '\n')
            buf_put_str(to, "\\n");
        else
            buf_put(to, c, 1);
    }
    buf_put_str(to, "\"");
}

static void put_head(struct buf *to, const char *metric, const char *help)
{
    buf_printf(to, "# HELP %s %s\n# TYPE %s gauge\n", metric, help, metric);
}

static double seconds(int64_t t_us)
{
    return (double)t_us / US_PER_S;
}

typedef double worker_value_fn(const struct freshness_worker *w);

static double as_of_value(const struct freshness_worker *w)
{
    return seconds(w->as_of_us);
}

/* A worker that is not fresh for another reason than age must not look so for a while. */
static double until_value(const struct freshness_worker *w)
{
    bool hidden = w->state != FRESHNESS_FRESH && w->clock_apart;
    return hidden ? 0 : seconds(w->fresh_until_us);
}

static double proven_value(const struct freshness_worker *w)
{
    return seconds(w->proven_at_us);
}

static void put_workers(struct buf *to, const struct freshness *all, size_t count,
                        const char *metric, const char *help, worker_value_fn *value)
{
    put_head(to, metric, help);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < all[i].worker_count; k++) {
            buf_printf(to, "%s{", metric);
            put_label(to, "source", all[i].source);
            buf_put_str(to, ",");
            put_label(to, "worker", all[i].workers[k].name);
            buf_printf(to, "} %.0f\n", value(&all[i].workers[k]));
        }
}

typedef double source_value_fn(const struct freshness *f);

static double max_age_value(const struct freshness *f)
{
    return (double)f->max_age_s;
}

static double last_run_value(const struct freshness *f)
{
    return seconds(f->run.ended_at_us);
}

static double duration_value(const struct freshness *f)
{
    return seconds(f->run.ended_at_us - f->run.started_at_us);
}

static double sent_value(const struct freshness *f)
{
    return (double)f->run.bytes_sent;
}

static void put_sources(struct buf *to, const struct freshness *all, size_t count,
                        const char *metric, const char *help, bool of_run, source_value_fn *value)
{
    put_head(to, metric, help);
    for (size_t i = 0; i < count; i++) {
        if (of_run && !all[i].has_run)
            continue;
        buf_printf(to, "%s{", metric);
        put_label(to, "source", all[i].source);
        buf_printf(to, "} %.15g\n", value(&all[i]));
    }
}

/* One for each result that there can be: 1 for that of the last run, 0 for the others. */
static void put_results(struct buf *to, const struct freshness *all, size_t count)
{
    static const char *const results[] = {"ok", "unchanged", "partial", "failed", "none"};
    put_head(to, "syncd_last_run_result", "1 for the result of the last run.");
    for (size_t i = 0; i < count; i++) {
        const char *is = all[i].has_run ? run_state_name(all[i].run.state) : "none";
        for (size_t k = 0; k < ARRAY_LEN(results); k++) {
            buf_put_str(to, "syncd_last_run_result{");
            put_label(to, "source", all[i].source);
            buf_put_str(to, ",");
            put_label(to, "result", results[k]);
            buf_printf(to, "} %d\n", strcmp(is, results[k]) == 0);
        }
    }
}

void freshness_prometheus(const struct freshness *all, size_t count, int64_t now_us, struct buf *to)
{
    put_workers(to, all, count, "syncd_as_of_timestamp_seconds",
                "The moment of the newest state that the worker holds; 0: none.", as_of_value);
    put_workers(to, all, count, "syncd_fresh_until_timestamp_seconds",
                "Until when that state is fresh; 0: it is not.", until_value);
    put_workers(to, all, count, "syncd_proven_timestamp_seconds",
                "When a restore from the worker was last proven; 0: never.", proven_value);
    put_sources(to, all, count, "syncd_last_run_timestamp_seconds", "When the last run ended.",
                true, last_run_value);
    put_sources(to, all, count, "syncd_last_run_duration_seconds", "How long the last run took.",
                true, duration_value);
    put_sources(to, all, count, "syncd_last_run_sent_bytes",
                "What the last run sent to each worker.", true, sent_value);
    put_sources(to, all, count, "syncd_max_age_seconds",
                "The age up to which a state is fresh; 0: not configured.", false, max_age_value);
    put_results(to, all, count);
    put_head(to, "syncd_exported_timestamp_seconds", "When these values were written.");
    buf_printf(to, "syncd_exported_timestamp_seconds %.0f\n", seconds(now_us));
}

/* ---- Nagios ---- */

static enum nagios_code code_of(const struct freshness *all, size_t count)
{
    static const enum nagios_code by_exit[] = {NAGIOS_OK, NAGIOS_UNKNOWN, NAGIOS_UNKNOWN,
                                               NAGIOS_WARNING, NAGIOS_CRITICAL};
    return by_exit[freshness_exit_code(all, count)];
}

/* Before the bar there is text for people: a bar or a line's end in it would cut it. */
static void put_plain(struct buf *to, const char *s)
{
    for (; *s; s++)
        buf_put_u8(to, *s == '|' ? '/' : (unsigned char)*s < ' ' ? ' ' : (uint8_t)*s);
}

static void put_troubles(struct buf *to, const struct freshness *f)
{
    for (size_t i = 0; i < f->worker_count; i++) {
        const struct freshness_worker *w = &f->workers[i];
        if (w->state == FRESHNESS_FRESH)
            continue;
        buf_put_str(to, ", ");
        put_plain(to, w->name);
        buf_printf(to, " %s", freshness_state_name(w->state));
        if (w->error[0]) {
            buf_put_str(to, ": ");
            put_plain(to, w->error);
        }
    }
    if (!f->max_age_s)
        buf_put_str(to, ", no max_age is configured");
}

enum nagios_code freshness_nagios(const struct freshness *all, size_t count, int64_t now_us,
                                  struct buf *to)
{
    static const char *const words[] = {"OK", "WARNING", "CRITICAL", "UNKNOWN"};
    enum nagios_code code = code_of(all, count);
    buf_printf(to, "SYNCD %s - ", words[code]);
    if (count == 0)
        buf_put_str(to, "no source");
    for (size_t i = 0; i < count; i++) {
        buf_printf(to, "%s%s %s", i ? "; " : "", all[i].source, freshness_state_name(all[i].state));
        put_troubles(to, &all[i]);
    }
    buf_put_str(to, " |");
    for (size_t i = 0; i < count; i++) {
        const struct freshness *f = &all[i];
        if (f->as_of_us > 0)
            buf_printf(to, " '%s_age'=%" PRId64 "s;%" PRId64 ";%" PRId64 ";0", f->source,
                       MAX(0, (now_us - f->as_of_us) / US_PER_S), f->max_age_s, f->max_age_s);
        else
            buf_printf(to, " '%s_age'=U", f->source);
        if (f->size_bytes)
            buf_printf(to, " '%s_size'=%" PRIu64 "B;;;0", f->source, f->size_bytes);
    }
    return code;
}
