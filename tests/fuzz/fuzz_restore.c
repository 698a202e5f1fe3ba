/* Any bytes as the entry list of a snapshot whose digests are all right, restored into a folder:
 * whatever the names, links, runs and images in it say, nothing beside that folder changes. The
 * first byte chooses the options. */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "restore/restore.h"
#include "snapshot/pool.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "transport/open.h"
#include "transport/store.h"

#define SOURCE "s"
#define TIME_S INT64_C(1700000000)
#define LIST_MAX 65536
#define IMAGE_ID 7          /* 512-byte pages of a database with one table */
#define SUM_HERE "SUMSUMSU" /* the first one in the list becomes that image's right sum */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    char root[64]; /* holds repo/, jail/target/, jail/outside */
    char target[96];
    struct repository repository;
    struct store *store;
    struct buf pages;
    uint64_t page_count, sum;
} house;

static void must(bool ok)
{
    if (!ok)
        abort();
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)at;
    return kind == FTW_DP ? rmdir(path) : unlink(path);
}

static void remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void remove_house(void)
{
    store_close(house.store);
    remove_tree(house.root);
    buf_free(&house.pages);
}

static void make_pages(void)
{
    sqlite3 *db;
    sqlite3_int64 size = 0;
    must(sqlite3_open(":memory:", &db) == SQLITE_OK);
    must(sqlite3_exec(db, "PRAGMA page_size=512; CREATE TABLE t(x); INSERT INTO t VALUES(1)", NULL,
                      NULL, NULL) == SQLITE_OK);
    unsigned char *image = sqlite3_serialize(db, "main", &size, 0);
    must(image != NULL);
    buf_put(&house.pages, image, (size_t)size);
    house.page_count = (uint64_t)size / 512;
    sqlite3_free(image);
    sqlite3_close(db);
    uint64_t seed = digest_page_seed(house.repository.seed);
    for (uint64_t i = 0; i < house.page_count; i++)
        house.sum += digest_page(seed, i, house.pages.data + i * 512, 512).summand;
}

static void begin(void)
{
    struct store_options o = {.name = "w"};
    char path[128], url[160];
    must(digest_init(NULL) == 0);
    snprintf(house.root, sizeof house.root, "/dev/shm/syncd-fuzz-restore-XXXXXX");
    must(mkdtemp(house.root) != NULL);
    atexit(remove_house);
    snprintf(house.target, sizeof house.target, "%s/jail/target", house.root);
    snprintf(path, sizeof path, "%s/repo/" SOURCE, house.root);
    must(io_make_dirs(path, 0700, NULL) == 0);
    snprintf(path, sizeof path, "%s/jail/outside", house.root);
    must(io_make_dirs(path, 0700, NULL) == 0);
    snprintf(url, sizeof url, "file://%s/repo", house.root);
    must(url_parse(url, &o.url, NULL) == 0 && store_open_url(&o, &house.store, NULL) == 0);
    memset(house.repository.seed, 1, SEED_SIZE);
    memset(house.repository.id, 2, REPO_ID_SIZE);
    make_pages();
}

static void put_block_head(struct buf *meta, enum block_kind kind, const struct buf *raw,
                           uint64_t count)
{
    uint8_t digest[DIGEST_SIZE];
    digest_blake2b(raw->data, raw->len, digest);
    buf_put_u8(meta, kind);
    buf_put_u8(meta, BLOCK_PLAIN);
    buf_put_varint(meta, raw->len);
    buf_put_varint(meta, raw->len);
    buf_put(meta, digest, sizeof digest);
    buf_put_varint(meta, count);
}

static void put_pages(struct buf *meta)
{
    uint64_t seed = digest_page_seed(house.repository.seed);
    put_block_head(meta, BLOCK_PAGES, &house.pages, house.page_count);
    buf_put_u64(meta, IMAGE_ID);
    buf_put_u8(meta, 9);
    buf_put_varint(meta, 0);
    for (uint64_t i = 1; i < house.page_count; i++)
        buf_put_zigzag(meta, 1);
    for (uint64_t i = 0; i < house.page_count; i++)
        buf_put_u64(meta, digest_page(seed, i, house.pages.data + i * 512, 512).fingerprint);
}

/* Chunk 0 is the content that files may name, chunk 1 the entry list. */
static void put_chunks(struct buf *meta, struct buf *raw, const uint8_t *list, size_t n)
{
    uint8_t content[64], id[CHUNK_ID_SIZE];
    memset(content, 'c', sizeof content);
    buf_put(raw, content, sizeof content);
    buf_put(raw, list, n);
    put_block_head(meta, BLOCK_CHUNKS, raw, 2);
    digest_chunk_id(house.repository.seed, content, sizeof content, id);
    buf_put(meta, id, sizeof id);
    buf_put_varint(meta, sizeof content);
    digest_chunk_id(house.repository.seed, list, n, id);
    buf_put(meta, id, sizeof id);
    buf_put_varint(meta, n);
}

