#include "restore/image_fetch.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "restore/page_writer.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

#define JOB_BYTES (1u << 20)
#define JOBS 4
#define THREADS_MAX 4
#define SQLITE_LOCK_BYTE 0x40000000u

/* One page that the plan wants out of a block. */
struct claim {
    uint64_t page, fingerprint;
    uint32_t raw_offset;
};

/* A block of the part in hand that has pages which are wanted. */
struct wanted {
    const struct part_block *block;
    size_t index; /* in the part */
    size_t first_claim, claim_count;
};

/* Neighbouring wanted blocks, read together. */
struct job {
    enum { JOB_FREE, JOB_READY, JOB_WORKING } state;
    const struct wanted *wanted;
    size_t count;
    uint32_t bytes;
    uint8_t *data;
};

struct fetch {
    const struct image_fetch *o;
    struct image_fetched *result;
    struct page_writer writer;
    uint64_t page_seed, skip_page;
    uint8_t *bits; /* pages that a newer part has */
    uint8_t *lost; /* salvage: pages of blocks that nobody has whole, and doubtful ones */
    bool doubtful; /* salvage: a part newer than the one in hand could not be read */

    /* Of the part in hand; changed only while no job is under way. */
    size_t wanted_count, wanted_cap, claim_count, claim_cap;
    struct wanted *wanted;
    struct claim *claims;
    char part_path[SOURCE_NAME_SIZE + 1 + PART_NAME_SIZE];

    pthread_mutex_t lock;
    pthread_cond_t work, done;
    bool stopping;
    struct err fatal;
    struct job jobs[JOBS];
    unsigned thread_count;
    pthread_t threads[THREADS_MAX];
    uint64_t sum, pages, done_bytes, told_bytes;

    uint8_t *copied; /* JOB_BYTES of pages from the base file that wait to be written; or NULL */
    uint64_t copied_first;
    size_t copied_count;

    /* Blocks that failed on the worker that they were read from; read again elsewhere. */
    size_t failed_count, failed_cap;
    const struct wanted **failed;
};

/* ---- pages ---- */

/* Writes claimed pages out of an unpacked block; neighbours in one call. */
static int put_pages(struct fetch *f, const uint8_t *raw, const struct claim *claims, size_t count,
                     struct err *e)
{
    uint8_t shift = f->o->entry->image.page_shift;
    uint32_t size = 1u << shift;
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += digest_page(f->page_seed, claims[i].page, raw + claims[i].raw_offset, size).summand;
    int rc = 0;
    for (size_t i = 0, n; rc == 0 && i < count; i += n) {
        n = 1;
        while (i + n < count && claims[i + n].page == claims[i].page + n &&
               claims[i + n].raw_offset == claims[i].raw_offset + n * size)
            n++;
        rc = page_writer_put(&f->writer, claims[i].page, raw + claims[i].raw_offset, n, e);
    }
    if (rc)
        return rc;
    pthread_mutex_lock(&f->lock);
    f->sum += sum;
    f->pages += count;
    f->done_bytes += count << shift;
    pthread_mutex_unlock(&f->lock);
    return 0;
}

/* ---- the working threads ---- */

static int remember_failed(struct fetch *f, const struct wanted *w, struct err *e)
{
    pthread_mutex_lock(&f->lock);
    int rc = mem_grow(&f->failed, &f->failed_cap, f->failed_count + 1, sizeof *f->failed);
    if (rc == 0)
        f->failed[f->failed_count++] = w;
    pthread_mutex_unlock(&f->lock);
    return rc ? err_nomem(e) : 0;
}

static int do_job(struct fetch *f, const struct job *j, struct block_reader *r, struct err *e)
{
    uint32_t at = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < j->count; i++) {
        const struct wanted *w = &j->wanted[i];
        const uint8_t *raw;
        rc = block_unpack(r, w->block, f->part_path, j->data + at, &raw, e);
        at += w->block->stored_bytes;
        if (rc == 0)
            rc = put_pages(f, raw, f->claims + w->first_claim, w->claim_count, e);
        else if (rc == ERR_DAMAGED)
            rc = remember_failed(f, w, e);
    }
    return rc;
}

static struct job *next_job(struct fetch *f)
{
    for (size_t i = 0; i < JOBS; i++)
        if (f->jobs[i].state == JOB_READY)
            return &f->jobs[i];
    return NULL;
}

