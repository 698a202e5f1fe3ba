/* What becomes of one entry: taken, recognised, carried over, gone. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/attributes.h"
#include "snapshot/tree_internal.h"
#include "syncd/base/clock.h"
#include "syncd/base/mem.h"

static const char vanished_reason[] =
    "it vanished together with more than half of its source; it is kept until a run an hour later "
    "finds the same";

void tree_notice(const struct tree *t, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    if (!t->run || !t->run->notice)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    t->run->notice(t->run->arg, text);
}

/* ---- into the new list ---- */

int tree_emit(struct tree *t, const struct entry *entry, uint64_t *ret_at, struct err *e)
{
    int rc = spool_add(t->out, entry, ret_at, e);
    if (rc == 0)
        t->totals.size_bytes += entry_size(entry);
    return rc;
}

void tree_alarm(const struct tree *t, const char *path)
{
    tree_notice(t,
                "%s: ALARM: it changed although its inode, size and times said that it had not; "
                "snapshots since the last full scan may hold an older state of it",
                path);
}

void tree_note_as_of(struct tree *t, int64_t as_of_us)
{
    if (!t->totals.as_of_us || as_of_us < t->totals.as_of_us)
        t->totals.as_of_us = as_of_us;
}

int tree_emit_fresh(struct tree *t, const struct entry *entry, int64_t as_of_us, uint64_t *ret_at,
                    struct err *e)
{
    int rc = tree_emit(t, entry, ret_at, e);
    if (rc == 0) {
        tree_note_as_of(t, as_of_us);
        t->totals.fresh++;
    }
    return rc;
}

/* The record stays as it was, byte for byte, so that the list's chunk does: its own as_of is when
 * the file was read, but what it says is true now. */
int tree_emit_same(struct tree *t, struct entry *before, uint64_t *ret_at, struct err *e)
{
    bool was_carried = before->carried != NULL;
    free(TAKE_PTR(before->carried));
    signature_clear_missing(&before->signature);
    int rc = tree_emit(t, before, ret_at, e);
    if (rc == 0) {
        tree_note_as_of(t, t->began_us);
        t->totals.same += !was_carried;
        t->totals.fresh += was_carried;
    }
    return rc;
}

int tree_emit_database(struct tree *t, struct tree_database *d, struct entry *before, struct err *e)
{
    if (d->done)
        return 0;
    d->done = true;
    if (!d->has_entry)
        return tree_fail(t, d->path, &d->err, before, e);
    if (d->is_same)
        return tree_emit_same(t, &d->entry, NULL, e);
    return tree_emit_fresh(t, &d->entry, d->entry.as_of_us, NULL, e);
}

/* What was given up is gone like any other file. */
static struct tree_database *pending_database(struct tree *t)
{
    for (; t->next_database < t->database_count; t->next_database++) {
        struct tree_database *d = &t->databases[t->next_database];
        if (!d->done && d->has_entry)
            return d;
    }
    return NULL;
}

/* What the walk did not meet was deleted after it was taken. */
int tree_emit_pending(struct tree *t, const char *before_path, struct err *e)
{
    int rc = 0;
    while (rc == 0) {
        char path[TREE_MEMBER_PATH];
        struct tree_database *d = pending_database(t);
        const char *member = tree_leveldb_pending(t, path);
        bool is_member = member && (!d || strcmp(member, d->path) < 0);
        const char *next = is_member ? member : d ? d->path : NULL;
        if (!next || (before_path && strcmp(next, before_path) >= 0))
            break;
        rc = is_member ? tree_leveldb_emit(t, tree_leveldb_of(t, member), member, NULL, e)
                       : tree_emit_database(t, d, NULL, e);
    }
    return rc;
}

/* ---- failing ---- */

static int note_failed(struct tree *t, const char *path, const struct err *cause, bool lost,
                       struct err *e)
{
    char us[ATTRIBUTES_USER_SIZE];
    struct source_totals *s = &t->totals;
    struct err with_hint = *cause, *why = &with_hint;
    if (why->code == ERR_PERMISSION && !*why->hint)
        err_hint(why, "syncd runs as %s: let it read this, or name it in the source's exclude.",
                 attributes_user(geteuid(), us));
    if (s->failed_count++ == 0)
        s->first = *why;
    if (s->failed_listed >= SOURCE_FAILED_LISTED)
        return 0;
    struct source_failed one = {.path = strdup(path),
                                .reason = strdup(why->message),
                                .hint = strdup(why->hint),
                                .lost = lost};
    if (!one.path || !one.reason || !one.hint ||
        mem_grow(&s->failed, &s->failed_cap, s->failed_listed + 1, sizeof *s->failed)) {
        free(one.path);
        free(one.reason);
        free(one.hint);
        return err_nomem(e);
    }
    s->failed[s->failed_listed++] = one;
    return 0;
}

