#include "snapshot/bolt_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "snapshot/attributes.h"
#include "snapshot/bolt_copy.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define AHEAD_FROM_BYTES (8u << 20) /* a first backup from here on ships ahead first */
#define SHIPS_MUCH_BYTES (4u << 20) /* the pipeline's queue; a pass with more waits */
#define TRIES_MIN 10
#define TRYING_US (3 * US_PER_S)
#define NO_HEADWAY_MAX 5 /* DESIGN 4: passes */
#define REPLACED_MAX 5
#define CANCEL_PAGES 256 /* between two looks at the signal */

/* One database being taken. */
struct taking {
    const struct source_run *run;
    const char *path;
    int fd;
    bool replaced; /* by another file, which must be opened */
    struct image image;
    unsigned tries; /* passes that were overtaken, and how long they took */
    int64_t trying_us;

    /* Of the pass that counts. */
    struct stat before;
    int64_t as_of_us;
    struct entry_bytes signature;
};

static bool is_cancelled(const struct taking *t)
{
    return t->run->cancel && atomic_load(t->run->cancel);
}

static uint64_t shipped_bytes(const struct taking *t)
{
    return t->image.pass_shipped << t->image.of.page_shift;
}

/* ---- one pass ---- */

static int begin_pass(void *arg, const struct bolt_copied *plan, struct err *e)
{
    struct taking *t = arg;
    if (plan->meta.page_size != 1u << t->image.of.page_shift) {
        t->replaced = true;
        return err_set(e, ERR_CHANGED, t->path, "%s changed its page size", t->path);
    }
    if (t->run->total)
        t->run->total(t->run->arg, plan->pages * plan->meta.page_size);
    return 0;
}

static int take_page(void *arg, uint64_t page, const uint8_t *bytes, struct err *e)
{
    struct taking *t = arg;
    if (page % CANCEL_PAGES == 0 && is_cancelled(t))
        return err_set(e, ERR_CANCELLED, t->path, "stopped");
    return image_page(&t->image, page, bytes, e);
}

/* What a state is as old as, and recognised by, is noted before it is read. */
static int note_moment(struct taking *t, struct err *e)
{
    free(t->signature.data);
    t->signature = (struct entry_bytes){0};
    t->as_of_us = clock_now_us();
    if (fstat(t->fd, &t->before) < 0)
        return err_sys(e, errno, t->path, "cannot look at %s", t->path);
    return signature_make(&t->before, &t->signature, e);
}

/* Ships what is new in the newest state. ERR_CHANGED: it was overtaken meanwhile; `to_the_end`: the
 * pass goes on all the same, so that the next one finds most of it shipped, and in the page cache.
 */
static int pass(struct taking *t, bool to_the_end, struct err *e)
{
    struct bolt_copied copied;
    struct bolt_copy copy = {.path = t->path,
                             .fd = t->fd,
                             .begin = begin_pass,
                             .page = take_page,
                             .arg = t,
                             .to_the_end = to_the_end};
    bool replaced = false;
    image_begin_pass(&t->image);
    int rc = note_moment(t, e);
    if (rc == 0)
        rc = bolt_copy(&copy, &copied, &replaced, e);
    t->replaced |= replaced;
    if (rc == 0)
        image_end_pass(&t->image, copied.pages);
    return rc;
}

/* ---- passes until one counts ---- */

/* Holds nothing, so it may wait for the network. */
static int ahead_pass(struct taking *t, struct err *e)
{
    int rc = pass(t, true, e);
    if (rc != ERR_CHANGED || t->replaced)
        return rc;
    /* Overtaken before it had seen the tree: at least the disk shall not hold up the next one. */
    if (t->image.pass_pages == 0)
        rc = bolt_copy_warm(t->fd, t->path, t->run->cancel, e);
    else
        rc = pipeline_drain(t->run->pipeline, e);
    return rc ? rc : ERR_CHANGED;
}

/* One pass after the other. It begins anew as soon as it sees that it was overtaken, which is soon
 * after a commit, so it has most of the time until the next one. ERR_CHANGED: *ret_much, one had so
 * much to ship that this may be what took too long; else there is no use in going on. */
