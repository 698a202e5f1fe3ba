#include "tests/unit/transport/contract.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "syncd/base/buf.h"
#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "transport/open.h"
#include "transport/store.h"

#define ok(call)                                                                                   \
    do {                                                                                           \
        if ((call) != 0)                                                                           \
            fail_msg("%s: %s", #call, e.message);                                                  \
    } while (0)

void contract_fill(uint8_t *p, size_t n, uint64_t seed)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
    for (size_t i = 0; i < n; i++) {
        if (i % 8 == 0)
            x = x * 6364136223846793005u + 1442695040888963407u;
        p[i] = (uint8_t)(x >> (8 * (i % 8)));
    }
}

static void put(struct store *s, const char *path, const void *p, size_t n)
{
    struct err e = ERR_INIT;
    struct store_file *f;
    ok(store_create(s, path, &f, &e));
    ok(store_write(f, p, n, &e));
    ok(f->store->ops->sync(f, &e));
    ok(store_close_file(f, &e));
}

/* Compares the file as this machine sees it, not through the store under test. */
static void assert_file(const struct contract *c, const char *path, const void *p, size_t n)
{
    struct err e = ERR_INIT;
    OWN_BUF struct buf b = BUF_INIT;
    OWN_MEM char *full = io_path(c->root, path);
    ok(io_read_file(full, n + 1, &b, &e));
    assert_int_equal(b.len, n);
    assert_true(n == 0 || memcmp(b.data, p, n) == 0);
}

static bool there(const struct contract *c, const char *path)
{
    OWN_MEM char *full = io_path(c->root, path);
    return access(full, F_OK) == 0;
}

void contract_publish(void **state)
{
    struct contract *c = *state;
    struct err e = ERR_INIT;
    struct store_file *f;
    static uint8_t data[300000];
    contract_fill(data, sizeof data, 1);
    ok(store_make_dir(c->store, "tmp", &e));
    ok(store_make_dir(c->store, "src", &e));
    ok(store_create(c->store, "tmp/a", &f, &e));
    for (size_t i = 0; i < sizeof data; i += 100000)
        ok(store_write(f, data + i, 100000, &e));
    int64_t mtime_us = INT64_C(1700000000) * US_PER_S + 654321;
    ok(store_publish(f, "tmp/a", "src/1-2.snap", mtime_us, &e));
    assert_file(c, "src/1-2.snap", data, sizeof data);
    assert_false(there(c, "tmp/a"));
    ok(store_close_file(f, &e));

    struct store_stat st;
    ok(store_stat(c->store, "src/1-2.snap", &st, &e));
    assert_int_equal(st.kind, STORE_FILE);
    assert_true(st.size_bytes == sizeof data);
    assert_true(st.mtime_us / c->mtime_grain_us == mtime_us / c->mtime_grain_us);
    ok(store_set_mtime(c->store, "src/1-2.snap", mtime_us + 60 * US_PER_S, &e));
    ok(store_stat(c->store, "src/1-2.snap", &st, &e));
    assert_true(st.mtime_us / c->mtime_grain_us == (mtime_us + 60 * US_PER_S) / c->mtime_grain_us);
    ok(store_remove(c->store, "src/1-2.snap", &e));
    assert_false(there(c, "src/1-2.snap"));
}

void contract_names_are_write_once(void **state)
{
    struct contract *c = *state;
    struct err e = ERR_INIT;
    struct store_file *f;
    put(c->store, "old", "first", 5);
    put(c->store, "new", "second", 6);
    assert_int_equal(store_create(c->store, "old", &f, &e), ERR_EXISTS);
    assert_int_equal(store_rename(c->store, "new", "old", &e), ERR_EXISTS);
    assert_true(strstr(e.message, "old") != NULL);
    ok(store_create(c->store, "third", &f, &e));
    ok(store_write(f, "third", 5, &e));
    assert_int_equal(store_publish(f, "third", "old", -1, &e), ERR_EXISTS);
    ok(store_close_file(f, &e));
    assert_int_equal(store_write_file(c->store, "old", "fourth", 6, &e), ERR_EXISTS);
    assert_file(c, "old", "first", 5);
    assert_file(c, "new", "second", 6);
    assert_file(c, "third", "third", 5);
    ok(store_rename(c->store, "new", "newer", &e));
    assert_false(there(c, "new"));
    assert_file(c, "newer", "second", 6);
}

