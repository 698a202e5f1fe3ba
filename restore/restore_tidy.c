/* A restore that ends without anything in its folders leaves no folders either. */
#include <errno.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "restore/restore_internal.h"
#include "syncd/base/mem.h"

#define WALK_FILES 16 /* descriptors of one walk */

/* Entries come in the order of their paths: what is below a noted folder follows it. */
static bool is_noted(const struct restoring *r, const char *path)
{
    const char *last = r->made_count ? r->made[r->made_count - 1] : NULL;
    size_t n = last ? strlen(last) : 0;
    return last && strncmp(path, last, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

int restore_note_made(struct restoring *r, const char *path, size_t n, struct err *e)
{
    if (!r->p->go_on || n == 0 || is_noted(r, path))
        return 0;
    if (mem_grow(&r->made, &r->made_cap, r->made_count + 1, sizeof *r->made))
        return err_nomem(e);
    r->made[r->made_count] = strndup(path, n);
    if (!r->made[r->made_count])
        return err_nomem(e);
    r->made_count++;
    return 0;
}

int restore_note_target(struct restoring *r, struct err *e)
{
    const char *path = r->p->target;
    for (size_t n = 1; path[n - 1]; n++) {
        if (path[n] != '/' && path[n] != '\0')
            continue;
        OWN_MEM char *part = strndup(path, n);
        struct stat st;
        if (!part)
            return err_nomem(e);
        if (stat(part, &st) < 0 && errno == ENOENT)
            return restore_note_made(r, path, n, e);
    }
    return 0;
}

static int remove_empty(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)at;
    if (type == FTW_DP)
        rmdir(path); /* one that holds something stays */
    return 0;
}

void restore_tidy(struct restoring *r)
{
    for (size_t i = r->made_count; i > 0; i--)
        nftw(r->made[i - 1], remove_empty, WALK_FILES, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

void restore_made_free(struct restoring *r)
{
    for (size_t i = 0; i < r->made_count; i++)
        free(r->made[i]);
    free(r->made);
}
