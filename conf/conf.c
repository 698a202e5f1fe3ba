#include "conf/conf.h"

#include <confuse.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/check.h"
#include "conf/keys.h"
#include "conf/layout.h"
#include "conf/lex.h"
#include "conf/preset.h"
#include "conf/report.h"
#include "conf/value.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

/* libconfuse's error function has no room for a pointer of ours. */
static struct conf_report *confuse_report;

__attribute__((format(printf, 2, 0))) static void confuse_error(cfg_t *cfg, const char *fmt,
                                                                va_list ap)
{
    char text[256];
    vsnprintf(text, sizeof text, fmt, ap);
    if (confuse_report)
        conf_report_add(confuse_report, cfg ? cfg->line : 0, "%s", text);
}

/* One section's keys as libconfuse wants them; integers stay within what `long` has everywhere. */
static void fill_options(enum conf_section section, cfg_opt_t *opts)
{
    size_t n = 0;
    for (size_t i = 0; i < CONF_KEY_COUNT; i++) {
        const char *name = conf_keys[i].name;
        if (conf_keys[i].section != section)
            continue;
        switch (conf_type_shape(conf_keys[i].type)) {
        case CONF_STRING:
            opts[n++] = (cfg_opt_t)CFG_STR(name, NULL, CFGF_NODEFAULT);
            break;
        case CONF_LIST:
        case CONF_STRING_OR_LIST:
            opts[n++] = (cfg_opt_t)CFG_STR_LIST(name, NULL, CFGF_NODEFAULT);
            break;
        case CONF_INTEGER:
            opts[n++] = (cfg_opt_t)CFG_INT(name, 0, CFGF_NODEFAULT);
            break;
        case CONF_BOOL:
            opts[n++] = (cfg_opt_t)CFG_BOOL(name, cfg_false, CFGF_NODEFAULT);
            break;
        }
    }
    opts[n] = (cfg_opt_t)CFG_END();
}

static void free_confuse(cfg_t **cfg)
{
    if (*cfg)
        cfg_free(*cfg);
}

/* The second reading of the file: the values. *ret stays NULL when something was reported. */
static int read_values(const struct conf *c, struct conf_report *report, cfg_t **ret, struct err *e)
{
    cfg_opt_t opts[CONF_SECTION_COUNT][CONF_KEY_COUNT + CONF_SECTION_COUNT];
    for (int i = 0; i < CONF_SECTION_COUNT; i++)
        fill_options((enum conf_section)i, opts[i]);
    size_t n = 0;
    while (opts[CONF_GLOBAL][n].name)
        n++;
    cfg_flag_t titled = CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES;
    opts[CONF_GLOBAL][n++] = (cfg_opt_t)CFG_SEC("worker", opts[CONF_WORKER], titled);
    opts[CONF_GLOBAL][n++] = (cfg_opt_t)CFG_SEC("source", opts[CONF_SOURCE], titled);
    opts[CONF_GLOBAL][n++] = (cfg_opt_t)CFG_SEC("mqtt", opts[CONF_MQTT], CFGF_NODEFAULT);
    opts[CONF_GLOBAL][n] = (cfg_opt_t)CFG_END();

    CLEANUP(free_confuse) cfg_t *cfg = cfg_init(opts[CONF_GLOBAL], CFGF_NONE);
    if (!cfg)
        return err_nomem(e);
    cfg_set_error_function(cfg, confuse_error);
    OWN_MEM char *text = strndup(c->text, c->text_len);
    if (!text)
        return err_nomem(e);
    lex_blank_comments(text, c->text_len);
    confuse_report = report;
    int parsed = cfg_parse_buf(cfg, text);
    confuse_report = NULL;
    if (parsed != CFG_SUCCESS && report->count == 0)
        conf_report_add(report, 0, "libconfuse cannot read it");
    if (report->count == 0)
        *ret = TAKE_PTR(cfg);
    return 0;
}

