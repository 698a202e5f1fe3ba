#include "syncd/rebuild.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "syncd/ask.h"
#include "syncd/base/clock.h"
#include "syncd/base/mem.h"
#include "syncd/bring.h"
#include "syncd/choose.h"
#include "syncd/command.h"
#include "syncd/rebuild_internal.h"
#include "syncd/report.h"
#include "syncd/session.h"
#include "syncd/show.h"

bool rebuild_is_meant(const struct command_args *args)
{
    static const char *const places[] = {"target", "output", "in-place", "to"};
    for (size_t i = 0; i < ARRAY_LEN(places); i++)
        if (args_count(args, places[i]))
            return false;
    return from_is_url(args);
}

void rebuild_missing(struct rebuild *rb, const char *fmt, ...)
{
    char *line = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&line, fmt, ap);
    va_end(ap);
    if (n >= 0) {
        json_array_append_new(rb->missing, report_json_text(line));
        free(line);
    }
}

/* ---- before anything is changed ---- */

/* Questions that come at the end are asked for at the beginning where nobody could answer them. */
static int check_answers(const struct rebuild *rb, struct err *e)
{
    bool lead = args_flag(rb->args, "lead");
    if (args_flag(rb->args, "dry-run") || ask_has_terminal())
        return 0;
    if (!lead && rb->args->word_count == 0) {
        err_set(e, ERR_USAGE, NULL,
                "there is no terminal to ask whether this machine is the leader afterwards");
        return err_hint(e, "--lead says that it is. To bring data back and leave the leader be: "
                           "syncd restore SOURCE --from URL --in-place");
    }
    if (lead && rb->hook_count && !args_flag(rb->args, "run-hooks")) {
        err_set(e, ERR_USAGE, NULL,
                "the repository's config runs commands, and there is no terminal to ask whether "
                "they are trusted");
        return err_hint(e, "Look at them above; --run-hooks trusts them.");
    }
    return 0;
}

static int ask_hooks(struct rebuild *rb, struct err *e)
{
    rb->hooks_trusted = args_flag(rb->args, "run-hooks");
    if (rb->hook_count == 0 || rb->hooks_trusted || args_flag(rb->args, "dry-run") ||
        !ask_has_terminal())
        return 0;
    int rc = ask_yes("Trust these commands? They run around the restore, and stay in the config.",
                     "--run-hooks", false, e);
    rb->hooks_trusted = rc == 0;
    if (rc != ERR_REFUSED)
        return rc;
    *e = ERR_INIT;
    report_say(rb->report, "They are not run.\n");
    return 0;
}

static int ask_restore(const struct rebuild *rb, struct err *e)
{
    size_t count = 0;
    uint64_t bytes = 0;
    char size[SHOW_SIZE], question[256];
    for (size_t i = 0; i < rb->source_count; i++) {
        count += rb->sources[i].err.code == 0;
        bytes += rb->sources[i].err.code ? 0 : rb->sources[i].bytes;
    }
    show_size(bytes, size);
    snprintf(question, sizeof question,
             "Bring %zu source%s (%s) back to where %s? What is there now is set aside, "
             "nothing is deleted.",
             count, count == 1 ? "" : "s", size, count == 1 ? "it was" : "they were");
    for (size_t i = 0; rb->config && i < rb->source_count; i++)
        bring_say_notice(rb->report, conf_find_source(rb->config, rb->sources[i].found->name));
    return ask_yes(question, "--yes", args_flag(rb->args, "yes") || args_flag(rb->args, "dry-run"),
                   e);
}

/* ---- restoring ---- */