static void *work_main(void *arg)
{
    struct fetch *f = arg;
    struct block_reader *r = NULL;
    struct err e = ERR_INIT;
    int rc = block_reader_new(&r, &e);
    pthread_mutex_lock(&f->lock);
    if (rc)
        f->fatal = e;
    while (!f->stopping) {
        struct job *j = next_job(f);
        if (!j || f->fatal.code) {
            if (j)
                j->state = JOB_FREE; /* after a failure the rest is only cleared away */
            else
                pthread_cond_wait(&f->work, &f->lock);
            pthread_cond_broadcast(&f->done);
            continue;
        }
        j->state = JOB_WORKING;
        pthread_mutex_unlock(&f->lock);
        rc = do_job(f, j, r, &e);
        pthread_mutex_lock(&f->lock);
        if (rc)
            f->fatal = e;
        j->state = JOB_FREE;
        pthread_cond_broadcast(&f->done);
    }
    pthread_mutex_unlock(&f->lock);
    block_reader_free(r);
    return NULL;
}

/* ---- the reading thread ---- */

static int check_on(struct fetch *f, struct err *e)
{
    if (f->o->cancel && atomic_load(f->o->cancel))
        return err_set(e, ERR_CANCELLED, NULL, "stopped");
    pthread_mutex_lock(&f->lock);
    uint64_t news = f->done_bytes - f->told_bytes;
    f->told_bytes = f->done_bytes;
    if (f->fatal.code)
        *e = f->fatal;
    int rc = f->fatal.code;
    pthread_mutex_unlock(&f->lock);
    if (f->o->progress && news)
        f->o->progress(f->o->arg, news);
    return rc;
}

static struct job *free_job(struct fetch *f)
{
    struct job *free_one = NULL;
    pthread_mutex_lock(&f->lock);
    while (!free_one) {
        for (size_t i = 0; i < JOBS; i++)
            if (f->jobs[i].state == JOB_FREE)
                free_one = &f->jobs[i];
        if (!free_one)
            pthread_cond_wait(&f->done, &f->lock);
    }
    pthread_mutex_unlock(&f->lock);
    free_one->count = free_one->bytes = 0;
    return free_one;
}

static void wait_all(struct fetch *f)
{
    pthread_mutex_lock(&f->lock);
    for (size_t i = 0; i < JOBS; i++)
        while (f->jobs[i].state != JOB_FREE)
            pthread_cond_wait(&f->done, &f->lock);
    pthread_mutex_unlock(&f->lock);
}

/* Claims a page of the block in hand. A block can hold a page twice (two passes): the later counts.
 */
static int claim_page(struct fetch *f, struct wanted *w, const struct block_walk *walk,
                      bool may_be_twice)
{
    uint64_t page = walk->page;
    for (size_t i = 0; may_be_twice && i < w->claim_count; i++) {
        struct claim *c = &f->claims[w->first_claim + i];
        if (c->page == page) {
            c->raw_offset = walk->raw_offset;
            c->fingerprint = walk->fingerprint;
            return 0;
        }
    }
    if (page >= f->o->entry->image.page_count || page == f->skip_page ||
        f->bits[page / 8] & (1u << (page % 8)))
        return 0;
    if (mem_grow(&f->claims, &f->claim_cap, f->claim_count + 1, sizeof *f->claims))
        return ERR_NOMEM;
    f->bits[page / 8] |= (uint8_t)(1u << (page % 8));
    f->claims[f->claim_count++] = (struct claim){page, walk->fingerprint, walk->raw_offset};
    w->claim_count++;
    return 0;
}

/* ---- what the base file has ---- */

static int flush_copied(struct fetch *f, struct err *e)
{
    size_t n = f->copied_count;
    f->copied_count = 0;
    return n ? page_writer_put(&f->writer, f->copied_first, f->copied, n, e) : 0;
}

/* Neighbours are written in one call. Only this thread is at it while a part is claimed. */
static int copy_page(struct fetch *f, const struct claim *c, bool *ret_copied, struct err *e)
{
    size_t size = (size_t)1 << f->o->entry->image.page_shift, room = JOB_BYTES / size;
    if (f->copied_count == room || f->copied_first + f->copied_count != c->page) {
        int rc = flush_copied(f, e);
        if (rc)
            return rc;
        f->copied_first = c->page;
    }
    uint8_t *page = f->copied + f->copied_count * size;
    if (io_pread_full(*f->o->base_fd, page, size, c->page * size) != (ssize_t)size)
        return 0;
    struct page_hash hash = digest_page(f->page_seed, c->page, page, size);
    if (hash.fingerprint != c->fingerprint)
        return 0;
    f->copied_count++;
    f->sum += hash.summand;
    f->pages++;
    f->done_bytes += size;
    f->result->copied_pages++;
    *ret_copied = true;
    return 0;
}

