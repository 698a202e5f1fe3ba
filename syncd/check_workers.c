/* syncd check: the workers. */
#include "syncd/check.h"

#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/key_pair.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "syncd/upkeep.h"
#include "transport/key_file.h"
#include "transport/store.h"

#define SKEW_SHOWN_US (600 * US_PER_S) /* DESIGN 9: time */
#define SKEW_STOPS_US (86400 * US_PER_S)

/* ---- what the worker can take ---- */

static void check_space(struct checking *c, const struct session_worker *w)
{
    struct store_space space;
    struct err e = ERR_INIT;
    char room[SHOW_SIZE], wanted[SHOW_SIZE];
    const char *name = w->conf->name;
    if (!w->store->abilities.space) {
        err_set(&e, ERR_UNSUPPORTED, name,
                "%s: its server does not tell free space, so min_free is not kept", name);
        check_add(c, CHECK_WARNING, &e);
        return;
    }
    if (store_space(w->store, &space, &e)) {
        check_add(c, CHECK_ERROR, &e);
        return;
    }
    uint64_t min = w->conf->min_free_is_percent ? space.total_bytes / 100 * w->conf->min_free
                                                : w->conf->min_free;
    show_size(space.free_bytes, room);
    show_size(min, wanted);
    if (space.free_bytes < min) {
        err_set(&e, ERR_NO_SPACE, name, "%s: only %s are free, min_free is %s", name, room, wanted);
        err_hint(&e, "Make room there, or lower min_free in the worker's block.");
        check_add(c, CHECK_ERROR, &e);
        return;
    }
    err_set(&e, 0, name, "%s: %s free", name, room);
    check_add(c, CHECK_OK, &e);
}

/* Writes a small file, which proves that writing works, and compares its time with ours. */
static void check_writing(struct checking *c, const struct session_worker *w)
{
    uint8_t random[8];
    char hex[2 * sizeof random + 1], path[64], skew[SHOW_SIZE];
    struct store_file *f = NULL;
    struct store_stat st = {0};
    struct err e = ERR_INIT;
    const char *name = w->conf->name;
    io_random(random, sizeof random);
    hex_encode(random, sizeof random, hex);
    snprintf(path, sizeof path, "tmp/check-%s", hex);
    int64_t before_us = clock_now_us();
    int rc = store_create(w->store, path, &f, &e);
    if (rc == 0)
        rc = store_write(f, hex, sizeof hex, &e);
    int closed = store_close_file(f, rc ? NULL : &e);
    rc = rc ? rc : closed;
    if (rc == 0)
        rc = store_stat(w->store, path, &st, &e);
    store_remove(w->store, path, NULL);
    if (rc) {
        check_add(c, CHECK_ERROR, &e);
        return;
    }
    int64_t off_us = st.mtime_us - before_us;
    off_us = off_us < 0 ? -off_us : off_us;
    if (off_us <= SKEW_SHOWN_US)
        return;
    show_duration(off_us, skew);
    err_set(&e, ERR_CLOCK, name, "%s: its clock and this machine's are %s apart%s", name, skew,
            off_us > SKEW_STOPS_US ? "; freshness is shown as 'clock' and nothing is pruned" : "");
    err_hint(&e, "Set the clock of the machine that is wrong (systemd-timesyncd does it).");
    check_add(c, off_us > SKEW_STOPS_US ? CHECK_ERROR : CHECK_WARNING, &e);
}

/* ---- keys ---- */

