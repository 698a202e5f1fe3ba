#include "conf/layout.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/lex.h"
#include "conf/report.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

struct scan {
    struct lexer lx;
    struct conf_report *report;
    struct layout *layout;
    size_t block; /* index of the one that is being read; 0: at file level */
};

static struct layout_block *current(struct scan *s)
{
    return &s->layout->blocks[s->block];
}

/* `in source "piri"`, or "" at file level. */
static const char *where(struct scan *s, char buf[static 64])
{
    const struct layout_block *b = current(s);
    const char *word = conf_section_word(b->section);
    if (b->section == CONF_GLOBAL)
        buf[0] = '\0';
    else if (b->title[0])
        snprintf(buf, 64, " in %s \"%s\"", word, b->title);
    else
        snprintf(buf, 64, " in %s", word);
    return buf;
}

static bool is_number(const struct token *t)
{
    for (size_t i = 0; i < t->len; i++)
        if (t->start[i] < '0' || t->start[i] > '9')
            return false;
    return t->len > 0;
}

static bool is_one_of(const struct token *t, const char *const *words)
{
    for (; *words; words++)
        if (strlen(*words) == t->len && memcmp(*words, t->start, t->len) == 0)
            return true;
    return false;
}

static bool looks_like_bool(const struct token *t)
{
    static const char *const words[] = {"true", "false", "yes", "no", "on", "off", NULL};
    return t->type == TOKEN_WORD && is_one_of(t, words);
}

/* `t` is the token taken last. */
static void wrong_value(struct scan *s, int key, struct token *t)
{
    char text[TOKEN_TEXT_SIZE];
    const char *expected = conf_type_expected(conf_keys[key].type);
    const char *name = conf_keys[key].name;
    enum conf_shape shape = conf_type_shape(conf_keys[key].type);
    bool text_wanted = shape != CONF_INTEGER && shape != CONF_BOOL;
    if (t->type == TOKEN_WORD && text_wanted) {
        lexer_extend(&s->lx, t);
        conf_report_add(s->report, t->line, "%s: found %s without quotes, expected %s", name,
                        token_text(t, text), expected);
        return;
    }
    conf_report_add(s->report, t->line, "%s: found %s, expected %s", name, token_text(t, text),
                    expected);
}

/* True when the token may stand as one value of the key. */
static bool scalar_fits(struct scan *s, int key, const struct token *t)
{
    switch (conf_type_shape(conf_keys[key].type)) {
    case CONF_STRING:
    case CONF_STRING_OR_LIST:
        return t->type == TOKEN_STRING;
    case CONF_INTEGER:
        if (t->type == TOKEN_WORD && is_number(t) && t->len > 1 && t->start[0] == '0') {
            char text[TOKEN_TEXT_SIZE];
            conf_report_add(s->report, t->line,
                            "%s: found %s, expected an integer without a 0 before it",
                            conf_keys[key].name, token_text(t, text));
            return true; /* said already */
        }
        return t->type == TOKEN_WORD && is_number(t) && t->len <= 9;
    case CONF_BOOL:
        return looks_like_bool(t);
    case CONF_LIST:
        break;
    }
    return false;
}

/* Goes past the rest of a { ... }, also with further ones in it. */
static void skip_braces(struct scan *s)
{
    for (int depth = 1; depth > 0;) {
        struct token t = lexer_next(&s->lx);
        if (t.type == TOKEN_END)
            return;
        depth += t.type == TOKEN_OPEN;
        depth -= t.type == TOKEN_CLOSE;
    }
}

/* After the { of a list. Counts its strings. */
static unsigned read_list(struct scan *s, int key)
{
    unsigned count = 0;
    for (;;) {
        struct token t = lexer_next(&s->lx);
        if (t.type == TOKEN_CLOSE)
            return count;
        if (t.type != TOKEN_STRING) {
            wrong_value(s, key, &t);
            skip_braces(s);
            return count;
        }
        count++;
        struct token after = lexer_next(&s->lx);
        if (after.type == TOKEN_CLOSE)
            return count;
        if (after.type != TOKEN_COMMA) {
            char text[TOKEN_TEXT_SIZE];
            conf_report_add(s->report, after.line, "%s: found %s in a list, expected , or }",
                            conf_keys[key].name, token_text(&after, text));
            skip_braces(s);
            return count;
        }
    }
}

