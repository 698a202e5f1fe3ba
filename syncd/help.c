#include "syncd/help.h"

#include <stdio.h>
#include <string.h>

#include "syncd/base/buf.h"
#include "syncd/base/mem.h"
#include "syncd/command.h"

#define OPTION_INDENT 28
#define SUMMARY_INDENT 13

static void pad(struct buf *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf_put_u8(b, ' ');
}

/* Appends text word by word from column `at` on; further lines begin at `indent`. */
static void wrap(struct buf *b, const char *text, size_t at, size_t indent)
{
    bool first = true;
    while (*text) {
        size_t blanks = strspn(text, " ");
        text += blanks;
        size_t len = strcspn(text, " ");
        if (!len)
            break;
        if (!first && at + 1 + len > HELP_COLUMNS) {
            buf_put_u8(b, '\n');
            pad(b, indent);
            at = indent;
        } else if (!first) {
            buf_put_u8(b, ' ');
            at++;
        }
        buf_put(b, text, len);
        at += len;
        text += len;
        first = false;
    }
    buf_put_u8(b, '\n');
}

/* Paragraphs are separated by an empty line. */
static void put_paragraphs(struct buf *b, const char *text)
{
    while (*text) {
        const char *end = strstr(text, "\n\n");
        char paragraph[1024];
        size_t len = end ? (size_t)(end - text) : strlen(text);
        snprintf(paragraph, sizeof paragraph, "%.*s", (int)len, text);
        wrap(b, paragraph, 0, 0);
        buf_put_u8(b, '\n');
        text += end ? len + 2 : len;
    }
}

static void put_option(struct buf *b, const struct command_option *o)
{
    size_t start = b->len;
    if (o->letter)
        buf_printf(b, "  -%c, --%s", o->letter, o->name);
    else
        buf_printf(b, "      --%s", o->name);
    if (o->kind == OPTION_VALUE_OPTIONAL)
        buf_printf(b, "[=%s]", o->argument);
    else if (o->kind != OPTION_FLAG)
        buf_printf(b, " %s", o->argument);
    size_t column = b->len - start;
    if (column + 2 > OPTION_INDENT) {
        buf_put_u8(b, '\n');
        column = 0;
    }
    pad(b, OPTION_INDENT - column);
    wrap(b, o->help, OPTION_INDENT, OPTION_INDENT);
}

static void put_options(struct buf *b, const char *title, const struct command_option *options)
{
    if (!options || !options->name)
        return;
    buf_printf(b, "%s:\n", title);
    for (; options->name; options++)
        put_option(b, options);
    buf_put_u8(b, '\n');
}

void help_overview(const struct command *table, struct buf *ret)
{
    buf_put_str(ret, "Usage: syncd [OPTION...] COMMAND [ARGUMENT...]\n\n");
    wrap(ret,
         "Keeps verified, recent copies of live databases on one or two machines that run "
         "nothing but sshd, and brings them back.",
         0, 0);
    buf_put_str(ret, "\nCommands:\n");
    for (; table->name; table++) {
        if (!table->run)
            continue;
        size_t start = ret->len;
        buf_printf(ret, "  %s", table->name);
        size_t column = ret->len - start;
        pad(ret, column < SUMMARY_INDENT ? SUMMARY_INDENT - column : 1);
        wrap(ret, table->summary, SUMMARY_INDENT, SUMMARY_INDENT);
    }
    buf_put_u8(ret, '\n');
    put_options(ret, "Options of every command", global_options);
    buf_put_str(ret, "`syncd COMMAND --help` explains a command.\n");
}

void help_command(const struct command *command, struct buf *ret)
{
    buf_printf(ret, "Usage: syncd %s [OPTION...]%s%s\n\n", command->name,
               *command->arguments ? " " : "", command->arguments);
    wrap(ret, command->summary, 0, 0);
    buf_put_u8(ret, '\n');
    put_paragraphs(ret, command->details);
    put_options(ret, "Options", command->options);
    put_options(ret, "Options of every command", global_options);
    if (*command->examples)
        buf_printf(ret, "Examples:\n%s", command->examples);
    else if (!ret->bad && ret->len && ret->data[ret->len - 1] == '\n')
        ret->len--; /* no empty line at the end */
}
