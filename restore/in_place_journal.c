#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "restore/in_place_internal.h"
#include "snapshot/entry.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

#define JOURNAL "journal"
#define JOURNAL_HEAD "syncd-restore 1\n"
#define JOURNAL_MAX (1u << 30)

void in_place_list_free(struct in_place_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        free(l->items[i].path);
    free(l->items);
    *l = (struct in_place_list){0};
}

int in_place_list_add(struct in_place_list *l, char kind, const char *path, struct err *e)
{
    char *copy = strdup(path);
    if (!copy || mem_grow(&l->items, &l->cap, l->count + 1, sizeof *l->items)) {
        free(copy);
        return err_nomem(e);
    }
    l->items[l->count++] = (struct in_place_item){kind, copy};
    return 0;
}

void in_place_folder_close(struct in_place_folder *f)
{
    mem_closep(&f->fd);
    free(f->shown);
    f->shown = NULL;
}

/* By way of the descriptor: whatever the names on the way mean by now. */
static void path_in(const struct in_place_folder *f, const char *name, char ret[static 64])
{
    snprintf(ret, 64, "/proc/self/fd/%d/%s", f->fd, name);
}

/* Records of one kind's letter, the path and a NUL. */
int in_place_journal_write(const struct in_place_folder *f, const struct in_place_list *l,
                           struct err *e)
{
    OWN_BUF struct buf text = BUF_INIT;
    char path[64];
    buf_put_str(&text, JOURNAL_HEAD);
    for (size_t i = 0; i < l->count; i++) {
        buf_put_u8(&text, (uint8_t)l->items[i].kind);
        buf_put(&text, l->items[i].path, strlen(l->items[i].path) + 1);
    }
    path_in(f, JOURNAL, path);
    return text.bad ? err_nomem(e) : io_replace_file(path, text.data, text.len, 0600, e);
}

static int parse(const struct buf *text, const char *shown, struct in_place_list *ret,
                 struct err *e)
{
    size_t at = strlen(JOURNAL_HEAD);
    bool good = text->len >= at && memcmp(text->data, JOURNAL_HEAD, at) == 0;
    while (good && at < text->len) {
        const char *record = (const char *)text->data + at;
        size_t n = strnlen(record, text->len - at);
        good = at + n < text->len && n > 2 && n <= ENTRY_PATH_MAX + 1 && record[1] == '/' &&
               strchr("dfsblk", record[0]);
        if (good && in_place_list_add(ret, record[0], record + 1, e))
            return ERR_NOMEM;
        at += n + 1;
    }
    return good ? 0 : err_set(e, ERR_DAMAGED, shown, "%s/" JOURNAL " is damaged", shown);
}

int in_place_journal_read(const struct in_place_folder *f, struct in_place_list *ret, struct err *e)
{
    OWN_BUF struct buf text = BUF_INIT;
    char path[64];
    path_in(f, JOURNAL, path);
    int rc = io_read_file(path, JOURNAL_MAX, &text, e);
    return rc ? rc : parse(&text, f->shown, ret, e);
}

int in_place_journal_end(const struct in_place_folder *f, struct err *e)
{
    if (renameat(f->fd, JOURNAL, f->fd, "finished") < 0 || io_fsync(f->fd) < 0)
        return err_sys(e, errno, f->shown, "cannot close the journal in %s", f->shown);
    return 0;
}

void in_place_journal_drop(const struct in_place_folder *f)
{
    unlinkat(f->fd, JOURNAL, 0);
    unlinkat(f->fd, JOURNAL ".tmp", 0);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)at;
    return kind == FTW_DP ? rmdir(path) : unlink(path);
}

int in_place_remove_new(const struct in_place_folder *f, struct err *e)
{
    char path[64];
    path_in(f, "new", path);
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) < 0 && errno != ENOENT)
        return err_sys(e, errno, f->shown, "cannot remove %s/new", f->shown);
    return 0;
}
