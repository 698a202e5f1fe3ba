/* A fuzzer's target as a plain test: every file of its corpus, then a few thousand mutations of
 * them with a seed that is printed (SYNCD_TEST_SEED repeats it). */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "syncd/base/buf.h"
#include "syncd/base/io.h"

#define MUTATIONS 4000
#define FILES_MAX 1000
#define FILE_LIMIT 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t state;

static uint64_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* A copy of exactly the size, so that the sanitizer sees a read past it. */
static void run_one(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        abort();
    if (size)
        memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void mutate_and_run(const struct buf *from)
{
    uint8_t data[FILE_LIMIT];
    size_t size = from->len < sizeof data ? from->len : sizeof data;
    if (size)
        memcpy(data, from->data, size);
    for (uint64_t n = 1 + next_random() % 4; n > 0; n--) {
        size_t at = size ? next_random() % size : 0;
        switch (next_random() % 4) {
        case 0:
            size = at;
            break;
        case 1:
            if (size < sizeof data)
                data[size++] = (uint8_t)next_random();
            break;
        case 2:
            if (size)
                data[at] = (uint8_t)next_random();
            break;
        default:
            if (size)
                data[at] ^= (uint8_t)(1u << (next_random() % 8));
        }
    }
    run_one(data, size);
}

static size_t read_corpus(const char *dir, struct buf *files)
{
    size_t count = 0;
    DIR *d = opendir(dir);
    for (struct dirent *at; d && count < FILES_MAX && (at = readdir(d));) {
        char *path = at->d_name[0] == '.' ? NULL : io_path(dir, at->d_name);
        if (path && io_read_file(path, FILE_LIMIT, &files[count], NULL) == 0)
            count++;
        free(path);
    }
    if (d)
        closedir(d);
    return count;
}

int main(int argc, char **argv)
{
    static struct buf files[FILES_MAX + 1];
    const char *seed = getenv("SYNCD_TEST_SEED");
    state = seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL);
    state |= 1;
    printf("SYNCD_TEST_SEED=%llu\n", (unsigned long long)state);
    fflush(stdout);
    if (argc != 2)
        return 2;
    size_t count = read_corpus(argv[1], files);
    if (count == 0) {
        fprintf(stderr, "%s: no corpus\n", argv[1]);
        return 1;
    }
    for (size_t i = 0; i < count; i++)
        run_one(files[i].data, files[i].len);
    for (int i = 0; i < MUTATIONS; i++)
        mutate_and_run(&files[next_random() % count]);
    for (size_t i = 0; i < count; i++)
        buf_free(&files[i]);
    printf("%zu files, %d mutations\n", count, MUTATIONS);
    return 0;
}