void contract_read_anywhere(void **state)
{
    struct contract *c = *state;
    struct err e = ERR_INIT;
    struct store_file *f;
    enum { SIZE = 1500001 };
    static uint8_t data[SIZE], got[SIZE + 1];
    contract_fill(data, SIZE, 2);
    put(c->store, "f", data, SIZE);
    ok(store_open(c->store, "f", &f, &e));
    static const struct {
        size_t offset, n;
    } reads[] = {{0, 262144},       {262144, 262144}, {524288, 1},   {524289, 65536},
                 {SIZE - 10, 10},   {SIZE - 10, 64},  {SIZE, 16},    {SIZE + 1000000, 16},
                 {7, 13},           {0, SIZE + 1},    {1000000, 0},  {100, 1000000},
                 {1000100, 500000}, {90000, 30000},   {130000, 4096}};
    for (size_t i = 0; i < ARRAY_LEN(reads); i++) {
        size_t at = reads[i].offset, n = 999, left = at < SIZE ? SIZE - at : 0;
        memset(got, 0xee, sizeof got);
        ok(store_read_at(f, at, got, reads[i].n, &n, &e));
        assert_int_equal(n, MIN(left, reads[i].n));
        assert_true(n == 0 || memcmp(got, data + at, n) == 0);
    }
    ok(store_close_file(f, &e));
}

void contract_write_sizes(void **state)
{
    struct contract *c = *state;
    struct err e = ERR_INIT;
    struct store_file *f;
    enum { SIZE = 5000000 };
    uint8_t *data = malloc(SIZE);
    assert_non_null(data);
    contract_fill(data, SIZE, 3);
    static const size_t sizes[] = {1, 4096, 29999, 30000, 30001, 0, 256 * 1024, 990000, 1234567};
    ok(store_create(c->store, "f", &f, &e));
    size_t done = 0;
    for (size_t i = 0; done < SIZE; i++) {
        size_t n = MIN(sizes[i % ARRAY_LEN(sizes)], SIZE - done);
        ok(store_write(f, data + done, n, &e));
        done += n;
    }
    ok(store_publish(f, "f", "g", -1, &e));
    assert_file(c, "g", data, SIZE);
    ok(store_close_file(f, &e));
    ok(store_create(c->store, "empty", &f, &e));
    ok(store_publish(f, "empty", "empty2", -1, &e));
    ok(store_close_file(f, &e));
    assert_file(c, "empty2", "", 0);
    free(data);
}

struct seen {
    size_t files, folders, limit;
    uint64_t bytes;
    bool strange;
};

static int see(void *arg, const char *name, const struct store_stat *st, struct err *e)
{
    struct seen *seen = arg;
    seen->files += st->kind == STORE_FILE;
    seen->folders += st->kind == STORE_DIR;
    seen->bytes += st->kind == STORE_FILE ? st->size_bytes : 0;
    if (!store_name_ok(name, strlen(name)))
        seen->strange = true;
    if (seen->limit && seen->files == seen->limit)
        return err_set(e, ERR_REFUSED, name, "enough");
    return 0;
}

