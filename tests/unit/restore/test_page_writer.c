/* Where pages go, and when the disk is told to begin: only with what is whole. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "restore/page_writer.h"
#include "snapshot/entry.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"

#define PAGE 4096u
#define STRETCH_PAGES (8u * 1024 * 1024 / PAGE)
#define PAGES (2 * STRETCH_PAGES + 10)

static off_t begun_at[16];
static size_t begun;

int sync_file_range(int fd, off_t offset, off_t n, unsigned flags)
{
    assert_true(fd >= 0 && n == 8 * 1024 * 1024 && flags == SYNC_FILE_RANGE_WRITE);
    assert_true(begun < 16);
    begun_at[begun++] = offset;
    errno = ENOSYS; /* as on a file system that cannot; nobody minds */
    return -1;
}

static int begin(struct page_writer *w, uint64_t skip_page)
{
    static char path[] = "/db";
    struct entry n = {.type = ENTRY_IMAGE, .path = path};
    n.image.page_shift = 12;
    n.image.page_count = PAGES;
    int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    assert_true(fd >= 0);
    begun = 0;
    assert_int_equal(page_writer_begin(fd, &n, skip_page, w, NULL), 0);
    return fd;
}

static void put(struct page_writer *w, uint64_t first, size_t count)
{
    static uint8_t data[256 * PAGE];
    while (count > 0) {
        size_t n = count < 256 ? count : 256;
        for (size_t i = 0; i < n; i++)
            memset(data + i * PAGE, (int)((first + i) % 251), PAGE);
        assert_int_equal(page_writer_put(w, first, data, n, NULL), 0);
        first += n;
        count -= n;
    }
}

static void assert_content(int fd)
{
    uint8_t page[PAGE];
    for (uint64_t i = 0; i < PAGES; i++) {
        assert_int_equal(io_pread_full(fd, page, PAGE, i * PAGE), PAGE);
        assert_int_equal(page[0], i % 251);
        assert_int_equal(page[PAGE - 1], i % 251);
    }
}

static void test_in_order(void **state)
{
    (void)state;
    struct page_writer w;
    int fd = begin(&w, UINT64_MAX);
    put(&w, 0, STRETCH_PAGES - 1);
    assert_int_equal(begun, 0);
    put(&w, STRETCH_PAGES - 1, 2); /* over the border */
    assert_int_equal(begun, 1);
    assert_int_equal(begun_at[0], 0);
    put(&w, STRETCH_PAGES + 1, PAGES - STRETCH_PAGES - 1);
    assert_int_equal(begun, 3);
    assert_int_equal(begun_at[2], 16 * 1024 * 1024);
    assert_content(fd);
    page_writer_end(&w);
    close(fd);
}

/* Newest part first: scattered pages, and what lies between them only later. */
static void test_scattered_wait(void **state)
{
    (void)state;
    struct page_writer w;
    int fd = begin(&w, UINT64_MAX);
    for (uint64_t i = 0; i < PAGES; i += 2)
        put(&w, i, 1);
    assert_int_equal(begun, 0);
    for (uint64_t i = 1; i < PAGES; i += 2)
        put(&w, i, 1);
    assert_int_equal(begun, 3);
    assert_content(fd);
    page_writer_end(&w);
    close(fd);
}

static void test_page_that_never_comes(void **state)
{
    (void)state;
    struct page_writer w;
    uint64_t skip = STRETCH_PAGES + 7;
    int fd = begin(&w, skip);
    put(&w, 0, skip);
    assert_int_equal(begun, 1);
    put(&w, skip + 1, 2 * STRETCH_PAGES - skip - 1);
    assert_int_equal(begun, 2);
    page_writer_end(&w);
    close(fd);
}

static void test_nothing_is_written_without_a_file(void **state)
{
    (void)state;
    struct page_writer w;
    struct entry n = {.type = ENTRY_IMAGE};
    n.image.page_shift = 12;
    n.image.page_count = PAGES;
    begun = 0;
    assert_int_equal(page_writer_begin(-1, &n, UINT64_MAX, &w, NULL), 0);
    put(&w, 0, PAGES);
    assert_int_equal(begun, 0);
    page_writer_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_in_order),
                                       cmocka_unit_test(test_scattered_wait),
                                       cmocka_unit_test(test_page_that_never_comes),
                                       cmocka_unit_test(test_nothing_is_written_without_a_file)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
