#include "restore/image_fetch.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "restore/image_fetch_internal.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "transport/store.h"

#define SQLITE_LOCK_BYTE 0x40000000u

/* ---- pages ---- */

void fetch_count(struct fetch *f, uint64_t sum, size_t pages)
{
    pthread_mutex_lock(&f->lock);
    f->sum += sum;
    f->pages += pages;
    f->done_bytes += (uint64_t)pages << f->o->entry->image.page_shift;
    pthread_mutex_unlock(&f->lock);
}

/* Writes claimed pages out of an unpacked block; neighbours in one call. */
static int put_pages(struct fetch *f, const uint8_t *raw, const struct claim *claims, size_t count,
                     struct err *e)
{
    uint32_t size = 1u << f->o->entry->image.page_shift;
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
    if (rc == 0)
        fetch_count(f, sum, count);
    return rc;
}

/* ---- the working threads ---- */

static int remember_failed(struct fetch *f, struct fetch_part *p, const struct wanted *w,
                           struct err *e)
{
    pthread_mutex_lock(&f->lock);
    int rc = mem_grow(&p->failed, &p->failed_cap, p->failed_count + 1, sizeof *p->failed);
    if (rc == 0)
        p->failed[p->failed_count++] = w;
    pthread_mutex_unlock(&f->lock);
    return rc ? err_nomem(e) : 0;
}

static int do_job(struct fetch *f, const struct job *j, struct block_reader *r, struct err *e)
{
    uint32_t at = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < j->count; i++) {
        const struct wanted *w = &j->wanted[i];
        struct part_block block = w->block;
        const uint8_t *raw;
        block.digest = w->digest;
        rc = block_unpack(r, &block, j->part->path, j->data + at, &raw, e);
        at += block.stored_bytes;
        if (rc == 0)
            rc = put_pages(f, raw, j->part->claims + w->first_claim, w->claim_count, e);
        else if (rc == ERR_DAMAGED)
            rc = remember_failed(f, j->part, w, e);
    }
    return rc;
}

static struct job *next_job(struct fetch *f)
{
    for (size_t i = 0; i < FETCH_JOBS; i++)
        if (f->jobs[i].state == JOB_READY)
            return &f->jobs[i];
    return NULL;
}

static void job_is_over(struct fetch *f, struct job *j)
{
    j->state = JOB_FREE;
    j->part->jobs--;
    pthread_cond_broadcast(&f->done);
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
                job_is_over(f, j); /* after a failure the rest is only cleared away */
            else
                pthread_cond_wait(&f->work, &f->lock);
            continue;
        }
        j->state = JOB_WORKING;
        pthread_mutex_unlock(&f->lock);
        rc = do_job(f, j, r, &e);
        pthread_mutex_lock(&f->lock);
        if (rc)
            f->fatal = e;
        job_is_over(f, j);
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
        for (size_t i = 0; i < FETCH_JOBS; i++)
            if (f->jobs[i].state == JOB_FREE)
                free_one = &f->jobs[i];
        if (!free_one)
            pthread_cond_wait(&f->done, &f->lock);
    }
    pthread_mutex_unlock(&f->lock);
    free_one->count = free_one->bytes = 0;
    return free_one;
}

static void wait_for_jobs(struct fetch *f, struct fetch_part *p)
{
    pthread_mutex_lock(&f->lock);
    while (p->jobs > 0)
        pthread_cond_wait(&f->done, &f->lock);
    pthread_mutex_unlock(&f->lock);
}

/* Reads the job's blocks and hands it on. What cannot be read whole fails its digest, and is read
 * again from the other worker. */
static int read_job(struct fetch *f, const struct part_file *part, struct job *j, struct err *e)
{
    size_t got = 0;
    bool gone = pool_store_is_gone(f->o->pool, part->store);
    int rc = gone
                 ? ERR_CONNECT
                 : store_read_at(part->file, j->wanted[0].block.offset, j->data, j->bytes, &got, e);
    if (rc == ERR_CANCELLED)
        return rc;
    if (rc == ERR_CONNECT || rc == ERR_TIMEOUT)
        pool_store_gone(f->o->pool, part->store);
    got = rc ? 0 : got;
    memset(j->data + got, 0, j->bytes - got);
    f->result->stored_bytes += j->bytes;
    pthread_mutex_lock(&f->lock);
    j->state = JOB_READY;
    j->part->jobs++;
    pthread_cond_signal(&f->work);
    pthread_mutex_unlock(&f->lock);
    return check_on(f, e);
}