/* Takes out of the block's claims what the base file has. */
static int copy_claimed(struct fetch *f, struct wanted *w, struct err *e)
{
    size_t kept = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && f->copied && i < w->claim_count; i++) {
        struct claim c = f->claims[w->first_claim + i];
        bool copied = false;
        rc = copy_page(f, &c, &copied, e);
        if (!copied)
            f->claims[w->first_claim + kept++] = c;
    }
    if (f->copied) {
        w->claim_count = kept;
        f->claim_count = w->first_claim + kept;
    }
    return rc;
}

static int claim_block(struct fetch *f, const struct part_meta *m, size_t index, struct err *e)
{
    struct wanted w = {&m->blocks[index], index, f->claim_count, 0};
    struct block_walk walk = block_walk_begin(w.block);
    uint64_t highest = 0;
    while (block_walk_next(&walk)) {
        if (claim_page(f, &w, &walk, walk.page <= highest))
            return err_nomem(e);
        highest = MAX(highest, walk.page);
    }
    int rc = copy_claimed(f, &w, e);
    if (rc || w.claim_count == 0)
        return rc;
    if (mem_grow(&f->wanted, &f->wanted_cap, f->wanted_count + 1, sizeof *f->wanted))
        return err_nomem(e);
    f->wanted[f->wanted_count++] = w;
    return 0;
}

/* What is wanted of a part: claimed from its last block to its first, because the later copy of a
 * page counts; then in the order of the file. */
static int claim_part(struct fetch *f, const struct part_meta *m, struct err *e)
{
    int rc = 0;
    f->wanted_count = f->claim_count = 0;
    for (size_t i = m->block_count; rc == 0 && i > 0; i--) {
        const struct part_block *b = &m->blocks[i - 1];
        if (b->kind == BLOCK_PAGES && b->image == f->o->entry->image.id &&
            b->page_shift == f->o->entry->image.page_shift)
            rc = claim_block(f, m, i - 1, e);
    }
    if (rc == 0)
        rc = flush_copied(f, e);
    for (size_t i = 0; i < f->wanted_count / 2; i++) {
        struct wanted swap = f->wanted[i];
        f->wanted[i] = f->wanted[f->wanted_count - 1 - i];
        f->wanted[f->wanted_count - 1 - i] = swap;
    }
    return rc;
}

/* Reads the job's blocks and hands it on. What cannot be read whole fails its digest, and is read
 * again from the other worker. */
static int read_job(struct fetch *f, const struct part_file *part, struct job *j, struct err *e)
{
    size_t got = 0;
    bool gone = pool_store_is_gone(f->o->pool, part->store);
    int rc =
        gone ? ERR_CONNECT
             : store_read_at(part->file, j->wanted[0].block->offset, j->data, j->bytes, &got, e);
    if (rc == ERR_CANCELLED)
        return rc;
    if (rc == ERR_CONNECT || rc == ERR_TIMEOUT)
        pool_store_gone(f->o->pool, part->store);
    got = rc ? 0 : got;
    memset(j->data + got, 0, j->bytes - got);
    f->result->stored_bytes += j->bytes;
    pthread_mutex_lock(&f->lock);
    j->state = JOB_READY;
    pthread_cond_signal(&f->work);
    pthread_mutex_unlock(&f->lock);
    return check_on(f, e);
}

static int read_part(struct fetch *f, const struct part_file *part, struct err *e)
{
    int rc = 0;
    snprintf(f->part_path, sizeof f->part_path, "%s", part->path);
    for (size_t i = 0; rc == 0 && i < f->wanted_count;) {
        struct job *j = free_job(f);
        j->wanted = &f->wanted[i];
        do {
            j->bytes += f->wanted[i].block->stored_bytes;
            j->count++;
            i++;
        } while (i < f->wanted_count &&
                 f->wanted[i - 1].block->offset + f->wanted[i - 1].block->stored_bytes ==
                     f->wanted[i].block->offset &&
                 j->bytes + f->wanted[i].block->stored_bytes <= JOB_BYTES);
        rc = read_job(f, part, j, e);
    }
    wait_all(f);
    return rc ? rc : check_on(f, e);
}