static int set_one(const struct conf_key *key, void *base, cfg_t *section, struct err *e)
{
    unsigned count = cfg_size(section, key->name);
    CLEANUP(mem_freep) const char **items = NULL;
    switch (conf_type_shape(key->type)) {
    case CONF_STRING:
        return value_set_string(key, base, cfg_getstr(section, key->name), e);
    case CONF_INTEGER:
        return value_set_number(key, base, cfg_getint(section, key->name), e);
    case CONF_BOOL:
        return value_set_number(key, base, cfg_getbool(section, key->name) == cfg_true, e);
    case CONF_LIST:
    case CONF_STRING_OR_LIST:
        break;
    }
    items = mem_alloc(count, sizeof *items);
    if (!items)
        return err_nomem(e);
    for (unsigned i = 0; i < count; i++)
        items[i] = cfg_getnstr(section, key->name, i);
    return value_set_list(key, base, items, count, e);
}

/* Fills one section's struct. Both readings must have found the same: what libconfuse understood
 * otherwise than layout_read is refused, not guessed. */
static int set_section(const struct layout_block *b, cfg_t *section, void *base,
                       struct conf_report *report, struct err *e)
{
    for (size_t i = 0; i < CONF_KEY_COUNT; i++) {
        const struct conf_key *key = &conf_keys[i];
        struct err one = ERR_INIT;
        if (key->section != b->section)
            continue;
        if (cfg_size(section, key->name) != b->values[i]) {
            conf_report_add(report, b->key_line[i] ? b->key_line[i] : b->line,
                            "%s cannot be read unambiguously, expected it written more plainly",
                            key->name);
            continue;
        }
        int rc = b->key_line[i] ? set_one(key, base, section, &one) : 0;
        if (rc == ERR_CONFIG)
            conf_report_add(report, b->key_line[i], "%s: %s", key->name, one.message);
        else if (rc)
            return err_nomem(e);
    }
    return 0;
}

static int set_all(struct conf *c, const struct layout *l, cfg_t *cfg, struct conf_report *report,
                   struct err *e)
{
    unsigned worker = 0, source = 0;
    int rc = 0;
    for (size_t i = 0; i < l->count && rc == 0; i++) {
        const struct layout_block *b = &l->blocks[i];
        const char *word = conf_section_word(b->section);
        cfg_t *section = cfg;
        void *base = c;
        if (b->section == CONF_WORKER) {
            section = cfg_getnsec(cfg, word, worker);
            base = &c->workers[worker++];
        } else if (b->section == CONF_SOURCE) {
            section = cfg_getnsec(cfg, word, source);
            base = &c->sources[source++];
        } else if (b->section == CONF_MQTT) {
            section = cfg_getsec(cfg, word);
            base = &c->mqtt;
        }
        const char *title = section ? cfg_title(section) : NULL;
        if (!section || strcmp(title ? title : "", b->title) != 0)
            return conf_report_add(report, b->line,
                                   "the block cannot be read unambiguously, expected it written "
                                   "more plainly");
        rc = set_section(b, section, base, report, e);
    }
    return rc;
}

static int new_conf(const char *path, const char *text, size_t len, const struct layout *l,
                    struct conf **ret, struct err *e)
{
    struct conf *c = mem_alloc(1, sizeof *c);
    if (!c)
        return err_nomem(e);
    for (size_t i = 0; i < l->count; i++) {
        c->worker_count += l->blocks[i].section == CONF_WORKER;
        c->source_count += l->blocks[i].section == CONF_SOURCE;
    }
    c->file = strdup(path);
    c->text = strndup(text, len);
    c->text_len = len;
    c->sources = mem_alloc(c->source_count, sizeof *c->sources);
    if (!c->file || !c->text || !c->sources) {
        c->source_count = c->sources ? c->source_count : 0;
        conf_free(c);
        return err_nomem(e);
    }
    *ret = c;
    return 0;
}

/* What makes it no text at all; libconfuse would stop at a NUL without a word. */
static int check_bytes(const char *path, const char *text, size_t len, struct err *e)
{
    if (len > CONF_FILE_LIMIT)
        return err_set(e, ERR_CONFIG, path, "%s is larger than %d bytes", path, CONF_FILE_LIMIT);
    if (memchr(text, '\0', len))
        return err_set(e, ERR_CONFIG, path, "%s: found a NUL byte, expected plain text", path);
    if (len >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0 ||
                     memcmp(text, "\xef\xbb", 2) == 0))
        return err_set(e, ERR_CONFIG, path,
                       "%s:1: found a byte order mark, expected plain UTF-8 text without one",
                       path);
    return 0;
}

