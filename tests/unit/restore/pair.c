#include "tests/unit/restore/pair.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "restore/part_copies.h"
#include "snapshot/entry.h"
#include "snapshot/pipeline.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "transport/open.h"
#include "transport/store.h"

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void pair_open(struct pair *p)
{
    struct err e = ERR_INIT;
    for (size_t i = 0; i < 2; i++) {
        struct store_options o = {.name = i ? "w2" : "w1"};
        char text[128];
        snprintf(text, sizeof text, "file://%s", p->root[i]);
        ok(url_parse(text, &o.url, &e));
        ok(store_open_url(&o, &p->store[i], &e));
    }
}

void pair_close(struct pair *p)
{
    for (size_t i = 0; i < 2; i++) {
        store_close(p->store[i]);
        p->store[i] = NULL;
        listing_free(&p->listing[i]);
    }
}

int pair_setup(void **state)
{
    struct err e = ERR_INIT;
    struct pair *p = calloc(1, sizeof *p);
    *state = p;
    ok(digest_init(&e));
    repository_new("leader", &p->repository);
    p->next_sequence = 1;
    p->as_of_us = clock_now_us() - 3600 * US_PER_S;
    for (size_t i = 0; i < 2; i++) {
        snprintf(p->root[i], sizeof p->root[i], "/tmp/syncd-test-heal-XXXXXX");
        if (!mkdtemp(p->root[i]))
            return -1;
    }
    pair_open(p);
    for (size_t i = 0; i < 2; i++)
        ok(repository_create(p->store[i], &p->repository, &e));
    return 0;
}

int pair_teardown(void **state)
{
    struct pair *p = *state;
    pair_close(p);
    for (size_t i = 0; i < 2; i++)
        nftw(p->root[i], remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(p);
    return 0;
}

void pair_list(struct pair *p)
{
    struct err e = ERR_INIT;
    for (size_t i = 0; i < 2; i++) {
        listing_free(&p->listing[i]);
        ok(listing_read(p->store[i], PAIR_SOURCE, &p->listing[i], &e));
    }
}

/* ---- making snapshots ---- */

static void fill(struct pair *p, uint8_t *page, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        p->seed = p->seed * 6364136223846793005u + 1442695040888963407u;
        page[i] = (uint8_t)(p->seed >> 56);
    }
}

static void add_pages(struct pair *p, struct pipeline *pipeline)
{
    struct err e = ERR_INIT;
    uint8_t page[65536];
    uint64_t image = digest_image_id(p->repository.seed, "/data/app.db", IMAGE_SQLITE, 16);
    for (uint64_t n = 0; n < 10; n++) { /* four to a block */
        fill(p, page, sizeof page);
        uint64_t fingerprint =
            digest_page(digest_page_seed(p->repository.seed), n, page, sizeof page).fingerprint;
        /* As a bit that tips over in the leader's memory would leave it. */
        page[77] ^= p->tips_a_bit && n == 5;
        ok(pipeline_page(pipeline, image, 16, n, fingerprint, page, &e));
    }
}

static struct part_run add_entries(struct pair *p, struct pipeline *pipeline, uint64_t *ret_bytes)
{
    struct err e = ERR_INIT;
    OWN_BUF struct buf b = BUF_INIT;
    struct part_run run;
    struct entry entry = {.type = ENTRY_IMAGE,
                          .path = strdup("/data/app.db"),
                          .as_of_us = p->as_of_us,
                          .image = {.id = 1, .kind = 1, .page_shift = 16, .page_count = 10}};
    uint8_t id[CHUNK_ID_SIZE];
    entry_encode(&entry, &b);
    entry_free(&entry);
    digest_chunk_id(p->repository.seed, b.data, b.len, id);
    ok(pipeline_chunk(pipeline, id, b.data, b.len, &run, &e));
    *ret_bytes = b.len;
    return run;
}

