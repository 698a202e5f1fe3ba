#include "restore/drill_dump.h"

#include <stdlib.h>
#include <unistd.h>

#include "restore/dump_details.h"
#include "snapshot/dump_summary.h"
#include "snapshot/entry.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/base/process.h"

struct drill_dump {
    struct dump_summary *summary;
    struct process lister;
    int fd; /* its stdin; -1: it has seen enough, or there is none */
    bool listing;
};

int drill_dump_begin(struct drill_dump **ret, struct err *e)
{
    static const char *const argv[] = {"pg_restore", "--list", "--format=custom", NULL};
    struct drill_dump *d = mem_alloc(1, sizeof *d);
    OWN_FD int read_fd = -1;
    if (!d)
        return err_nomem(e);
    *d = (struct drill_dump){.fd = -1, .lister = PROCESS_NONE, .summary = dump_summary_new()};
    int rc = d->summary ? process_pipe(&read_fd, &d->fd, e) : err_nomem(e);
    if (rc == 0)
        rc = process_start(argv, NULL, read_fd, -1, &d->lister, e);
    d->listing = rc == 0;
    if (rc == ERR_NOT_FOUND) {
        mem_closep(&d->fd);
        rc = 0;
    }
    if (rc)
        drill_dump_free(d);
    else
        *ret = d;
    return rc;
}

void drill_dump_free(struct drill_dump *d)
{
    if (!d)
        return;
    mem_closep(&d->fd);
    process_end(&d->lister);
    dump_summary_free(d->summary);
    free(d);
}

void drill_dump_feed(struct drill_dump *d, const void *p, size_t n)
{
    dump_summary_feed(d->summary, p, n);
    /* It ends when it has read the table of contents. */
    if (d->fd >= 0 && io_write_all(d->fd, p, n) < 0)
        mem_closep(&d->fd);
}

static int compare_rows(const struct drill_dump *d, const struct entry *n, struct err *e)
{
    OWN_DUMP_DETAILS struct dump_details details = {0};
    int rc = dump_details_read(n, &details, e);
    if (rc)
        return rc;
    const json_t *recorded = json_object_get(details.json, "rows");
    if (json_is_null(recorded) || json_equal(recorded, dump_summary_rows(d->summary)))
        return 0;
    return err_set(e, ERR_DAMAGED, n->path, "%s: its tables have other rows than are recorded",
                   n->path);
}

int drill_dump_end(struct drill_dump *d, const struct entry *n, bool *ret_listed, struct err *e)
{
    struct err own = ERR_INIT;
    mem_closep(&d->fd);
    *ret_listed = false;
    int rc = d->listing ? process_wait(&d->lister, &own) : 0;
    if (rc)
        return err_set(e, ERR_DAMAGED, n->path, "%s: %s", n->path, own.message);
    *ret_listed = d->listing;
    rc = dump_summary_end(d->summary, &own);
    if (rc == ERR_VERSION) /* pg_restore knows it */
        return 0;
    if (rc)
        return err_set(e, ERR_DAMAGED, n->path, "%s: %s", n->path, own.message);
    return compare_rows(d, n, e);
}