static void set_bit(uint8_t *bits, uint64_t page)
{
    bits[page / 8] |= (uint8_t)(1u << (page % 8));
}

static bool has_bit(const uint8_t *bits, uint64_t page)
{
    return bits[page / 8] & (1u << (page % 8));
}

static void lose_pages(struct fetch *f, const struct wanted *w)
{
    for (size_t i = 0; i < w->claim_count; i++)
        set_bit(f->lost, f->claims[w->first_claim + i].page);
}

/* The blocks that failed, one by one from whoever has them whole. */
static int mend_part(struct fetch *f, const struct part_ref *ref, struct err *e)
{
    OWN_BLOCK_READER struct block_reader *r = NULL;
    int rc = f->failed_count ? block_reader_new(&r, e) : 0;
    for (size_t i = 0; rc == 0 && i < f->failed_count; i++) {
        const struct wanted *w = f->failed[i];
        const uint8_t *raw;
        rc = pool_block(f->o->pool, ref, w->index, r, &raw, e);
        if (rc == 0)
            rc = put_pages(f, raw, f->claims + w->first_claim, w->claim_count, e);
        else if (f->o->salvage && rc != ERR_CANCELLED) {
            lose_pages(f, w);
            rc = 0;
        }
    }
    f->failed_count = 0;
    return rc;
}

static int fetch_part(struct fetch *f, const struct part_ref *ref, struct err *e)
{
    const struct part_file *part;
    int rc = pool_part(f->o->pool, ref, &part, e);
    if (rc && rc != ERR_CANCELLED && f->o->salvage) {
        f->doubtful = true; /* which pages it had, nobody knows */
        return 0;
    }
    if (rc == 0)
        rc = claim_part(f, part->meta, e);
    for (size_t i = 0; rc == 0 && f->doubtful && i < f->wanted_count; i++)
        lose_pages(f, &f->wanted[i]);
    if (rc == 0)
        rc = read_part(f, part, e);
    /* The wanted blocks point into the part's metadata, which stays open until here. */
    return rc ? rc : mend_part(f, ref, e);
}

/* ---- beginning and end ---- */

static int start(struct fetch *f, struct err *e)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    f->bits = mem_alloc((size_t)(f->o->entry->image.page_count / 8 + 1), 1);
    if (f->o->base_fd)
        f->copied = malloc(JOB_BYTES);
    if (f->o->salvage && !(f->lost = mem_alloc((size_t)(f->o->entry->image.page_count / 8 + 1), 1)))
        return err_nomem(e);
    if (!f->bits || (f->o->base_fd && !f->copied))
        return err_nomem(e);
    for (size_t i = 0; i < JOBS; i++)
        if (!(f->jobs[i].data = malloc(JOB_BYTES)))
            return err_nomem(e);
    unsigned want = (unsigned)MIN(MAX(cores, 1L), (long)THREADS_MAX);
    for (; f->thread_count < want; f->thread_count++) {
        int rc = pthread_create(&f->threads[f->thread_count], NULL, work_main, f);
        if (rc)
            return err_sys(e, rc, NULL, "cannot start a thread");
    }
    return 0;
}

static void stop(struct fetch *f)
{
    pthread_mutex_lock(&f->lock);
    f->stopping = true;
    pthread_cond_broadcast(&f->work);
    pthread_mutex_unlock(&f->lock);
    for (unsigned i = 0; i < f->thread_count; i++)
        pthread_join(f->threads[i], NULL);
    for (size_t i = 0; i < JOBS; i++)
        free(f->jobs[i].data);
    free(f->wanted);
    free(f->claims);
    free(f->failed);
    free(f->bits);
    free(f->lost);
    free(f->copied);
    page_writer_end(&f->writer);
    pthread_cond_destroy(&f->work);
    pthread_cond_destroy(&f->done);
    pthread_mutex_destroy(&f->lock);
}

static void list_lost(struct fetch *f, uint64_t zeros)
{
    struct image_fetched *r = f->result;
    for (uint64_t page = 0; page < f->o->entry->image.page_count; page++) {
        if (page == f->skip_page || (has_bit(f->bits, page) && !has_bit(f->lost, page)))
            continue;
        struct page_range *last = r->missing_count ? &r->missing[r->missing_count - 1] : NULL;
        r->missing_pages++;
        if (last && last->first + last->count == page)
            last->count++;
        else if (r->missing_count < ARRAY_LEN(r->missing))
            r->missing[r->missing_count++] = (struct page_range){page, 1};
    }
    r->older_pages = r->missing_pages - MIN(zeros, r->missing_pages);
}