static int restore_chosen(struct rebuild *rb, struct rebuild_source *f, struct bringing *b)
{
    struct restore_summary sum = {0};
    int rc = session_list(rb->s, f->found->name, &f->err);
    if (rc)
        return rc;
    session_pool(rb->s, f->found->name, &b->pool);
    b->pool.damage = bring_on_damage;
    b->pool.arg = b;
    rc = pool_snapshot(&b->pool, &f->ref, &b->snapshot, &f->err);
    if (rc)
        return rc;
    if (rb->config) {
        b->hooks = conf_find_source(rb->config, f->found->name);
        b->hooks_foreign = true;
    }
    rc = bring_in_place(b, &sum, &f->err);
    if (rc)
        return rc;
    char time[CLOCK_TEXT_SIZE], age[SHOW_SIZE];
    bring_say_summary(b, &sum);
    if (args_flag(rb->args, "dry-run"))
        return 0;
    clock_local(f->as_of_us, time);
    show_age(f->as_of_us, clock_now_us(), age);
    report_say(rb->report, "it is as of %s, %s; what changed later is lost\n", time, age);
    return 0;
}

static void restore_source(struct rebuild *rb, struct rebuild_source *f, json_t *files)
{
    struct bringing b = {.s = rb->s,
                         .report = rb->report,
                         .args = rb->args,
                         .files = files,
                         .damages = &rb->damages,
                         .briefly = true,
                         .agreed = true,
                         .hooks_trusted = rb->hooks_trusted};
    report_say(rb->report, "%s:\n", f->found->name);
    f->restored = restore_chosen(rb, f, &b) == 0;
    if (f->restored)
        f->err = ERR_INIT; /* what a step on the way left in it is none */
    f->old_kept_at = TAKE_PTR(b.old_kept_at);
    bring_free(&b);
    if (!f->restored)
        report_warning(rb->report, &f->err);
}

static void restore_all(struct rebuild *rb, json_t *files)
{
    for (size_t i = 0; i < rb->source_count; i++) {
        struct rebuild_source *f = &rb->sources[i];
        if (!f->err.code)
            restore_source(rb, f, files);
        if (!f->restored)
            rebuild_missing(rb, "source %s: %s%s%s", f->found->name, f->err.message,
                            *f->err.hint ? " " : "", f->err.hint);
        if (f->err.code == ERR_CANCELLED)
            return;
    }
}

/* ---- leading ---- */

static int cannot_lead(struct rebuild *rb, struct err *e)
{
    if (rb->config == NULL) {
        err_set(e, ERR_CONFIG, NULL, "the repository holds no config that could be written here");
        return err_hint(e, "Write %s, then run `syncd adopt`: it makes this machine the leader.",
                        args_config_path(rb->args));
    }
    if (rb->hook_count && !rb->hooks_trusted) {
        err_set(e, ERR_REFUSED, NULL,
                "the repository's config runs commands that are not trusted; it is not written");
        return err_hint(e,
                        "Write %s yourself, then run `syncd adopt`: it makes this machine the "
                        "leader.",
                        args_config_path(rb->args));
    }
    return 0;
}

static int ask_lead(struct rebuild *rb, bool *ret_lead, struct err *e)
{
    char question[512];
    *ret_lead = false;
    if (rb->args->word_count || args_flag(rb->args, "dry-run"))
        return 0;
    int rc = cannot_lead(rb, e);
    if (rc) {
        report_warning(rb->report, e);
        *e = ERR_INIT;
        rebuild_missing(rb, "this machine does not lead");
        return 0;
    }
    snprintf(question, sizeof question,
             "Is this machine the leader of the repository of '%s' from now on? The old leader is "
             "refused then; the config goes to %s.",
             rb->s->repository.leader, args_config_path(rb->args));
    rc = ask_yes(question, "--lead", args_flag(rb->args, "lead"), e);
    *ret_lead = rc == 0;
    if (rc != ERR_REFUSED)
        return rc;
    *e = ERR_INIT;
    report_say(rb->report,
               "This machine does not lead. `syncd adopt` makes it the leader later.\n");
    return 0;
}

/* ---- the whole ---- */