void contract_listing(void **state)
{
    struct contract *c = *state;
    struct err e = ERR_INIT;
    enum { FILES = 700 };
    char path[512];
    ok(store_make_dir(c->store, "d", &e));
    struct seen seen = {0};
    ok(store_list(c->store, "d", see, &seen, &e));
    assert_int_equal(seen.files + seen.folders, 0);
    for (int i = 0; i < FILES; i++) { /* made behind the store's back: it is quicker */
        snprintf(path, sizeof path, "%s/d/%d-%0200d", c->root, i, i);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fprintf(f, "%03d", i);
        fclose(f);
    }
    snprintf(path, sizeof path, "%s/d/folder", c->root);
    assert_int_equal(mkdir(path, 0700), 0);
    ok(store_list(c->store, "d", see, &seen, &e));
    assert_int_equal(seen.files, FILES);
    assert_int_equal(seen.folders, 1);
    assert_int_equal(seen.bytes, 3 * FILES);
    assert_false(seen.strange);
    seen = (struct seen){0};
    ok(store_list(c->store, "", see, &seen, &e));
    assert_int_equal(seen.folders, 1);
    seen = (struct seen){.limit = 10};
    assert_int_equal(store_list(c->store, "d", see, &seen, &e), ERR_REFUSED);
    assert_int_equal(seen.files, 10);
    assert_string_equal(e.message, "enough");
    struct store_stat st; /* the store goes on working after a listing that was cut short */
    ok(store_stat(c->store, "d", &st, &e));
    assert_int_equal(st.kind, STORE_DIR);
}

void contract_missing_things(void **state)
{
    struct contract *c = *state;
    struct err e = ERR_INIT;
    struct store_stat st;
    struct store_file *f;
    OWN_BUF struct buf b = BUF_INIT;
    struct seen seen = {0};
    assert_int_equal(store_stat(c->store, "no", &st, &e), ERR_NOT_FOUND);
    assert_true(strstr(e.message, "no") != NULL && strstr(e.message, "w1") != NULL);
    assert_int_equal(store_list(c->store, "no", see, &seen, &e), ERR_NOT_FOUND);
    assert_int_equal(store_open(c->store, "no", &f, &e), ERR_NOT_FOUND);
    assert_int_equal(store_create(c->store, "no/x", &f, &e), ERR_NOT_FOUND);
    assert_int_equal(store_remove(c->store, "no", &e), ERR_NOT_FOUND);
    assert_int_equal(store_rename(c->store, "no", "yes", &e), ERR_NOT_FOUND);
    if (!c->lenient) {
        assert_int_equal(store_set_mtime(c->store, "no", 0, &e), ERR_NOT_FOUND);
        assert_int_equal(store_make_dir(c->store, "no/deeper", &e), ERR_NOT_FOUND);
    }
    assert_int_equal(store_read_file(c->store, "no", 10, &b, &e), ERR_NOT_FOUND);
    ok(store_close_file(NULL, &e));
    ok(store_make_dir(c->store, "d", &e));
    ok(store_make_dir(c->store, "d", &e)); /* an existing one is fine */
    put(c->store, "file", "x", 1);
    assert_int_not_equal(store_make_dir(c->store, "file", &e), 0);
}

void contract_paths_stay_inside(void **state)
{
    struct contract *c = *state;
    struct err e = ERR_INIT;
    struct store_file *f;
    char name[300];
    memset(name, 'x', 256);
    name[256] = '\0';
    const char *bad[] = {"..", ".", "../x", "a/..", "/etc", "a//b", "a/b/c", "a/", "", name};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(store_create(c->store, bad[i], &f, &e), ERR_INTERNAL);
        assert_int_equal(store_remove(c->store, bad[i], &e), ERR_INTERNAL);
        assert_int_equal(store_rename(c->store, "x", bad[i], &e), ERR_INTERNAL);
    }
    name[255] = '\0';
    put(c->store, name, "x", 1);
    assert_true(there(c, name));
}