static struct pipeline *start(struct pair *p, unsigned mask, const struct lineage *l)
{
    struct err e = ERR_INIT;
    struct pipeline *pipeline;
    struct pipeline_options o = {.epoch = 1, .next_sequence = p->next_sequence++};
    memcpy(o.repository, p->repository.id, REPO_ID_SIZE);
    snprintf(o.source, sizeof o.source, "%s", PAIR_SOURCE);
    pair_list(p);
    for (size_t i = 0; i < 2; i++) {
        if (!(mask & (1u << i)))
            continue;
        ok(store_make_dir(p->store[i], PAIR_SOURCE, &e));
        o.workers[o.worker_count].store = p->store[i];
        o.workers[o.worker_count++].holds_listed =
            listing_holds_all(&p->listing[i], l->parts, l->count);
    }
    ok(pipeline_start(&o, &pipeline, &e));
    return pipeline;
}

struct part_ref pair_backup(struct pair *p, unsigned mask, struct lineage *l)
{
    struct err e = ERR_INIT;
    struct pipeline_result r;
    p->as_of_us += 60 * US_PER_S;
    struct pipeline *pipeline = start(p, mask, l);
    add_pages(p, pipeline);
    struct snapshot_section section = {
        .as_of_us = p->as_of_us, .complete = true, .listed_count = l->count, .listed = l->parts};
    struct part_run runs[2] = {l->first_run};
    section.run_count = l->share && l->count ? 1 : 0;
    runs[section.run_count] = add_entries(p, pipeline, &section.entry_bytes);
    if (section.run_count++ == 0) {
        l->first_run = runs[0];
        l->first_bytes = section.entry_bytes;
    } else {
        section.entry_bytes += l->first_bytes;
    }
    section.runs = runs;
    ok(pipeline_finish(pipeline, &section, &r, &e));
    assert_int_equal(r.part_count, 1);
    assert_true(l->count < 64);
    l->parts[l->count++] = r.snapshot;
    free(r.parts);
    pair_list(p);
    return r.snapshot;
}

/* ---- damage marks ---- */

bool pair_is_marked(const struct pair *p, size_t at, const struct part_ref *ref)
{
    for (size_t i = 0; i < p->marked_count; i++)
        if (p->marked[i].store == p->store[at] && part_same(&p->marked[i].ref, ref))
            return true;
    return false;
}

static size_t index_of(const struct pair *p, const struct store *s)
{
    return s == p->store[1];
}

static bool is_damaged(void *arg, const struct store *s, const struct part_ref *ref)
{
    return pair_is_marked(arg, index_of(arg, s), ref);
}

static void damaged(void *arg, const struct store *s, const struct part_ref *ref,
                    const struct err *e)
{
    struct pair *p = arg;
    assert_int_not_equal(e->code, 0);
    if (pair_is_marked(p, index_of(p, s), ref))
        return;
    assert_true(p->marked_count < PAIR_MARKED_MAX);
    p->marked[p->marked_count].store = s;
    p->marked[p->marked_count++].ref = *ref;
}

static void mended(void *arg, const struct store *s, const struct part_ref *ref)
{
    struct pair *p = arg;
    for (size_t i = 0; i < p->marked_count; i++)
        if (p->marked[i].store == s && part_same(&p->marked[i].ref, ref))
            p->marked[i] = p->marked[--p->marked_count];
}

struct kept_params pair_params(struct pair *p)
{
    struct kept_params k = {.repository = &p->repository,
                            .source = PAIR_SOURCE,
                            .store_count = 2,
                            .is_damaged = is_damaged,
                            .damaged = damaged,
                            .mended = mended,
                            .arg = p};
    pair_list(p);
    for (size_t i = 0; i < 2; i++) {
        k.at[i].store = p->store[i];
        k.at[i].listing = &p->listing[i];
    }
    return k;
}

/* ---- files ---- */

struct pair_path pair_path(const struct pair *p, size_t at, const struct part_ref *ref,
                           enum part_mark mark)
{
    struct pair_path path;
    char name[PART_NAME_SIZE];
    part_name_format(ref, mark, name);
    snprintf(path.s, sizeof path.s, "%s/%s/%s", p->root[at], PAIR_SOURCE, name);
    return path;
}

struct pair_path pair_file(const struct pair *p, size_t at, const struct part_ref *ref)
{
    for (enum part_mark m = PART_SNAP; m <= PART_DEL; m++) {
        struct pair_path path = pair_path(p, at, ref, m);
        if (access(path.s, F_OK) == 0)
            return path;
    }
    return (struct pair_path){""};
}