static int try_passes(struct taking *t, unsigned tries_min, int64_t for_us, bool *ret_much,
                      struct err *e)
{
    int64_t spent_us = 0;
    int rc = ERR_CHANGED;
    *ret_much = false;
    for (unsigned i = 0;
         rc == ERR_CHANGED && !t->replaced && !*ret_much && (i < tries_min || spent_us < for_us);
         i++) {
        int64_t begun_us = clock_mono_us();
        rc = is_cancelled(t) ? err_set(e, ERR_CANCELLED, t->path, "stopped") : pass(t, false, e);
        *ret_much = shipped_bytes(t) > SHIPS_MUCH_BYTES;
        spent_us += clock_mono_us() - begun_us;
        t->tries++;
    }
    t->trying_us += spent_us;
    return rc;
}

static int owner_is_faster(const struct taking *t, struct err *e)
{
    return err_set(e, ERR_BUSY, t->path,
                   "%s: its owner commits faster than it can be read and shipped (%u tries in %.1f "
                   "s); let the source's `before` and `after` hooks pause the owner, or back it up "
                   "when it is written to less",
                   t->path, t->tries, (double)t->trying_us / US_PER_S);
}

static int take_live(struct taking *t, struct err *e)
{
    bool ahead = !t->image.known && (uint64_t)t->before.st_size >= AHEAD_FROM_BYTES;
    bool much = false;
    uint64_t least = UINT64_MAX;
    int rc = ahead ? ERR_CHANGED : try_passes(t, 1, 0, &much, e);
    for (unsigned no_headway = 0; rc == ERR_CHANGED && !t->replaced;) {
        rc = ahead_pass(t, e);
        no_headway = t->image.pass_shipped < least ? 0 : no_headway + 1;
        least = MIN(least, t->image.pass_shipped);
        if (rc != ERR_CHANGED || t->replaced)
            break;
        rc = try_passes(t, TRIES_MIN, TRYING_US, &much, e);
        if (rc == ERR_CHANGED && !t->replaced && (!much || no_headway >= NO_HEADWAY_MAX))
            return owner_is_faster(t, e);
    }
    return rc;
}

/* ---- one file ---- */

static int open_image(struct taking *t, struct err *e)
{
    struct bolt_local file = {.fd = t->fd, .path = t->path};
    struct bolt_input input;
    OWN_BOLT struct bolt_reader *r = NULL;
    int rc = bolt_local_input(&file, &input, e);
    if (rc == 0)
        rc = bolt_open(&input, &r, e);
    if (rc)
        return rc;
    uint8_t page_shift = (uint8_t)__builtin_ctz(bolt_page_size(r));
    rc = image_open(t->run, t->path, IMAGE_BOLT, page_shift, &t->image, e);
    if (rc == 0)
        pipeline_effort(t->run->pipeline, t->image.known);
    return rc;
}

static int take_file(struct taking *t, struct err *e)
{
    mem_closep(&t->fd);
    t->replaced = false;
    t->fd = io_openat_source(AT_FDCWD, t->path);
    if (t->fd < 0)
        return err_sys(e, errno, t->path, "cannot open %s", t->path);
    if (fstat(t->fd, &t->before) < 0)
        return err_sys(e, errno, t->path, "cannot look at %s", t->path);
    if (!S_ISREG(t->before.st_mode))
        return err_set(e, ERR_SOURCE, t->path, "%s is no file any more", t->path);
    int rc = open_image(t, e);
    return rc ? rc : take_live(t, e);
}

static int fill_entry(struct taking *t, struct entry *ret, struct err *e)
{
    struct entry n = {.type = ENTRY_IMAGE, .as_of_us = t->as_of_us, .image = t->image.of};
    n.path = strdup(t->path);
    int rc = n.path ? attributes_fill(&t->before, &n, e) : err_nomem(e);
    if (rc == 0)
        rc = attributes_read_extended(t->fd, -1, NULL, t->path, &n.xattrs, e);
    if (rc) {
        entry_free(&n);
        return rc;
    }
    n.signature = t->signature;
    t->signature = (struct entry_bytes){0};
    *ret = n;
    return 0;
}

int bolt_take(const struct source_run *run, const char *path, struct entry *ret, struct err *e)
{
    struct taking t = {.run = run, .path = path, .fd = -1, .replaced = true};
    int rc = ERR_CHANGED;
    for (int i = 0; rc == ERR_CHANGED && t.replaced && i < REPLACED_MAX; i++)
        rc = take_file(&t, e);
    if (rc == 0)
        rc = fill_entry(&t, ret, e);
    if (rc == ERR_DAMAGED || rc == ERR_UNSUPPORTED) /* the library's words for what it has read */
        e->code = rc = ERR_SOURCE;
    free(t.signature.data);
    mem_closep(&t.fd);
    return rc;
}
