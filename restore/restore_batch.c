/* Many small files: a flush of the file system for a hundred of them, and then their names. A file
 * never has its name before its bytes are durable, and a card is not worn out by two flushes a
 * file. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "restore/restore_internal.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

static void forget(struct batched *b)
{
    place_close(&b->at);
    entry_free(&b->entry);
    mem_closep(&b->fd);
    *b = (struct batched){.at.dir_fd = -1, .fd = -1};
}

void batch_drop(struct restoring *r)
{
    for (size_t i = 0; i < r->batch_count; i++) {
        unlinkat(r->batch[i].at.dir_fd, r->batch[i].tmp, 0);
        forget(&r->batch[i]);
    }
    r->batch_count = 0;
    r->batch_bytes = 0;
}

int batch_flush(struct restoring *r, struct err *e)
{
    int rc = 0;
    if (r->batch_count && syncfs(r->root_fd) < 0)
        rc = err_sys(e, errno, r->root, "cannot make the restored files durable in %s", r->root);
    for (size_t i = 0; rc == 0 && i < r->batch_count; i++) {
        struct batched *b = &r->batch[i];
        rc = placing_name(b->tmp, &b->at, e);
        if (rc)
            break;
        b->tmp[0] = '\0';
        restore_tell(r, &b->entry, &b->at, &b->file);
    }
    size_t left = 0;
    for (size_t i = 0; i < r->batch_count; i++) {
        if (r->batch[i].tmp[0])
            r->batch[left++] = r->batch[i];
        else
            forget(&r->batch[i]);
    }
    r->batch_count = left;
    r->batch_bytes = 0;
    return rc;
}

/* What restore_tell needs of the entry. */
static int remember(const struct entry *n, struct entry *ret, struct err *e)
{
    *ret = (struct entry){.type = n->type, .size = n->size, .as_of_us = n->as_of_us};
    ret->path = strdup(n->path);
    if (n->carried)
        ret->carried = strdup(n->carried);
    return ret->path && (!n->carried || ret->carried) ? 0 : err_nomem(e);
}

int batch_add(struct restoring *r, struct placing *g, struct place *at, const struct entry *n,
              const struct restored_file *f, struct err *e)
{
    struct batched *b = &r->batch[r->batch_count];
    *b = (struct batched){.file = *f, .fd = -1};
    int rc = placing_attributes(g, at, n, r->p->keep_special, &b->file.owner_differs, e);
    if (rc == 0)
        rc = remember(n, &b->entry, e);
    if (rc) {
        placing_abort(g, at);
        entry_free(&b->entry);
        return rc;
    }
    memcpy(b->tmp, g->tmp, sizeof b->tmp);
    b->at = *at;
    *at = (struct place){.dir_fd = -1};
    b->fd = TAKE_FD(g->fd);
    r->batch_count++;
    r->batch_bytes += n->size;
    return r->batch_count == BATCH_FILES || r->batch_bytes >= BATCH_BYTES ? batch_flush(r, e) : 0;
}