static void tell_sources(const struct rebuild *rb)
{
    json_t *list = json_array();
    for (size_t i = 0; i < rb->source_count; i++) {
        const struct rebuild_source *f = &rb->sources[i];
        json_t *o = json_object();
        report_json_set(o, "name", report_json_text(f->found->name));
        report_json_set(o, "snapshot", report_json_id(f->part_count ? f->ref.id : NULL));
        report_json_set(o, "taken_at", report_json_time(f->as_of_us));
        report_json_set(o, "entries", json_integer((json_int_t)f->entry_count));
        report_json_set(o, "older", json_integer((json_int_t)f->older_count));
        report_json_set(o, "restored", json_boolean(f->restored));
        report_json_set(o, "old_kept_at", report_json_text(f->old_kept_at));
        report_json_set(o, "error", report_json_error(&f->err));
        json_array_append_new(list, o);
    }
    report_set(rb->report, "sources", list);
}

/* The keys that every restore answers are those of the newest source. */
static void tell_newest(const struct rebuild *rb, json_t *files)
{
    const struct rebuild_source *newest = NULL;
    for (size_t i = 0; i < rb->source_count; i++)
        if (rb->sources[i].part_count && (!newest || rb->sources[i].as_of_us > newest->as_of_us))
            newest = &rb->sources[i];
    report_set(rb->report, "snapshot", report_json_id(newest ? newest->ref.id : NULL));
    report_set(rb->report, "taken_at", report_json_time(newest ? newest->as_of_us : 0));
    report_set(rb->report, "target", json_null());
    report_set(rb->report, "old_kept_at", report_json_text(newest ? newest->old_kept_at : NULL));
    report_set(rb->report, "files", files);
}

static size_t restored_count(const struct rebuild *rb)
{
    size_t n = 0;
    for (size_t i = 0; i < rb->source_count; i++)
        n += rb->sources[i].restored;
    return n;
}

static int say_end(struct rebuild *rb, bool led)
{
    char line[1024];
    size_t n = json_array_size(rb->missing);
    report_set(rb->report, "missing", json_incref(rb->missing));
    for (size_t i = 0; i < n; i++)
        report_say(
            rb->report, "missing: %s\n",
            show_safe_into(json_string_value(json_array_get(rb->missing, i)), line, sizeof line));
    if (n == 0 && led)
        report_say(rb->report, "Everything is back, this machine leads, and every source is fresh "
                               "on every worker.\n");
    else if (n == 0)
        report_say(rb->report, "Everything is back.\n");
    return n ? EXIT_PARTLY : EXIT_DONE;
}

static int rebuild(struct rebuild *rb, json_t *files, struct err *e)
{
    bool lead = false;
    int rc = from_open_logins(rb->args, rb->report, &rb->s, rb->logins, e);
    if (rc == 0)
        rc = rebuild_look(rb, e);
    tell_sources(rb);
    if (rc == 0)
        rc = check_answers(rb, e);
    if (rc == 0)
        rc = ask_hooks(rb, e);
    if (rc == 0)
        rc = ask_restore(rb, e);
    if (rc)
        return rc;
    restore_all(rb, files);
    tell_sources(rb);
    if (restored_count(rb) == 0) {
        *e = rb->sources[0].err;
        return e->code;
    }
    rc = ask_lead(rb, &lead, e);
    if (rc == 0 && lead)
        rc = rebuild_lead(rb, e);
    if (rc) { /* the data is back all the same */
        report_error(rb->report, e);
        rebuild_missing(rb, "this machine does not lead; the same command goes on from here");
    }
    return say_end(rb, lead && rc == 0);
}

static void rebuild_free(struct rebuild *rb)
{
    for (size_t i = 0; i < rb->source_count; i++) {
        free(rb->sources[i].parts);
        free(rb->sources[i].old_kept_at);
    }
    free(rb->sources);
    for (size_t i = 0; i < CONF_MAX_WORKERS; i++)
        from_login_end(&rb->logins[i]);
    found_free(&rb->found);
    free(rb->damages.items);
    buf_free(&rb->config_text);
    conf_free(rb->config);
    json_decref(rb->missing);
    session_close(rb->s);
}

int rebuild_run(const struct command_args *args, struct report *report, struct err *e)
{
    struct rebuild rb = {.args = args, .report = report, .missing = json_array()};
    json_t *files = json_array();
    int rc = rebuild(&rb, files, e);
    tell_newest(&rb, files);
    rebuild_free(&rb);
    return rc;
}
