/* Any bytes as an entry list: an error, or entries that come out the same when written again. */
#include <stdlib.h>
#include <string.h>

#include "snapshot/entry.h"
#include "syncd/base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_and_read_again(const struct entry *n)
{
    struct buf first = BUF_INIT, second = BUF_INIT;
    struct entry again;
    struct err e = ERR_INIT;
    entry_encode(n, &first);
    struct cursor c = cursor_of(first.data, first.len);
    if (first.len <= ENTRY_RECORD_MAX) {
        if (entry_decode(&c, &again, &e) || cursor_left(&c))
            abort();
        entry_encode(&again, &second);
        if (first.len != second.len || memcmp(first.data, second.data, first.len) != 0)
            abort();
        entry_free(&again);
    }
    buf_free(&first);
    buf_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cursor c = cursor_of(data, size);
    struct entry n;
    struct err e = ERR_INIT;
    while (cursor_left(&c) > 0 && entry_decode(&c, &n, &e) == 0) {
        write_and_read_again(&n);
        entry_free(&n);
    }
    return 0;
}