void contract_whole_files(void **state)
{
    struct contract *c = *state;
    struct err e = ERR_INIT;
    OWN_BUF struct buf b = BUF_INIT;
    static uint8_t data[200000];
    contract_fill(data, sizeof data, 4);
    ok(store_write_file(c->store, "syncd.repo", data, sizeof data, &e)); /* makes tmp/ */
    assert_file(c, "syncd.repo", data, sizeof data);
    struct seen seen = {0};
    ok(store_list(c->store, "tmp", see, &seen, &e));
    assert_int_equal(seen.files, 0);
    buf_put_str(&b, "kept");
    ok(store_read_file(c->store, "syncd.repo", sizeof data, &b, &e));
    assert_int_equal(b.len, 4 + sizeof data);
    assert_memory_equal(b.data, "kept", 4);
    assert_memory_equal(b.data + 4, data, sizeof data);
    assert_int_equal(store_read_file(c->store, "syncd.repo", sizeof data - 1, &b, &e), ERR_LIMIT);
    assert_int_equal(b.len, 4 + sizeof data);
    assert_int_equal(store_write_file(c->store, "syncd.repo", "x", 1, &e), ERR_EXISTS);
    ok(store_list(c->store, "tmp", see, &seen, &e));
    assert_int_equal(seen.files, 0);
    assert_file(c, "syncd.repo", data, sizeof data);
    ok(store_write_file(c->store, "empty", "", 0, &e));
    buf_reset(&b);
    ok(store_read_file(c->store, "empty", 0, &b, &e));
    assert_int_equal(b.len, 0);
}

void contract_modes(void **state)
{
    struct contract *c = *state;
    struct err e = ERR_INIT;
    struct stat st;
    char path[512];
    if (c->lenient)
        return;
    ok(store_make_dir(c->store, "d", &e));
    put(c->store, "d/f", "x", 1);
    snprintf(path, sizeof path, "%s/d", c->root);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    snprintf(path, sizeof path, "%s/d/f", c->root);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
}

void contract_space_and_root(void **state)
{
    struct contract *c = *state;
    struct err e = ERR_INIT;
    struct store_space space = {0};
    struct store_stat st;
    if (c->store->abilities.space) {
        ok(store_space(c->store, &space, &e));
        assert_true(space.total_bytes > 0 && space.free_bytes <= space.total_bytes);
    } else {
        assert_int_equal(store_space(c->store, &space, &e), ERR_UNSUPPORTED);
    }
    if (c->lenient) /* it would not notice at once */
        return;
    assert_int_equal(rmdir(c->root), 0);
    assert_int_equal(store_stat(c->store, "", &st, &e), ERR_NOT_FOUND);
    ok(store_make_root(c->store, &e));
    ok(store_make_root(c->store, &e));
    ok(store_stat(c->store, "", &st, &e));
    assert_int_equal(st.kind, STORE_DIR);
}

void contract_two_files_at_once(void **state)
{
    struct contract *c = *state;
    struct err e = ERR_INIT;
    struct store_file *a, *b, *r;
    enum { SIZE = 700000 };
    static uint8_t data[2][SIZE], got[SIZE];
    contract_fill(data[0], SIZE, 5);
    contract_fill(data[1], SIZE, 6);
    put(c->store, "r", data[0], SIZE);
    ok(store_create(c->store, "a", &a, &e));
    ok(store_create(c->store, "b", &b, &e));
    ok(store_open(c->store, "r", &r, &e));
    size_t n, read = 0;
    for (size_t i = 0; i < SIZE; i += 70000) {
        struct store_stat st;
        ok(store_write(a, data[0] + i, 70000, &e));
        ok(store_read_at(r, read, got + read, 65536, &n, &e));
        read += n;
        ok(store_write(b, data[1] + i, 70000, &e));
        ok(store_stat(c->store, "r", &st, &e));
    }
    assert_memory_equal(got, data[0], read);
    ok(store_publish(a, "a", "a2", -1, &e));
    ok(store_publish(b, "b", "b2", -1, &e));
    ok(store_close_file(a, &e));
    ok(store_close_file(b, &e));
    ok(store_close_file(r, &e));
    assert_file(c, "a2", data[0], SIZE);
    assert_file(c, "b2", data[1], SIZE);
}