void pair_flip(const struct pair *p, size_t at, const struct part_ref *ref, uint64_t offset)
{
    uint8_t byte;
    int fd = open(pair_file(p, at, ref).s, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

void pair_set_size(const struct pair *p, size_t at, const struct part_ref *ref, uint64_t size)
{
    assert_int_equal(truncate(pair_file(p, at, ref).s, (off_t)size), 0);
}

void pair_remove(const struct pair *p, size_t at, const struct part_ref *ref)
{
    assert_int_equal(unlink(pair_file(p, at, ref).s), 0);
}

void pair_mark(const struct pair *p, size_t at, const struct part_ref *ref, enum part_mark from,
               enum part_mark to)
{
    assert_int_equal(rename(pair_path(p, at, ref, from).s, pair_path(p, at, ref, to).s), 0);
}

static void count_damage(void *arg, size_t copy, int64_t block, const struct err *e)
{
    (void)copy;
    (void)block;
    (void)e;
    ++*(size_t *)arg;
}

bool pair_is_whole(struct pair *p, size_t at, const struct part_ref *ref)
{
    size_t found = 0;
    struct part_copies *c = NULL;
    struct part_copies_options o = {.repository = &p->repository,
                                    .source = PAIR_SOURCE,
                                    .ref = *ref,
                                    .count = 1,
                                    .copies = {{p->store[at], PART_SNAP}},
                                    .damaged = count_damage,
                                    .arg = &found};
    int rc = part_copies_open(&o, &c, NULL, NULL);
    if (rc == 0)
        rc = part_copies_read(c, NULL, NULL, NULL, NULL);
    part_copies_close(c);
    return rc == 0 && found == 0;
}

static void read_file(const struct pair *p, size_t at, const char *name, struct buf *ret)
{
    struct err e = ERR_INIT;
    char path[400];
    snprintf(path, sizeof path, "%s/%s/%s", p->root[at], PAIR_SOURCE, name);
    ok(io_read_file(path, 16 << 20, ret, &e));
}

static size_t count_names(const struct pair *p, size_t at, const char *folder)
{
    char path[400];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/%s", p->root[at], folder);
    DIR *d = opendir(path);
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

void pair_assert_equal(struct pair *p, size_t files)
{
    pair_list(p);
    for (size_t at = 0; at < 2; at++) {
        assert_int_equal(p->listing[at].count, files);
        assert_int_equal(count_names(p, at, PAIR_SOURCE), files);
        assert_int_equal(count_names(p, at, "tmp"), 0);
    }
    for (size_t i = 0; i < files; i++) {
        const struct listed_part *a = &p->listing[0].parts[i], *b = &p->listing[1].parts[i];
        char names[2][PART_NAME_SIZE];
        OWN_BUF struct buf bytes_a = BUF_INIT, bytes_b = BUF_INIT;
        part_name_format(&a->ref, a->mark, names[0]);
        part_name_format(&b->ref, b->mark, names[1]);
        assert_string_equal(names[0], names[1]);
        assert_int_not_equal(a->mark, PART_BAD);
        if (a->mark == PART_SNAP)
            assert_int_equal(a->mtime_us / US_PER_S, b->mtime_us / US_PER_S);
        read_file(p, 0, names[0], &bytes_a);
        read_file(p, 1, names[0], &bytes_b);
        assert_int_equal(bytes_a.len, bytes_b.len);
        assert_memory_equal(bytes_a.data, bytes_b.data, bytes_a.len);
    }
}

struct sync_result pair_sync(struct pair *p)
{
    struct err e = ERR_INIT;
    struct sync_params params = {.kept = pair_params(p)};
    struct sync_result r;
    ok(sync_source(&params, &r, &e));
    return r;
}

void pair_sync_to_equal(struct pair *p, size_t files)
{
    struct sync_result r = pair_sync(p);
    for (size_t i = 0; i < 2; i++)
        if (r.workers[i].err.code)
            fail_msg("%s", r.workers[i].err.message);
    assert_true(sync_is_complete(&r));
    sync_result_free(&r);
    pair_assert_equal(p, files);
    assert_int_equal(p->marked_count, 0);
}