/* The worker lets us in by other means; the key alone has to do when nobody is there. */
static void check_key_file(struct checking *c, const struct session_worker *w, const char *path)
{
    OWN_BUF struct buf key = BUF_INIT;
    enum key_kind kind = KEY_UNREADABLE;
    struct err e = ERR_INIT;
    const char *name = w->conf->name;
    int rc = key_file_read(path, &key, &kind, &e);
    if (key.data)
        sodium_memzero(key.data, key.len);
    if (rc == ERR_NOT_FOUND && !w->conf->identity_file && w->conf->password_file)
        return; /* by password, as the config says */
    const char *wrong = rc ? NULL : key_pair_defect(kind);
    if (rc == ERR_NOT_FOUND) {
        err_set(
            &e, rc, name,
            "%s: there is no key %s; the login used a key of your ssh-agent, which is not there "
            "at night",
            name, path);
        err_hint(&e, "`syncd setup %s` makes a key and puts it on the worker.", w->conf->url);
    } else if (rc) {
        err_prefix(&e, "%s", name);
    } else if (wrong) {
        rc = err_set(&e, ERR_AUTH, name, "%s: the key %s %s", name, path, wrong);
        err_hint(&e,
                 "Name another file in identity_file; `syncd setup %s` makes an ed25519 key "
                 "there.",
                 w->conf->url);
    }
    if (rc)
        check_add(c, w->conf->password_file ? CHECK_WARNING : CHECK_ERROR, &e);
}

static void check_key(struct checking *c, const struct session_worker *w)
{
    /* What failed for the key's sake says so itself. */
    bool told = w->err.code == ERR_AUTH || w->err.code == ERR_PERMISSION;
    if (told || strncmp(w->conf->url, "sftp:", 5) != 0)
        return;
    OWN_MEM char *path = session_identity_file(c->s, w->conf);
    if (path && (w->store || w->conf->identity_file))
        check_key_file(c, w, path);
}

/* ---- the worker ---- */

static void check_worker(struct checking *c, const struct session_worker *w)
{
    struct err e = ERR_INIT;
    const char *name = w->conf->name;
    check_key(c, w);
    if (!w->store) {
        check_add(c, CHECK_ERROR, &w->err);
        return;
    }
    err_set(&e, 0, name, "%s: %s, repository of '%s'", name, w->conf->url, w->repository.leader);
    check_add(c, CHECK_OK, &e);
    if (store_probe(w->store, &e)) {
        check_add(c, CHECK_ERROR, &e);
        return;
    }
    if (!w->store->abilities.fsync) {
        err_set(&e, ERR_UNSUPPORTED, name,
                "%s: its server cannot fsync: a power cut there can lose the newest files", name);
        err_hint(&e, "OpenSSH's sftp-server can; others often cannot. syncd notices lost files and "
                     "ships them again.");
        check_add(c, CHECK_WARNING, &e);
    }
    check_writing(c, w);
    check_space(c, w);
}

void check_workers(struct checking *c)
{
    for (size_t i = 0; i < c->s->worker_count; i++)
        check_worker(c, &c->s->workers[i]);
}

/* ---- what lies there ---- */

static const struct listed_part *newest_snapshot(const struct listing *l)
{
    for (size_t i = l->count; i > 0; i--)
        if (l->parts[i - 1].mark == PART_SNAP)
            return &l->parts[i - 1];
    return NULL;
}

/* Damage is verify's to find; only what a newer syncd wrote stops the next backup. */
void check_versions(struct checking *c, const char *source)
{
    struct err e = ERR_INIT;
    if (session_attached(c->s) == 0 || session_list(c->s, source, &e))
        return; /* which was told of */
    for (size_t i = 0; i < c->s->worker_count; i++) {
        const struct session_worker *w = &c->s->workers[i];
        const struct listed_part *part = w->store ? newest_snapshot(&w->listing) : NULL;
        struct part_file *f = NULL;
        e = ERR_INIT;
        if (part && part_open(w->store, source, &part->ref, part->mark, c->s->repository.id, &f,
                              &e) == ERR_VERSION) {
            upkeep_newer(source, 1, "cannot go on from it", &e);
            err_prefix(&e, "%s", w->conf->name);
            check_add(c, CHECK_ERROR, &e);
        }
        part_close(f);
    }
}
