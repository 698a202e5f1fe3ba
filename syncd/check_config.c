/* syncd check: what the config names besides sources and workers. */
#include "syncd/check.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "syncd/ask.h"
#include "syncd/base/clock.h"
#include "syncd/base/mem.h"
#include "syncd/clock_doubt.h"
#include "syncd/session.h"
#include "syncd/show.h"

/* ---- folders and files of the leader ---- */

static void check_folder(struct checking *c, const char *key, const char *path)
{
    struct err e = ERR_INIT;
    struct stat st;
    if (stat(path, &st) < 0)
        err_sys(&e, errno, path, "%s: cannot look at the folder %s", key, path);
    else if (!S_ISDIR(st.st_mode))
        err_set(&e, ERR_CONFIG, path, "%s: %s is no folder", key, path);
    else if (access(path, W_OK | X_OK) < 0)
        err_sys(&e, errno, path, "%s: nothing can be written in %s", key, path);
    if (e.code)
        check_add(c, CHECK_ERROR, &e);
}

static void check_prometheus(struct checking *c, const char *file)
{
    OWN_MEM char *folder = strdup(file);
    char *slash = folder ? strrchr(folder, '/') : NULL;
    if (!slash)
        return;
    slash[slash == folder] = '\0';
    check_folder(c, "prometheus_file", folder);
}

static void check_secret(struct checking *c, const char *path)
{
    struct err e = ERR_INIT;
    char *secret = NULL;
    if (conf_read_secret(path, &secret, &e))
        check_add(c, CHECK_ERROR, &e);
    ask_wipe(&secret);
}

/* ---- sources' times, hooks, and the state_dir among them ---- */

static void check_times(struct checking *c, const struct conf_source *s)
{
    struct err e = ERR_INIT;
    char age[SHOW_SIZE], interval[SHOW_SIZE];
    if (s->max_age_s == 0) {
        err_set(&e, ERR_CONFIG, s->name,
                "source %s has neither every, schedule nor max_age: nobody can say whether it is "
                "fresh",
                s->name);
        err_hint(&e, "Add every = \"15m\", or max_age if something else starts the backups.");
        check_add(c, CHECK_WARNING, &e);
    } else if (s->max_age_s < s->interval_s) {
        show_duration(s->max_age_s * US_PER_S, age);
        show_duration(s->interval_s * US_PER_S, interval);
        err_set(
            &e, ERR_CONFIG, s->name,
            "source %s: its max_age is %s, but backups can be %s apart: it will be called stale "
            "with nothing wrong",
            s->name, age, interval);
        err_hint(&e, "Make max_age longer than the interval (its default is twice that).");
        check_add(c, CHECK_WARNING, &e);
    }
}

/* A program that is named by its path; others are looked for when they are run. */
static void check_hook(struct checking *c, const struct conf_source *s, const char *key,
                       conf_list argv)
{
    struct err e = ERR_INIT;
    if (!argv || !*argv || **argv != '/' || access(*argv, X_OK) == 0)
        return;
    err_sys(&e, errno, *argv, "source %s: %s cannot run %s", s->name, key, *argv);
    err_hint(&e, "A hook is one list: the program and its arguments, without a shell.");
    check_add(c, CHECK_ERROR, &e);
}

static void check_hooks(struct checking *c, const struct conf_source *s)
{
    check_hook(c, s, "before", s->before);
    check_hook(c, s, "after", s->after);
    check_hook(c, s, "on_change", s->on_change);
    check_hook(c, s, "before_restore", s->before_restore);
    check_hook(c, s, "after_restore", s->after_restore);
}

static bool is_inside(const char *path, const char *folder)
{
    size_t n = strlen(folder);
    n -= n && folder[n - 1] == '/';
    return strncmp(path, folder, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

static bool is_excluded(const struct conf_source *s, const char *path)
{
    for (conf_list glob = s->exclude; glob && *glob; glob++)
        if (fnmatch(*glob, path, FNM_LEADING_DIR) == 0)
            return true;
    return false;
}

/* It changes with every backup, so that no run would find the source unchanged. */
static void check_state_dir(struct checking *c, const struct conf_source *s)
{
    struct err e = ERR_INIT;
    OWN_MEM char *state_dir = realpath(c->s->conf->state_dir, NULL);
    for (conf_list path = s->path; state_dir && path && *path; path++) {
        OWN_MEM char *folder = realpath(*path, NULL);
        if (!folder || !is_inside(state_dir, folder) || is_excluded(s, c->s->conf->state_dir))
            continue;
        err_set(&e, ERR_CONFIG, c->s->conf->state_dir,
                "source %s: state_dir %s lies in its path %s, and changes with every backup",
                s->name, c->s->conf->state_dir, *path);
        err_hint(&e, "Add exclude = {\"%s\"} to the source, or move state_dir.",
                 c->s->conf->state_dir);
        check_add(c, CHECK_WARNING, &e);
    }
}

/* Whether it agrees with the workers' is asked there. */
static void check_clock(struct checking *c)
{
    struct err e = ERR_INIT;
    struct clock_facts facts = clock_facts(0);
    enum clock_doubt doubt = clock_doubt_judge(&facts);
    if (doubt == CLOCK_BELIEVED)
        return;
    err_set(&e, ERR_CONFIG, NULL, "%s: the times of what is stored would be doubtful",
            clock_doubt_text(doubt));
    err_hint(&e,
             "`timedatectl` shows what sets it; `syncd run` waits up to five minutes for that.");
    check_add(c, CHECK_WARNING, &e);
}

void check_config(struct checking *c)
{
    check_clock(c);
    const struct conf *conf = c->s->conf;
    if (conf->scratch_dir)
        check_folder(c, "scratch_dir", conf->scratch_dir);
    if (conf->prometheus_file)
        check_prometheus(c, conf->prometheus_file);
    if (conf->mqtt.given && conf->mqtt.password_file)
        check_secret(c, conf->mqtt.password_file);
    for (size_t i = 0; i < conf->source_count; i++) {
        check_times(c, &conf->sources[i]);
        check_hooks(c, &conf->sources[i]);
        check_state_dir(c, &conf->sources[i]);
    }
}
