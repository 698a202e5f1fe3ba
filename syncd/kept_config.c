#include "syncd/kept_config.h"

#include <string.h>

#include "snapshot/entry.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/show.h"

static int look(void *arg, struct entry *n, struct err *e)
{
    struct entry *ret = arg;
    return n->type == ENTRY_CONFIG && ret->type == 0 ? entry_copy(n, ret, e) : 0;
}

int kept_config_find(struct pool *pool, const struct snapshot *s, struct entry *ret, struct err *e)
{
    OWN_BLOCK_READER struct block_reader *reader = NULL;
    struct entry found = {0};
    int rc = block_reader_new(&reader, e);
    if (rc == 0)
        rc = pool_entries(pool, s, reader, look, &found, e);
    if (rc == 0 && found.type == 0)
        rc = err_set(e, ERR_NOT_FOUND, pool->source, "the snapshot keeps no config");
    if (rc) {
        entry_free(&found);
        return rc;
    }
    *ret = found;
    return 0;
}

static int take(void *arg, const uint8_t id[static CHUNK_ID_SIZE], const struct part_run *at,
                const uint8_t *p, size_t n, struct err *e)
{
    struct buf *text = arg;
    (void)id;
    (void)at;
    buf_put(text, p, n);
    return text->bad ? err_nomem(e) : 0;
}

int kept_config_read(struct pool *pool, const struct snapshot *s, const struct entry *entry,
                     struct buf *ret, struct err *e)
{
    OWN_BLOCK_READER struct block_reader *reader = NULL;
    OWN_MEM struct part_run *runs = NULL;
    struct content c = {.refs = s->parts, .ref_count = s->part_count};
    if (entry->size > CONF_FILE_LIMIT)
        return err_set(e, ERR_LIMIT, entry->path, "the config in the snapshot is too long");
    int rc = run_list_array(&entry->runs, CONF_FILE_LIMIT, &runs, &c.run_count, e);
    c.runs = runs;
    if (rc == 0)
        rc = block_reader_new(&reader, e);
    return rc ? rc : pool_content(pool, &c, reader, take, ret, e);
}

/* ---- hooks ---- */

static void show_argv(conf_list argv, struct buf *ret)
{
    for (; *argv; argv++) {
        bool plain = **argv && !strpbrk(*argv, " \t\n\"'\\$`;&|<>()*?");
        buf_put_str(ret, plain ? " " : " '");
        show_safe(*argv, ret);
        buf_put_str(ret, plain ? "" : "'");
    }
    buf_put_u8(ret, '\n');
}

size_t kept_config_show_hooks(const struct conf *c, const char *only, bool restore_only,
                              struct buf *ret)
{
    size_t count = 0;
    for (size_t i = 0; i < c->source_count; i++) {
        const struct conf_source *s = &c->sources[i];
        const struct {
            const char *name;
            conf_list argv;
            bool around_restore;
        } hooks[] = {{"before", s->before, false},
                     {"after", s->after, false},
                     {"on_change", s->on_change, false},
                     {"before_restore", s->before_restore, true},
                     {"after_restore", s->after_restore, true}};
        for (size_t k = 0; k < ARRAY_LEN(hooks); k++) {
            if ((only && strcmp(only, s->name) != 0) || !hooks[k].argv || !hooks[k].argv[0] ||
                (restore_only && !hooks[k].around_restore))
                continue;
            buf_printf(ret, "  source %s, %s:", s->name, hooks[k].name);
            show_argv(hooks[k].argv, ret);
            count++;
        }
    }
    return count;
}
