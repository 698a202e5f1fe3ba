/* Any bytes as the JSON that a worker holds: syncd.repo and epoch/<n>. What is accepted comes out
 * the same when written again. */
#include <stdlib.h>
#include <string.h>

#include "snapshot/repository.h"
#include "syncd/base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void as_repository(const uint8_t *data, size_t size)
{
    struct repository first, second;
    OWN_BUF struct buf text = BUF_INIT;
    struct err e = ERR_INIT;
    memset(&first, 0, sizeof first);
    memset(&second, 0, sizeof second);
    if (repository_decode(data, size, "fuzz", &first, &e)) {
        if (e.message[0] == '\0')
            abort();
        return;
    }
    if (repository_encode(&first, &text, &e) ||
        repository_decode(text.data, text.len, "again", &second, &e) ||
        memcmp(first.id, second.id, sizeof first.id) != 0 ||
        memcmp(first.seed, second.seed, sizeof first.seed) != 0 ||
        strcmp(first.leader, second.leader) != 0)
        abort();
}

static void as_epoch(const uint8_t *data, size_t size)
{
    static struct epoch first, second;
    OWN_BUF struct buf text = BUF_INIT;
    struct err e = ERR_INIT;
    if (epoch_decode(data, size, "fuzz", &first, &e)) {
        if (e.message[0] == '\0')
            abort();
        return;
    }
    if (epoch_encode(&first, &text, &e) ||
        epoch_decode(text.data, text.len, "again", &second, &e) || first.number != second.number ||
        memcmp(first.token, second.token, sizeof first.token) != 0 ||
        first.source_count != second.source_count)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    as_repository(data, size);
    as_epoch(data, size);
    return 0;
}
