/* The workers' side of a session. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "syncd/ask.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/catalog.h"
#include "syncd/session.h"
#include "syncd/show.h"
#include "syncd/signals.h"
#include "transport/open.h"
#include "transport/store.h"

#define HANGS_AFTER_S 20 /* a disk that sleeps has woken up by then */

void session_close(struct session *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < CONF_MAX_WORKERS; i++) {
        store_close(s->workers[i].store);
        listing_free(&s->workers[i].listing);
        mem_closep(&s->workers[i].cancel_fd);
        mem_closep(&s->workers[i].cancel_event);
    }
    if (s->has_lost)
        return;
    catalog_close(s->catalog);
    conf_free(s->conf);
    free(s);
}

/* ---- connecting ---- */

/* An epoll descriptor is readable when one of its members is: a signal, or this worker alone. */
int session_make_cancel_fd(struct session_worker *w, struct err *e)
{
    struct epoll_event on = {.events = EPOLLIN};
    int signal_fd = *signals_cancel_fd();
    if (w->cancel_fd >= 0)
        return 0;
    w->cancel_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->cancel_fd = epoll_create1(EPOLL_CLOEXEC);
    if (w->cancel_event < 0 || w->cancel_fd < 0 ||
        epoll_ctl(w->cancel_fd, EPOLL_CTL_ADD, w->cancel_event, &on) < 0 ||
        (signal_fd >= 0 && epoll_ctl(w->cancel_fd, EPOLL_CTL_ADD, signal_fd, &on) < 0))
        return err_sys(e, errno, w->conf->name, "cannot prepare the connection");
    return 0;
}

static char *existing_or_null(char *path)
{
    if (path && access(path, F_OK) == 0)
        return path;
    free(path);
    return NULL;
}

char *session_identity_file(const struct session *s, const struct conf_worker *w)
{
    return w->identity_file ? strdup(w->identity_file) : session_state_path(s, "id_ed25519");
}

char *session_known_hosts(const struct session *s, const struct conf_worker *w)
{
    return w->known_hosts ? strdup(w->known_hosts) : session_state_path(s, "known_hosts");
}

static int open_store(struct session *s, struct session_worker *w, struct err *e)
{
    OWN_MEM char *identity = session_identity_file(s, w->conf);
    OWN_MEM char *known_hosts = session_known_hosts(s, w->conf);
    char *password = NULL;
    if (!w->conf->identity_file)
        identity = existing_or_null(TAKE_PTR(identity));
    int rc = w->conf->password_file ? conf_read_secret(w->conf->password_file, &password, e) : 0;
    struct store_options o = {.name = w->conf->name,
                              .identity_file = identity,
                              .password = password,
                              .use_agent = true,
                              .known_hosts = known_hosts,
                              .max_rate = w->conf->max_rate,
                              .cancel_fd = w->cancel};
    if (rc == 0)
        rc = url_parse(w->conf->url, &o.url, e);
    if (rc == 0)
        rc = store_open_url(&o, &w->store, e);
    ask_wipe(&password);
    return rc;
}

int session_connect_worker(struct session *s, struct session_worker *w, struct err *e)
{
    int rc = session_make_cancel_fd(w, e);
    return rc ? rc : open_store(s, w, e);
}

void session_leave_out(struct session_worker *w)
{
    store_close(w->store);
    w->store = NULL;
}

void session_lose(struct session *s, struct session_worker *w)
{
    s->has_lost = true;
    w->store = NULL;
    w->listing = (struct listing){0};
    w->cancel_event = w->cancel_fd = -1;
}

int session_reconnect(struct session *s, struct session_worker *w, struct err *e)
{
    struct repository repository;
    uint64_t ignored;
    session_leave_out(w);
    while (read(w->cancel_event, &ignored, sizeof ignored) < 0 && errno == EINTR)
        continue;
    int rc = session_connect_worker(s, w, e);
    if (rc == 0)
        rc = repository_read(w->store, &repository, e);
    if (rc == 0 && memcmp(repository.id, s->repository.id, REPO_ID_SIZE) != 0)
        rc = err_set(e, ERR_FOREIGN, w->conf->name, "%s holds another repository now",
                     w->conf->name);
    if (rc)
        session_leave_out(w);
    return rc;
}

int session_check_room(const struct session_worker *w, struct store *store, uint64_t add_bytes,
                       struct err *e)
{
    struct store_space space;
    char room[SHOW_SIZE], wanted[SHOW_SIZE];
    if (!store->abilities.space)
        return 0;
    int rc = store_space(store, &space, e);
    if (rc)
        return rc;
    uint64_t min = w->conf->min_free_is_percent ? space.total_bytes / 100 * w->conf->min_free
                                                : w->conf->min_free;
    if (space.free_bytes >= min && space.free_bytes - min >= add_bytes)
        return 0;
    show_size(space.free_bytes, room);
    show_size(min, wanted);
    err_set(e, ERR_NO_SPACE, w->conf->name,
            "%s: only %s are free, min_free is %s; nothing is stored there", w->conf->name, room,
            wanted);
    return err_hint(e, "Make room there, or lower min_free in the worker's block.");
}