int tree_note_failed(struct tree *t, const char *path, const struct err *cause, struct err *e)
{
    return note_failed(t, path, cause, false, e);
}

/* It failed, and what an earlier snapshot has of it cannot be carried over. */
static int note_lost(struct tree *t, const struct entry *before, const char *reason, struct err *e)
{
    struct err why = ERR_INIT;
    tree_note_as_of(t, before->as_of_us); /* the source is as fresh as that, and no fresher */
    err_set(&why, ERR_DAMAGED, before->path,
            "%.320s; its earlier state is not whole on the workers any more, so this snapshot has "
            "none of it",
            reason);
    err_hint(&why, "`syncd snapshots` names older snapshots, from which `syncd restore --snapshot` "
                   "brings it back, with --salvage also what is left of a damaged one.");
    return note_failed(t, before->path, &why, true, e);
}

int tree_note_linked(struct tree *t, const struct entry *before, struct err *e)
{
    uint8_t key[ID_TABLE_KEY], value[ID_TABLE_VALUE] = {1};
    if (before->type != ENTRY_FILE || !signature_linked(&before->signature))
        return 0;
    digest_chunk_id(t->plan->o.pool->repository->seed, before->path, strlen(before->path), key);
    le64_put(value + 8, t->before_at);
    return id_table_put(t->linked_before, key, value, NULL, NULL, e);
}

/* A hard link that is carried over becomes a file of its own, with the content of the entry that it
 * pointed to: that one may not be in the new list any more. *ret_found false: it is not known. */
static int unlink_carried(struct tree *t, struct entry *before, bool *ret_found, struct err *e)
{
    uint8_t key[ID_TABLE_KEY], value[ID_TABLE_VALUE];
    struct entry first = {0};
    digest_chunk_id(t->plan->o.pool->repository->seed, before->link, strlen(before->link), key);
    int rc = id_table_get(t->linked_before, key, value, e);
    *ret_found = rc == 1;
    if (rc <= 0)
        return rc;
    rc = spool_at(t->o.parent, le64_get(value + 8), &first, e);
    if (rc)
        return rc;
    before->type = ENTRY_FILE;
    free(TAKE_PTR(before->link));
    before->size = first.size;
    before->runs = first.runs;
    first.runs = (struct run_list){0};
    before->holes = first.holes;
    first.holes = (struct entry_bytes){0};
    entry_free(&first);
    return 0;
}

/* Makes an entry of the parent fit to be carried over; false: its content is lost. */
static int make_carried(struct tree *t, struct entry *before, const char *reason, bool *ret_fit,
                        struct err *e)
{
    int rc = 0;
    *ret_fit = true;
    if (before->type == ENTRY_HARDLINK)
        rc = unlink_carried(t, before, ret_fit, e);
    if (rc || !*ret_fit)
        return rc;
    *ret_fit = plan_carry(t->plan, before);
    if (before->carried && strcmp(before->carried, reason) == 0)
        return 0;
    free(before->carried);
    before->carried = strdup(reason);
    return before->carried ? 0 : err_nomem(e);
}

static void book_carried(struct tree *t, const struct entry *entry)
{
    struct tree_database *d =
        entry->type == ENTRY_IMAGE ? tree_find_database(t, entry->path) : NULL;
    tree_note_as_of(t, entry->as_of_us);
    t->totals.carried++;
    if (d) {
        d->is_carried = true;
        d->entry.image = entry->image;
    }
}

/* *ret_fit false: it could not be, and nothing is said of that yet. */
static int carry(struct tree *t, struct entry *before, const char *reason, bool *ret_fit,
                 struct err *e)
{
    int rc = make_carried(t, before, reason, ret_fit, e);
    if (rc || !*ret_fit)
        return rc;
    rc = tree_emit(t, before, NULL, e);
    if (rc == 0)
        book_carried(t, before);
    return rc;
}

int tree_carry(struct tree *t, struct entry *before, const char *reason, struct err *e)
{
    bool fit;
    int rc = carry(t, before, reason, &fit, e);
    return rc || fit ? rc : note_lost(t, before, reason, e);
}