static int read_part(struct fetch *f, struct fetch_part *p, const struct part_file *part,
                     struct err *e)
{
    int rc = 0;
    const struct wanted *w = p->wanted;
    for (size_t i = 0; rc == 0 && i < p->wanted_count;) {
        struct job *j = free_job(f);
        j->part = p;
        j->wanted = &w[i];
        do {
            j->bytes += w[i].block.stored_bytes;
            j->count++;
            i++;
        } while (i < p->wanted_count &&
                 w[i - 1].block.offset + w[i - 1].block.stored_bytes == w[i].block.offset &&
                 j->bytes + w[i].block.stored_bytes <= FETCH_JOB_BYTES);
        rc = read_job(f, part, j, e);
    }
    return rc;
}

static void lose_pages(struct fetch *f, const struct fetch_part *p, const struct wanted *w)
{
    for (size_t i = 0; i < w->claim_count; i++)
        fetch_set_bit(f->lost, p->claims[w->first_claim + i].page);
}

/* The blocks that failed, one by one from whoever has them whole. */
static int mend_part(struct fetch *f, struct fetch_part *p, struct err *e)
{
    OWN_BLOCK_READER struct block_reader *r = NULL;
    int rc = p->failed_count ? block_reader_new(&r, e) : 0;
    for (size_t i = 0; rc == 0 && i < p->failed_count; i++) {
        const struct wanted *w = p->failed[i];
        const uint8_t *raw;
        rc = pool_block(f->o->pool, p->ref, w->index, r, &raw, e);
        if (rc == 0)
            rc = put_pages(f, raw, p->claims + w->first_claim, w->claim_count, e);
        else if (f->o->salvage && rc != ERR_CANCELLED) {
            lose_pages(f, p, w);
            rc = 0;
        }
    }
    p->failed_count = 0;
    return rc;
}

/* Waits for a part's blocks. The pool may have another part open afterwards. */
static int finish_part(struct fetch *f, struct fetch_part *p, struct err *e)
{
    wait_for_jobs(f, p);
    int rc = check_on(f, e);
    return rc ? rc : mend_part(f, p, e);
}

static int fetch_part(struct fetch *f, struct fetch_part *p, const struct part_ref *ref,
                      struct err *e)
{
    const struct part_file *part;
    int rc = finish_part(f, p, e); /* the one before the last */
    if (rc)
        return rc;
    p->ref = ref;
    p->wanted_count = p->claim_count = 0;
    rc = pool_part(f->o->pool, ref, &part, e);
    if (rc && rc != ERR_CANCELLED && f->o->salvage) {
        f->doubtful = true; /* which pages it had, nobody knows */
        return 0;
    }
    if (rc)
        return rc;
    snprintf(p->path, sizeof p->path, "%s", part->path);
    rc = fetch_claim(f, p, part->meta, e);
    for (size_t i = 0; rc == 0 && f->doubtful && i < p->wanted_count; i++)
        lose_pages(f, p, &p->wanted[i]);
    return rc ? rc : read_part(f, p, part, e);
}

static int fetch_parts(struct fetch *f, struct err *e)
{
    size_t count = f->o->snapshot->part_count;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = fetch_part(f, &f->parts[i % FETCH_PARTS], &f->o->snapshot->parts[count - 1 - i], e);
    for (size_t i = 0; rc == 0 && i < FETCH_PARTS; i++)
        rc = finish_part(f, &f->parts[(count + i) % FETCH_PARTS], e);
    return rc;
}

/* ---- beginning and end ---- */

static int start(struct fetch *f, struct err *e)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    f->bits = mem_alloc((size_t)(f->o->entry->image.page_count / 8 + 1), 1);
    if (f->o->base_fd)
        f->copied = malloc(FETCH_JOB_BYTES);
    if (f->o->salvage && !(f->lost = mem_alloc((size_t)(f->o->entry->image.page_count / 8 + 1), 1)))
        return err_nomem(e);
    if (!f->bits || (f->o->base_fd && !f->copied))
        return err_nomem(e);
    for (size_t i = 0; i < FETCH_JOBS; i++)
        if (!(f->jobs[i].data = malloc(FETCH_JOB_BYTES)))
            return err_nomem(e);
    unsigned want = (unsigned)MIN(MAX(cores, 1L), (long)FETCH_THREADS_MAX);
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
    for (size_t i = 0; i < FETCH_JOBS; i++)
        free(f->jobs[i].data);
    for (size_t i = 0; i < FETCH_PARTS; i++) {
        free(f->parts[i].wanted);
        free(f->parts[i].claims);
        free(f->parts[i].failed);
    }
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
        if (page == f->skip_page || (fetch_has_bit(f->bits, page) && !fetch_has_bit(f->lost, page)))
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
    if (f->sum == n->image.sum)
        return 0;
    err_set(e, ERR_DAMAGED, n->path,
            "%s cannot be rebuilt: its image sum is %016" PRIx64 ", not %016" PRIx64, n->path,
            f->sum, n->image.sum);
    return err_hint(e, "an earlier one may be whole: `syncd snapshots`, then --snapshot ID");
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
    if (rc == 0)
        rc = fetch_parts(&f, e);
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