/* What a thread does for one worker, on a copy: a folder's file system may keep it for ever. */
struct connecting {
    struct session *s;
    struct session_worker w;
    const char *source; /* listing instead of connecting */
    pthread_t thread;
};

static void *connect_main(void *arg)
{
    struct connecting *c = arg;
    struct session_worker *w = &c->w;
    int rc = w->store ? 0 : session_connect_worker(c->s, w, &w->err);
    if (rc == 0)
        rc = repository_read(w->store, &w->repository, &w->err);
    w->has_repository = rc == 0;
    if (rc == 0)
        rc = epoch_read(w->store, &w->epoch, &w->highest_epoch, &w->err);
    if (rc)
        session_leave_out(w);
    return NULL;
}

static void *list_main(void *arg)
{
    struct connecting *c = arg;
    listing_free(&c->w.listing);
    if (listing_read(c->w.store, c->source, &c->w.listing, &c->w.err))
        session_leave_out(&c->w);
    return NULL;
}

static bool may_hang(const struct session_worker *w)
{
    static const char scheme[] = "file:";
    return strncmp(w->conf->url, scheme, strlen(scheme)) == 0;
}

static void join(struct connecting *c, struct session_worker *w)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += HANGS_AFTER_S;
    if (!may_hang(w) || pthread_clockjoin_np(c->thread, NULL, CLOCK_MONOTONIC, &until) == 0) {
        if (!may_hang(w))
            pthread_join(c->thread, NULL);
        *w = c->w;
        free(c);
        return;
    }
    pthread_detach(c->thread);
    session_lose(c->s, w);
    err_set(&w->err, ERR_TIMEOUT, w->conf->name, "%s: its folder has not answered for %d s",
            w->conf->name, HANGS_AFTER_S);
    err_hint(&w->err, "Is it on a network mount whose server is away, or on a disk that fails?");
}

/* Runs `work` for each worker at the same time; the last without a thread, where that must end. */
static void for_each_worker(struct session *s, const char *source, void *(*work)(void *))
{
    struct connecting *started[CONF_MAX_WORKERS] = {0};
    for (size_t i = 0; i < s->worker_count; i++) {
        struct session_worker *w = &s->workers[i];
        if (source ? !w->store : w->err.code || session_make_cancel_fd(w, &w->err))
            continue;
        struct connecting *c = mem_alloc(1, sizeof *c);
        if (!c) {
            err_nomem(&w->err);
            session_leave_out(w);
            continue;
        }
        *c = (struct connecting){.s = s, .w = *w, .source = source};
        if ((i + 1 < s->worker_count || may_hang(w)) &&
            pthread_create(&c->thread, NULL, work, c) == 0) {
            started[i] = c;
            continue;
        }
        work(c);
        *w = c->w;
        free(c);
    }
    for (size_t i = 0; i < s->worker_count; i++)
        if (started[i])
            join(started[i], &s->workers[i]);
}

size_t session_attached(const struct session *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->worker_count; i++)
        n += s->workers[i].store != NULL;
    return n;
}

/* The error of a session in which no worker takes part: that of the first. */
static int none_left(const struct session *s, struct err *e)
{
    if (session_attached(s) > 0)
        return 0;
    if (s->worker_count == 0) {
        err_set(e, ERR_CONFIG, s->conf->file, "%s names no worker", s->conf->file);
        return err_hint(e, "Add a worker block, or let `syncd setup sftp://USER@HOST/PATH` do it.");
    }
    *e = s->workers[0].err;
    return e->code;
}

/* All workers must hold the same repository, and the one that this leader knows. */
static void check_repositories(struct session *s)
{
    for (size_t i = 0; i < s->worker_count; i++) {
        struct session_worker *w = &s->workers[i];
        if (!w->store)
            continue;
        if (!s->has_repository) {
            s->repository = w->repository;
            s->has_repository = true;
        }
        if (memcmp(s->repository.id, w->repository.id, REPO_ID_SIZE) == 0 &&
            memcmp(s->repository.seed, w->repository.seed, SEED_SIZE) == 0)
            continue;
        err_set(&w->err, ERR_FOREIGN, w->conf->name,
                "%s holds another repository than this leader's (of '%s'); it is left alone",
                w->conf->name, w->repository.leader);
        err_hint(&w->err,
                 "Give each leader a path of its own in the worker's url. If this machine "
                 "replaces '%s', run `syncd restore --from URL` or `syncd adopt`.",
                 w->repository.leader);
        session_leave_out(w);
    }
}

int session_connect(struct session *s, struct err *e)
{
    for_each_worker(s, NULL, connect_main);
    check_repositories(s);
    session_find_ruler(s);
    return none_left(s, e);
}

int session_list(struct session *s, const char *source, struct err *e)
{
    for_each_worker(s, source, list_main);
    return none_left(s, e);
}

void session_pool(struct session *s, const char *source, struct pool *ret)
{
    *ret = (struct pool){.repository = &s->repository, .source = source, .ruler = &s->ruler};
    for (size_t i = 0; i < s->worker_count; i++) {
        if (!s->workers[i].store)
            continue;
        ret->at[ret->store_count].store = s->workers[i].store;
        ret->at[ret->store_count++].listing = &s->workers[i].listing;
    }
}