/* The value of a known key, the next token being its first. Returns how many strings it has. */
static unsigned read_value(struct scan *s, int key)
{
    enum conf_shape shape = conf_type_shape(conf_keys[key].type);
    struct token t = lexer_peek(&s->lx);
    if (t.type == TOKEN_CLOSE || t.type == TOKEN_END) {
        wrong_value(s, key, &t);
        return 0; /* left for the caller, whom it concerns too */
    }
    lexer_next(&s->lx);
    if (t.type == TOKEN_OPEN && (shape == CONF_LIST || shape == CONF_STRING_OR_LIST))
        return read_list(s, key);
    if (!scalar_fits(s, key, &t)) {
        wrong_value(s, key, &t);
        if (t.type == TOKEN_OPEN)
            skip_braces(s);
    }
    return 1;
}

/* A value that nobody wants, after an unknown key. */
static void skip_value(struct scan *s)
{
    struct token t = lexer_peek(&s->lx);
    if (t.type == TOKEN_CLOSE || t.type == TOKEN_END)
        return;
    lexer_next(&s->lx);
    if (t.type == TOKEN_OPEN)
        skip_braces(s);
}

/* A section other than `here` that has such a key, -1 when none has. */
static int section_with_key(enum conf_section here, const struct token *t)
{
    for (int other = 0; other < CONF_SECTION_COUNT; other++)
        if (other != (int)here && conf_key_find((enum conf_section)other, t->start, t->len) >= 0)
            return other;
    return -1;
}

static void unknown_key(struct scan *s, const struct token *t)
{
    char text[TOKEN_TEXT_SIZE], block[64];
    enum conf_section here = current(s)->section;
    token_text(t, text);
    where(s, block);
    int other = section_with_key(here, t);
    const char *near = conf_key_nearest(here, t->start, t->len);
    if (other == CONF_GLOBAL)
        conf_report_add(s->report, t->line, "found the key %s%s, expected it outside of the blocks",
                        text, block);
    else if (other > 0)
        conf_report_add(s->report, t->line, "found the key %s%s, expected it in a %s block", text,
                        here == CONF_GLOBAL ? " outside of the blocks" : block,
                        conf_section_word((enum conf_section)other));
    else if (near)
        conf_report_add(s->report, t->line, "found the unknown key %s%s; did you mean %s?", text,
                        block, near);
    else
        conf_report_add(s->report, t->line,
                        "found the unknown key %s%s, expected one that syncd.conf(5) names", text,
                        block);
}

/* After a word and "=". */
static void read_assignment(struct scan *s, const struct token *name)
{
    int key = conf_key_find(current(s)->section, name->start, name->len);
    if (key < 0) {
        unknown_key(s, name);
        skip_value(s);
        return;
    }
    int *line = &current(s)->key_line[key];
    if (*line) {
        char block[64];
        conf_report_add(s->report, name->line,
                        "found %s a second time%s (first in line %d), expected it once",
                        conf_keys[key].name, where(s, block), *line);
        read_value(s, key);
        return;
    }
    *line = name->line;
    unsigned values = read_value(s, key);
    current(s)->values[key] = values;
}

/* A token that can begin nothing. */
static void unexpected(struct scan *s, const struct token *t)
{
    char text[TOKEN_TEXT_SIZE], block[64];
    token_text(t, text);
    where(s, block);
    char c = t->type == TOKEN_OTHER ? *t->start : '\0';
    if (c == '+') {
        conf_report_add(s->report, t->line, "found +=%s, expected = (a key is given once)", block);
        struct token next = lexer_peek(&s->lx);
        if (next.type == TOKEN_EQUALS) {
            lexer_next(&s->lx);
            skip_value(s);
        }
    } else if (c == '(') {
        conf_report_add(s->report, t->line, "found (%s: there are no functions and no include",
                        block);
    } else if (c == ';' || c == ')') {
        conf_report_add(s->report, t->line, "found %s%s, expected nothing there", text, block);
    } else {
        const char *example =
            current(s)->section == CONF_SOURCE ? "every = \"15m\"" : "name = \"leader\"";
        conf_report_add(s->report, t->line, "found %s%s, expected a key and =, such as %s", text,
                        block, example);
    }
}