static int judge(struct fetch *f, struct err *e)
{
    const struct entry *n = f->o->entry;
    uint64_t expected = n->image.page_count - (f->skip_page < n->image.page_count ? 1 : 0);
    uint64_t missing = expected - f->pages;
    bool whole =
        missing == 0 && f->sum == n->image.sum; /* then what was unreadable was not needed */
    if (f->o->salvage && !whole && (missing || f->doubtful)) {
        list_lost(f, missing);
        return 0;
    }
    if (missing)
        return err_set(e, ERR_DAMAGED, n->path,
                       "%s cannot be rebuilt: no part on any worker holds %" PRIu64
                       " of its %" PRIu64 " pages",
                       n->path, missing, expected);
    if (f->sum != n->image.sum)
        return err_set(e, ERR_DAMAGED, n->path,
                       "%s cannot be rebuilt: its image sum is %016" PRIx64 ", not %016" PRIx64,
                       n->path, f->sum, n->image.sum);
    return 0;
}

/* Every page but SQLite's lock page lies in a listed part; more than those can hold is no image,
 * and would cost memory for the asking. */
static int check_size(const struct image_fetch *o, struct err *e)
{
    const struct entry *n = o->entry;
    if (n->image.page_count > (uint64_t)o->snapshot->part_count * PART_ITEMS_MAX + 1)
        return err_set(e, ERR_DAMAGED, n->path,
                       "%s cannot be rebuilt: %" PRIu64 " pages are more than the parts can hold",
                       n->path, n->image.page_count);
    if (n->image.page_count / 8 >= SIZE_MAX)
        return err_set(e, ERR_LIMIT, n->path, "%s is too large for this machine", n->path);
    return 0;
}

static int fetch_once(const struct image_fetch *o, struct image_fetched *ret, struct err *e)
{
    struct fetch f = {.o = o,
                      .result = ret,
                      .page_seed = digest_page_seed(o->pool->repository->seed),
                      .skip_page = UINT64_MAX,
                      .lock = PTHREAD_MUTEX_INITIALIZER,
                      .work = PTHREAD_COND_INITIALIZER,
                      .done = PTHREAD_COND_INITIALIZER};
    *ret = (struct image_fetched){0};
    if (o->entry->image.kind == IMAGE_SQLITE)
        f.skip_page = SQLITE_LOCK_BYTE >> o->entry->image.page_shift;
    int rc = check_size(o, e);
    if (rc)
        return rc;
    rc = page_writer_begin(o->fd, o->entry, f.skip_page, &f.writer, e);
    if (rc)
        return rc;
    rc = start(&f, e);
    for (size_t i = o->snapshot->part_count; rc == 0 && i > 0; i--)
        rc = fetch_part(&f, &o->snapshot->parts[i - 1], e);
    if (rc == 0)
        rc = judge(&f, e);
    stop(&f);
    return rc;
}

int image_fetch(const struct image_fetch *o, struct image_fetched *ret, struct err *e)
{
    struct image_fetch whole = *o;
    int rc = fetch_once(o, ret, e);
    if (rc != ERR_DAMAGED || ret->copied_pages == 0)
        return rc;
    whole.base_fd = NULL;
    return fetch_once(&whole, ret, e);
}

int image_compare(int fd, const struct repository *repo, const struct entry_image *image,
                  struct err *e)
{
    struct stat st;
    uint64_t sum = 0, seed = digest_page_seed(repo->seed), size = UINT64_C(1) << image->page_shift;
    uint64_t skip =
        image->kind == IMAGE_SQLITE ? SQLITE_LOCK_BYTE >> image->page_shift : UINT64_MAX;
    OWN_MEM uint8_t *page = malloc((size_t)size);
    if (!page)
        return err_nomem(e);
    if (fstat(fd, &st) < 0)
        return err_sys(e, errno, NULL, "cannot look at the file");
    if ((uint64_t)st.st_size != image->page_count * size)
        return err_set(e, ERR_CHANGED, NULL, "it has another size");
    for (uint64_t i = 0; i < image->page_count; i++) {
        if (i == skip)
            continue;
        if (io_pread_full(fd, page, (size_t)size, i * size) != (ssize_t)size)
            return err_sys(e, errno, NULL, "cannot read the file");
        sum += digest_page(seed, i, page, (size_t)size).summand;
    }
    return sum == image->sum ? 0 : err_set(e, ERR_CHANGED, NULL, "it has other content");
}