static void write_snapshot(const uint8_t *list, size_t n, struct part_ref *ret)
{
    OWN_BUF struct buf whole = BUF_INIT;
    OWN_BUF struct buf meta = BUF_INIT;
    OWN_BUF struct buf raw = BUF_INIT;
    uint8_t head[PART_HEADER_SIZE];
    char name[PART_NAME_SIZE], path[320];
    struct part_run run = {.epoch = 1, .sequence = 1, .first_chunk = 1, .count = 1};
    struct part_header h = {
        .epoch = 1, .sequence = 1, .time_us = TIME_S * 1000000, .source = SOURCE};
    memcpy(h.repository, house.repository.id, REPO_ID_SIZE);
    part_header_encode(&h, head);
    buf_put(&meta, head, sizeof head);
    buf_put_varint(&meta, 2);
    put_pages(&meta);
    put_chunks(&meta, &raw, list, n);
    buf_put_u8(&meta, 1);
    snapshot_section_encode(&(struct snapshot_section){.as_of_us = h.time_us,
                                                       .complete = true,
                                                       .entry_bytes = n,
                                                       .run_count = 1,
                                                       .runs = &run},
                            TIME_S, &meta);
    *ret = (struct part_ref){.epoch = 1, .sequence = 1, .time_s = TIME_S};
    digest_blake2b(meta.data, meta.len, ret->id);
    buf_put(&whole, head, sizeof head);
    buf_put(&whole, house.pages.data, house.pages.len);
    buf_put(&whole, raw.data, raw.len);
    buf_put(&whole, meta.data, meta.len);
    buf_put_u64(&whole, meta.len);
    buf_put(&whole, ret->id, DIGEST_SIZE);
    buf_put_str(&whole, "syncdend");
    ret->size_bytes = whole.len;
    part_name_format(ret, PART_SNAP, name);
    snprintf(path, sizeof path, "%s/repo/" SOURCE "/%s", house.root, name);
    OWN_FD int fd = io_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    must(fd >= 0 && io_write_all(fd, whole.data, whole.len) == 0);
}

static void restore(const struct part_ref *ref, uint8_t options)
{
    struct pool pool = {.repository = &house.repository, .source = SOURCE, .store_count = 1};
    OWN_LISTING struct listing listing = {0};
    OWN_SNAPSHOT struct snapshot s = {0};
    struct restore_summary sum;
    struct err e = ERR_INIT;
    must(listing_read(house.store, SOURCE, &listing, &e) == 0 && listing.count == 1);
    pool.at[0].store = house.store;
    pool.at[0].listing = &listing;
    must(pool_snapshot(&pool, ref, &s, &e) == 0); /* else this file builds no right part */
    struct restore_params p = {.pool = &pool,
                               .snapshot = &s,
                               .target = house.target,
                               .salvage = options & 1,
                               .keep_special = options & 2,
                               .skip_check = options & 4};
    if (restore_run(&p, &sum, &e) && e.message[0] == '\0')
        abort();
    pool_close(&pool);
}

static size_t names_in(const char *name)
{
    char path[128];
    size_t count = 0;
    snprintf(path, sizeof path, "%s/%s", house.root, name);
    DIR *d = opendir(path);
    must(d != NULL);
    while (readdir(d))
        count++;
    closedir(d);
    return count - 2;
}

static void clean(const struct part_ref *ref)
{
    char name[PART_NAME_SIZE], path[320];
    remove_tree(house.target);
    must(names_in("jail") == 1 && names_in("jail/outside") == 0 && names_in("") == 2);
    part_name_format(ref, PART_SNAP, name);
    snprintf(path, sizeof path, "%s/repo/" SOURCE "/%s", house.root, name);
    must(unlink(path) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t list[LIST_MAX];
    struct part_ref ref;
    if (!house.store)
        begin();
    if (size < 2 || size > LIST_MAX)
        return 0;
    memcpy(list, data + 1, size - 1);
    uint8_t *sum = memmem(list, size - 1, SUM_HERE, strlen(SUM_HERE));
    if (sum)
        le64_put(sum, house.sum);
    write_snapshot(list, size - 1, &ref);
    restore(&ref, data[0]);
    clean(&ref);
    return 0;
}