int tree_fail_new(struct tree *t, const char *path, const struct err *why, struct err *e)
{
    if (t->plan->has_parent)
        tree_note_as_of(t, t->plan->parent.section.as_of_us);
    return tree_note_failed(t, path, why, e);
}

int tree_fail(struct tree *t, const char *path, const struct err *why, struct entry *before,
              struct err *e)
{
    bool fit = true;
    if (!before)
        return tree_fail_new(t, path, why, e);
    int rc = carry(t, before, why->message, &fit, e);
    if (rc)
        return rc;
    return fit ? tree_note_failed(t, path, why, e) : note_lost(t, before, why->message, e);
}

/* ---- vanishing ---- */

/* Whether something else now stands where a folder on the way to the path was. */
static bool is_displaced(const struct tree *t, const char *path)
{
    char part[ENTRY_PATH_MAX + 1];
    struct stat st;
    size_t n = strlen(path);
    for (size_t i = 1; i < n && n < sizeof part; i++) {
        if (path[i] != '/')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        bool inside = false;
        for (size_t k = 0; !inside && k < t->roots.count; k++)
            inside = strcmp(part, t->roots.items[k].path) == 0 ||
                     tree_is_below(part, t->roots.items[k].path);
        if (inside && lstat(part, &st) == 0 && !S_ISDIR(st.st_mode))
            return true;
    }
    return false;
}

int tree_vanish(struct tree *t, struct entry *before, struct err *e)
{
    int64_t since_us = before->carried ? signature_missing_since(&before->signature) : 0;
    if (!t->steady.from_us)
        steady_open(t->o.dir, &t->steady);
    int64_t passed_us = since_us ? steady_passed_us(&t->steady, since_us) : -1;
    bool confirmed = passed_us >= MISSING_CONFIRMED_US;
    t->totals.gone++;
    t->vanished_count++;
    if (confirmed || is_displaced(t, before->path))
        return 0;
    if (passed_us < 0) {
        int64_t now_us = steady_now_us(&t->steady);
        int rc = signature_set_missing(&before->signature, now_us, e);
        if (rc)
            return rc;
    }
    return spool_add(t->vanished, before, NULL, e);
}

/* Whether an entry that vanished stays in the list. */
static bool is_kept(const struct tree *t, const struct entry *entry)
{
    return t->keep_vanished || (entry->carried && strcmp(entry->carried, vanished_reason) == 0);
}

static int add_to(struct tree *t, struct spool *kept, struct entry *entry, struct err *e)
{
    bool fit;
    int rc = make_carried(t, entry, vanished_reason, &fit, e);
    if (rc == 0 && !fit)
        return note_lost(t, entry, vanished_reason, e);
    if (rc)
        return rc;
    rc = spool_add(kept, entry, NULL, e);
    if (rc == 0) {
        book_carried(t, entry);
        t->totals.size_bytes += entry_size(entry);
    }
    return rc;
}

static int fail_vanished(struct tree *t, const char *path, size_t count, struct err *e)
{
    struct err why = ERR_INIT;
    err_set(&why, ERR_NOT_FOUND, path,
            "%zu of %zu entries of this source are not there any more, this one first; they are "
            "kept until a run an hour later finds the same",
            count, t->parent_entries);
    err_hint(&why, "Is everything mounted? If it was meant, nothing need be done.");
    return tree_note_failed(t, path, &why, e);
}

/* More than half at once looks like an unmounted folder. Called when the walk is over. */
int tree_judge_vanished(struct tree *t, struct err *e)
{
    OWN_SPOOL_READER struct spool_reader r = spool_read(t->vanished);
    OWN_SPOOL struct spool *kept = NULL;
    size_t count = 0;
    t->keep_vanished = t->vanished_count * 2 > t->parent_entries;
    int rc = spool_open(t->o.dir, &kept, e);
    while (rc == 0) {
        struct entry entry;
        rc = spool_next(&r, &entry, e);
        if (rc <= 0)
            break;
        rc = 0;
        if (is_kept(t, &entry)) {
            rc = count++ ? 0 : fail_vanished(t, entry.path, t->vanished_count, e);
            if (rc == 0)
                rc = add_to(t, kept, &entry, e);
        }
        entry_free(&entry);
    }
    if (rc)
        return rc;
    spool_close(t->vanished);
    t->vanished = TAKE_PTR(kept);
    return 0;
}