/* After a word that is no section's: a key without "=", or text that lost its quotes. */
static void word_without_equals(struct scan *s, const struct token *name, const struct token *next)
{
    char text[TOKEN_TEXT_SIZE], after[TOKEN_TEXT_SIZE], block[64];
    token_text(name, text);
    token_text(next, after);
    where(s, block);
    const char *near = conf_key_nearest(current(s)->section, name->start, name->len);
    if (next->type == TOKEN_OTHER && *next->start == '+')
        return; /* `key += value`: told when the + is read */
    if (conf_key_find(current(s)->section, name->start, name->len) >= 0)
        conf_report_add(s->report, name->line, "found %s after the key %s%s, expected =", after,
                        text, block);
    else if (near)
        conf_report_add(s->report, name->line, "found %s%s; did you mean %s?", text, block, near);
    else
        conf_report_add(s->report, name->line,
                        "found %s%s, expected a key and =; text stands in quotes", text, block);
}

/* Reads the title into the block; findings are reported. */
static void read_title(struct scan *s, struct layout_block *b)
{
    const char *word = conf_section_word(b->section);
    struct token t = lexer_peek(&s->lx);
    char text[TOKEN_TEXT_SIZE];
    if (t.type == TOKEN_STRING || t.type == TOKEN_WORD)
        lexer_next(&s->lx);
    if (b->section == CONF_MQTT) {
        if (t.type != TOKEN_OPEN)
            conf_report_add(s->report, t.line, "found %s after mqtt, expected {",
                            token_text(&t, text));
        return;
    }
    bool short_enough = t.len <= CONF_NAME_MAX;
    if (t.type == TOKEN_STRING && short_enough)
        snprintf(b->title, sizeof b->title, "%.*s", (int)t.len, t.start);
    if (t.type != TOKEN_STRING)
        conf_report_add(s->report, t.line,
                        "found %s after %s, expected its name in quotes, such as %s \"%s\" {",
                        token_text(&t, text), word, word,
                        b->section == CONF_WORKER ? "worker1" : "data");
    else if (!short_enough || strlen(b->title) != t.len || !conf_name_is_valid(b->title))
        conf_report_add(s->report, t.line,
                        "found the %s name %s, expected 1 to %d of a-z 0-9 _ -, beginning with a "
                        "letter or digit, and not tmp or epoch",
                        word, token_text(&t, text), CONF_NAME_MAX);
}

/* Refuses a block that there is already, or one more than allowed. */
static void check_block_is_new(struct scan *s, const struct layout_block *b)
{
    size_t same_section = 0;
    const char *word = conf_section_word(b->section);
    for (size_t i = 1; i < s->layout->count; i++) {
        const struct layout_block *other = &s->layout->blocks[i];
        if (other->section != b->section)
            continue;
        same_section++;
        if (b->section == CONF_MQTT)
            conf_report_add(s->report, b->line,
                            "found a second mqtt block (first in line %d), expected one",
                            other->line);
        else if (b->title[0] && strcmp(other->title, b->title) == 0)
            conf_report_add(s->report, b->line,
                            "found %s \"%s\" a second time (first in line %d), expected each name "
                            "once",
                            word, b->title, other->line);
    }
    if (b->section == CONF_WORKER && same_section == CONF_MAX_WORKERS)
        conf_report_add(s->report, b->line,
                        "found a third worker, expected one or two worker blocks");
    if (b->section == CONF_SOURCE && same_section == CONF_MAX_SOURCES)
        conf_report_add(s->report, b->line, "found more than %d sources", CONF_MAX_SOURCES);
}