static void free_conf(struct conf **c)
{
    conf_free(*c);
}

int conf_parse(const char *path, const char *text, size_t len, struct conf **ret,
               struct conf_errors *more, struct err *e)
{
    CLEANUP(layout_free) struct layout l = {0};
    CLEANUP(free_confuse) cfg_t *cfg = NULL;
    CLEANUP(free_conf) struct conf *c = NULL;
    struct err first = ERR_INIT;
    struct conf_report report = {.path = path, .e = &first, .more = more};
    if (more)
        more->count = 0;
    int rc = check_bytes(path, text, len, e);
    if (rc == 0)
        rc = layout_read(text, len, &l, &report, e);
    if (rc == 0 && report.count == 0)
        rc = new_conf(path, text, len, &l, &c, e);
    if (rc == 0 && c)
        rc = read_values(c, &report, &cfg, e);
    if (rc == 0 && cfg)
        rc = check_set_defaults(c, &l, e);
    if (rc == 0 && cfg)
        rc = set_all(c, &l, cfg, &report, e);
    for (size_t i = 0; rc == 0 && cfg && i < c->source_count; i++)
        rc = preset_apply(&c->sources[i], e);
    if (rc == 0 && cfg)
        check_combinations(c, &l, &report);
    if (report.count > 0) {
        if (e)
            *e = first;
        return ERR_CONFIG;
    }
    if (rc == 0)
        *ret = TAKE_PTR(c);
    return rc;
}

int conf_read(const char *path, struct conf **ret, struct conf_errors *more, struct err *e)
{
    OWN_BUF struct buf text = BUF_INIT;
    if (more)
        more->count = 0;
    int rc = io_read_file(path, CONF_FILE_LIMIT, &text, e);
    if (rc == ERR_NOT_FOUND)
        err_hint(
            e,
            "`syncd setup URL` and `syncd setup --preset NAME` write one; or name another with -c "
            "FILE (`man syncd.conf` tells every key)");
    if (rc)
        return rc == ERR_LIMIT ? err_set(e, ERR_CONFIG, path, "%s is larger than %d bytes", path,
                                         CONF_FILE_LIMIT)
                               : rc;
    if (!buf_cstr(&text))
        return err_nomem(e);
    return conf_parse(path, (const char *)text.data, text.len, ret, more, e);
}

void conf_free(struct conf *c)
{
    if (!c)
        return;
    value_free_section(CONF_GLOBAL, c);
    value_free_section(CONF_MQTT, &c->mqtt);
    for (size_t i = 0; i < CONF_MAX_WORKERS; i++) {
        free(c->workers[i].name);
        value_free_section(CONF_WORKER, &c->workers[i]);
    }
    for (size_t i = 0; i < c->source_count; i++) {
        free(c->sources[i].name);
        value_free_section(CONF_SOURCE, &c->sources[i]);
    }
    free(c->sources);
    free(c->file);
    free(c->text);
    free(c);
}

int conf_require(const struct conf *c, struct err *e)
{
    if (c->worker_count == 0) {
        err_set(e, ERR_CONFIG, c->file, "%s names no worker to store anything on", c->file);
        err_hint(e, "syncd setup sftp://user@host/~/syncd enrols one");
        return ERR_CONFIG;
    }
    if (c->source_count == 0) {
        err_set(e, ERR_CONFIG, c->file, "%s names no source to protect", c->file);
        err_hint(e,
                 "add a block such as: source \"data\" { path = \"/srv/data\" every = \"15m\" }");
        return ERR_CONFIG;
    }
    return 0;
}

const struct conf_source *conf_find_source(const struct conf *c, const char *name)
{
    for (size_t i = 0; i < c->source_count; i++)
        if (strcmp(c->sources[i].name, name) == 0)
            return &c->sources[i];
    return NULL;
}

const struct conf_worker *conf_find_worker(const struct conf *c, const char *name)
{
    for (size_t i = 0; i < c->worker_count; i++)
        if (strcmp(c->workers[i].name, name) == 0)
            return &c->workers[i];
    return NULL;
}
