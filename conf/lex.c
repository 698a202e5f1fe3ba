#include "conf/lex.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "conf/report.h"

void lexer_init(struct lexer *lx, const char *text, size_t len, struct conf_report *report)
{
    *lx = (struct lexer){.at = text, .end = text + len, .line = 1, .report = report};
}

static bool looking_at(const struct lexer *lx, const char *what)
{
    size_t n = strlen(what);
    return (size_t)(lx->end - lx->at) >= n && memcmp(lx->at, what, n) == 0;
}

static void skip_line(struct lexer *lx)
{
    while (lx->at < lx->end && *lx->at != '\n')
        lx->at++;
}

static void skip_block_comment(struct lexer *lx)
{
    int begun = lx->line;
    lx->at += 2;
    while (lx->at < lx->end && !looking_at(lx, "*/")) {
        lx->line += *lx->at == '\n';
        lx->at++;
    }
    if (lx->at == lx->end)
        conf_report_add(lx->report, begun, "found a comment that begins with /* and has no */");
    else
        lx->at += 2;
}

static void skip_blanks_and_comments(struct lexer *lx)
{
    while (lx->at < lx->end) {
        char c = *lx->at;
        if (c == '\n') {
            lx->line++;
            lx->at++;
        } else if (c == ' ' || c == '\t' || (c == '\r' && looking_at(lx, "\r\n"))) {
            lx->at++;
        } else if (c == '#' || looking_at(lx, "//")) {
            skip_line(lx);
        } else if (looking_at(lx, "/*")) {
            skip_block_comment(lx);
        } else {
            return;
        }
    }
}

static bool is_control(char c)
{
    return (unsigned char)c < 0x20 || c == 0x7f;
}

/* Reports what is wrong with the character at lx->at, and returns how many to go past. */
static size_t check_in_string(struct lexer *lx, char quote)
{
    char c = *lx->at;
    char next = lx->at + 1 < lx->end ? lx->at[1] : '\0';
    if (c == '\\') {
        bool known = next == '\\' || next == quote || (quote == '"' && next == '$');
        if (known)
            return 2;
        /* Single quotes keep it as it is; a control character is reported when its turn comes. */
        if (quote == '"' && !is_control(next))
            conf_report_add(lx->report, lx->line,
                            "found \"\\%c\" in a string, expected \\\\ for a backslash or \\\" for "
                            "a quote",
                            next);
        return 1;
    }
    if (quote == '"' && c == '$' && next == '{')
        conf_report_add(lx->report, lx->line,
                        "found \"${\": variables are not replaced here, expected the value itself "
                        "(or \\${ for these two characters)");
    else if (is_control(c))
        conf_report_add(lx->report, lx->line, "found a control character (%d) in a string", c);
    return 1;
}

static struct token take_string(struct lexer *lx)
{
    char quote = *lx->at++;
    struct token t = {.type = TOKEN_STRING, .start = lx->at, .line = lx->line};
    while (lx->at < lx->end && *lx->at != quote && *lx->at != '\n')
        lx->at += check_in_string(lx, quote);
    t.len = (size_t)(lx->at - t.start);
    if (lx->at < lx->end && *lx->at == quote)
        lx->at++;
    else
        conf_report_add(lx->report, t.line, "found a string without its closing %c", quote);
    return t;
}

static bool ends_word(const struct lexer *lx)
{
    static const char enders[] = " {}=,\"'#()+;";
    return memchr(enders, *lx->at, sizeof enders - 1) || is_control(*lx->at) ||
           looking_at(lx, "//") || looking_at(lx, "/*");
}

static struct token take_word(struct lexer *lx)
{
    struct token t = {.type = TOKEN_WORD, .start = lx->at, .line = lx->line};
    while (lx->at < lx->end && !ends_word(lx))
        lx->at++;
    t.len = (size_t)(lx->at - t.start);
    if (t.len == 0) {
        t.type = TOKEN_OTHER;
        t.len = 1;
        lx->at++;
    }
    return t;
}

struct token lexer_next(struct lexer *lx)
{
    skip_blanks_and_comments(lx);
    struct token t = {.type = TOKEN_END, .start = lx->at, .len = 0, .line = lx->line};
    if (lx->at == lx->end)
        return t;
    switch (*lx->at) {
    case '{':
        t.type = TOKEN_OPEN;
        break;
    case '}':
        t.type = TOKEN_CLOSE;
        break;
    case '=':
        t.type = TOKEN_EQUALS;
        break;
    case ',':
        t.type = TOKEN_COMMA;
        break;
    case '"':
    case '\'':
        return take_string(lx);
    default:
        return take_word(lx);
    }
    t.len = 1;
    lx->at++;
    return t;
}

struct token lexer_peek(const struct lexer *lx)
{
    struct conf_report silent = {.path = ""};
    struct lexer copy = *lx;
    copy.report = &silent;
    return lexer_next(&copy);
}

void lexer_extend(struct lexer *lx, struct token *t)
{
    while (lx->at < lx->end && !memchr(" ,{}\"';", *lx->at, 7) && !is_control(*lx->at))
        lx->at++;
    t->len = (size_t)(lx->at - t->start);
}

void lex_blank_comments(char *text, size_t len)
{
    struct conf_report silent = {.path = ""};
    struct lexer lx;
    struct token t;
    lexer_init(&lx, text, len, &silent);
    do {
        char *p = text + (lx.at - text);
        t = lexer_next(&lx);
        const char *end = t.type == TOKEN_STRING ? t.start - 1 : t.start;
        for (; p < end; p++)
            if (*p != '\n')
                *p = ' ';
    } while (t.type != TOKEN_END);
}

const char *token_text(const struct token *t, char buf[static TOKEN_TEXT_SIZE])
{
    int shown = t->len < 60 ? (int)t->len : 60;
    const char *more = t->len > 60 ? "..." : "";
    if (t->type == TOKEN_END)
        snprintf(buf, TOKEN_TEXT_SIZE, "the end of the file");
    else if (t->type == TOKEN_STRING)
        snprintf(buf, TOKEN_TEXT_SIZE, "\"%.*s%s\"", shown, t->start, more);
    else
        snprintf(buf, TOKEN_TEXT_SIZE, "%.*s%s", shown, t->start, more);
    return buf;
}