/* After the word of a section, at file level. */
static int open_block(struct scan *s, int section, int line, struct err *e)
{
    struct layout_block b = {.section = (enum conf_section)section, .line = line};
    read_title(s, &b);
    check_block_is_new(s, &b);
    struct token t = lexer_peek(&s->lx);
    if (t.type == TOKEN_OPEN) {
        lexer_next(&s->lx);
    } else {
        char text[TOKEN_TEXT_SIZE];
        conf_report_add(s->report, t.line, "found %s, expected { after %s", token_text(&t, text),
                        conf_section_word(b.section));
        return 0;
    }
    if (mem_grow(&s->layout->blocks, &s->layout->cap, s->layout->count + 1,
                 sizeof *s->layout->blocks))
        return err_nomem(e);
    s->block = s->layout->count++;
    *current(s) = b;
    return 0;
}

/* A { that follows an unknown word, with or without a title between. */
static bool unknown_block(struct scan *s, const struct token *name)
{
    struct lexer ahead = s->lx;
    struct conf_report silent = {.path = ""};
    ahead.report = &silent;
    struct token t = lexer_next(&ahead);
    if (t.type == TOKEN_STRING || t.type == TOKEN_WORD)
        t = lexer_next(&ahead);
    if (t.type != TOKEN_OPEN)
        return false;
    char text[TOKEN_TEXT_SIZE];
    const char *near = conf_key_nearest(CONF_GLOBAL, name->start, name->len);
    bool is_section = near && conf_section_find(near, strlen(near)) > 0;
    conf_report_add(s->report, name->line, "found the unknown block %s%s%s%s",
                    token_text(name, text), is_section ? "; did you mean " : ", expected ",
                    is_section ? near : "worker, source or mqtt", is_section ? "?" : "");
    while (lexer_next(&s->lx).type != TOKEN_OPEN)
        ;
    skip_braces(s);
    return true;
}

static int read_word(struct scan *s, const struct token *name, struct err *e)
{
    struct token next = lexer_peek(&s->lx);
    if (next.type == TOKEN_EQUALS) {
        lexer_next(&s->lx);
        read_assignment(s, name);
        return 0;
    }
    int section = conf_section_find(name->start, name->len);
    if (section > 0 && s->block != 0) {
        conf_report_add(s->report, name->line,
                        "found a %s block inside of the %s block that begins in line %d; is its } "
                        "missing?",
                        conf_section_word((enum conf_section)section),
                        conf_section_word(current(s)->section), current(s)->line);
        s->block = 0;
    }
    if (section > 0)
        return open_block(s, section, name->line, e);
    if (conf_key_find(current(s)->section, name->start, name->len) < 0 && unknown_block(s, name))
        return 0;
    word_without_equals(s, name, &next);
    if (next.type == TOKEN_STRING || next.type == TOKEN_OPEN)
        skip_value(s);
    return 0;
}

static int read_items(struct scan *s, struct err *e)
{
    while (!conf_report_full(s->report)) {
        struct token t = lexer_next(&s->lx);
        if (t.type == TOKEN_END)
            break;
        if (t.type == TOKEN_WORD) {
            int rc = read_word(s, &t, e);
            if (rc)
                return rc;
        } else if (t.type == TOKEN_CLOSE && s->block != 0) {
            s->block = 0;
        } else if (t.type == TOKEN_CLOSE) {
            conf_report_add(s->report, t.line, "found a } that closes nothing");
        } else {
            unexpected(s, &t);
        }
    }
    if (s->block != 0 && !conf_report_full(s->report))
        conf_report_add(s->report, current(s)->line,
                        "found a %s block that never ends, expected its }",
                        conf_section_word(current(s)->section));
    return 0;
}

int layout_read(const char *text, size_t len, struct layout *ret, struct conf_report *report,
                struct err *e)
{
    CLEANUP(layout_free) struct layout l = {0};
    if (mem_grow(&l.blocks, &l.cap, 1, sizeof *l.blocks))
        return err_nomem(e);
    l.count = 1;
    struct scan s = {.report = report, .layout = &l};
    lexer_init(&s.lx, text, len, report);
    int rc = read_items(&s, e);
    if (rc)
        return rc;
    *ret = l;
    l = (struct layout){0};
    return 0;
}

void layout_free(struct layout *l)
{
    free(l->blocks);
    *l = (struct layout){0};
}
