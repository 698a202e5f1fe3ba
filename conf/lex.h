/* Tokens of a config file, stricter than libconfuse's.
 *
 * libconfuse lets much pass that is a mistake: it cuts unquoted text at '#', joins lines inside a
 * string, drops the backslash of an escape that it does not know and puts environment variables
 * in. All that is reported here, before libconfuse sees the file. */
#ifndef SYNCD_CONF_LEX_H
#define SYNCD_CONF_LEX_H

#include <stddef.h>

struct conf_report;

enum token_type {
    TOKEN_END,
    TOKEN_WORD,   /* anything unquoted: a key, a number, or a mistake */
    TOKEN_STRING, /* text without its quotes, escapes still in it */
    TOKEN_OPEN,   /* { */
    TOKEN_CLOSE,  /* } */
    TOKEN_EQUALS,
    TOKEN_COMMA,
    TOKEN_OTHER /* a character that has no place outside of strings */
};

struct token {
    enum token_type type;
    const char *start; /* points into the text; no NUL at its end */
    size_t len;
    int line;
};

struct lexer {
    const char *at, *end;
    int line;
    struct conf_report *report;
};

/* The text must stay until the last token is used. */
void lexer_init(struct lexer *lx, const char *text, size_t len, struct conf_report *report);

/* The next token; mistakes inside of strings and comments are reported on the way. After the end:
 * TOKEN_END again and again. */
struct token lexer_next(struct lexer *lx);

/* The same token as lexer_next would give, without taking it. */
struct token lexer_peek(const struct lexer *lx);

/* After an unquoted word where a string was wanted: takes the rest of it, up to a blank, comma or
 * brace, so that `sftp://host/x` is not half a comment. */
void lexer_extend(struct lexer *lx, struct token *t);

/* Overwrites all comments with blanks, in place: libconfuse takes them only between whole keys, and
 * not in a list. For text in which nothing was reported. */
void lex_blank_comments(char *text, size_t len);

/* What a message calls the token: `"text"`, `text` or `the end of the file`, cut to what fits. */
#define TOKEN_TEXT_SIZE 96
const char *token_text(const struct token *t, char buf[static TOKEN_TEXT_SIZE]);

#endif
