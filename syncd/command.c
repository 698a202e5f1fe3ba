#include "syncd/command.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/base/nearest.h"

/* The values given to one option, kept NULL-terminated. */
struct given_option {
    const struct command_option *option;
    size_t count; /* how often given */
    size_t value_count, cap;
    const char **values;
};

/* One for each global option, then one for each of the command's own. */
struct args_given {
    size_t count;
    struct given_option *options;
    const char **words;
    size_t words_cap;
};

struct parser {
    const struct command *table;
    int argc, at;
    char *const *argv;
    struct command_args *args;
    struct err *e;
};

static size_t count_options(const struct command_option *options)
{
    size_t n = 0;
    while (options && options[n].name)
        n++;
    return n;
}

const struct command *command_find(const struct command *table, const char *name)
{
    for (; table->name; table++)
        if (table->run && strcmp(table->name, name) == 0)
            return table;
    return NULL;
}

static int add_options(struct args_given *g, const struct command_option *options, struct err *e)
{
    size_t n = count_options(options);
    struct given_option *grown =
        reallocarray(g->options, g->count + n + 1, sizeof(struct given_option));
    if (!grown)
        return err_nomem(e);
    g->options = grown;
    for (size_t i = 0; i < n; i++)
        g->options[g->count++] = (struct given_option){.option = &options[i]};
    return 0;
}

static struct given_option *find_long(struct args_given *g, const char *name, size_t len)
{
    for (size_t i = 0; i < g->count; i++) {
        const char *known = g->options[i].option->name;
        if (strlen(known) == len && memcmp(known, name, len) == 0)
            return &g->options[i];
    }
    return NULL;
}

static struct given_option *find_letter(struct args_given *g, char letter)
{
    for (size_t i = 0; i < g->count; i++)
        if (g->options[i].option->letter && g->options[i].option->letter == letter)
            return &g->options[i];
    return NULL;
}

/* A usage error, all in one line, which ends in where to read more. */
static int usage(struct parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int usage(struct parser *p, const char *fmt, ...)
{
    const struct command *command = p->args->command;
    char what[320];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(p->e, ERR_USAGE, NULL, "%s (see `syncd %s%s--help`)", what,
                   command ? command->name : "", command ? " " : "");
}

static int unknown_command(struct parser *p, const char *word)
{
    struct nearest n = nearest_start(word);
    for (const struct command *c = p->table; c->name; c++)
        if (c->run)
            nearest_offer(&n, c->name);
    if (n.best)
        return usage(p, "unknown command \"%.64s\", did you mean \"%s\"?", word, n.best);
    return usage(p, "unknown command \"%.64s\"", word);
}

static int unknown_option(struct parser *p, const char *name, size_t len)
{
    char typed[NEAREST_MAX + 2];
    size_t kept = MIN(len, sizeof typed - 1);
    memcpy(typed, name, kept);
    typed[kept] = '\0';
    struct nearest n = nearest_start(typed);
    for (size_t i = 0; i < p->args->given->count; i++)
        nearest_offer(&n, p->args->given->options[i].option->name);
    if (n.best)
        return usage(p, "unknown option \"--%s\", did you mean \"--%s\"?", typed, n.best);
    if (!p->args->command)
        return usage(p, "unknown option \"--%s\" (a command's own options go after its word)",
                     typed);
    return usage(p, "unknown option \"--%s\" of `%s`", typed, p->args->command->name);
}

static int add_value(struct parser *p, struct given_option *g, const char *value)
{
    const struct command_option *o = g->option;
    if (o->kind != OPTION_FLAG && o->kind != OPTION_VALUES && g->count > 0)
        return usage(p, "--%s is given twice", o->name);
    g->count++;
    if (!value)
        return 0;
    if (mem_grow(&g->values, &g->cap, g->value_count + 2, sizeof *g->values))
        return err_nomem(p->e);
    g->values[g->value_count++] = value;
    g->values[g->value_count] = NULL;
    return 0;
}

/* An option that was found: `attached` is what stands in the same argument, or NULL. */
static int take_option(struct parser *p, struct given_option *g, const char *attached)
{
    const struct command_option *o = g->option;
    if (o->kind == OPTION_FLAG && attached)
        return usage(p, "--%s takes no value", o->name);
    if (o->kind == OPTION_FLAG || o->kind == OPTION_VALUE_OPTIONAL || attached)
        return add_value(p, g, attached);
    const char *next = p->at < p->argc ? p->argv[p->at] : NULL;
    if (!next || strncmp(next, "--", 2) == 0)
        return usage(p, "--%s needs a value: --%s %s", o->name, o->name, o->argument);
    p->at++;
    return add_value(p, g, next);
}

static int take_long(struct parser *p, const char *name)
{
    size_t len = strcspn(name, "=");
    struct given_option *g = find_long(p->args->given, name, len);
    if (!g)
        return unknown_option(p, name, len);
    return take_option(p, g, name[len] ? name + len + 1 : NULL);
}

/* "-qv", "-cFILE": flags, of which the last may take the rest or the next argument. */
static int take_letters(struct parser *p, const char *letters)
{
    for (; *letters; letters++) {
        struct given_option *g = find_letter(p->args->given, *letters);
        if (!g)
            return usage(p, "unknown option \"-%c\"", *letters);
        bool takes_value = g->option->kind != OPTION_FLAG;
        const char *attached = takes_value && letters[1] ? letters + 1 : NULL;
        int rc = take_option(p, g, attached);
        if (rc || takes_value)
            return rc;
    }
    return 0;
}

static int take_word(struct parser *p, const char *word)
{
    struct command_args *a = p->args;
    if (!a->command) {
        const struct command *command = command_find(p->table, word);
        if (!command)
            return unknown_command(p, word);
        a->command = command;
        return add_options(a->given, command->options, p->e);
    }
    struct args_given *g = a->given;
    if (mem_grow(&g->words, &g->words_cap, a->word_count + 2, sizeof *g->words))
        return err_nomem(p->e);
    g->words[a->word_count++] = word;
    g->words[a->word_count] = NULL;
    return 0;
}

static int take_all(struct parser *p)
{
    bool only_words = false;
    while (p->at < p->argc) {
        const char *arg = p->argv[p->at++];
        int rc = 0;
        if (only_words || arg[0] != '-' || !arg[1])
            rc = take_word(p, arg);
        else if (strcmp(arg, "--") == 0)
            only_words = true;
        else if (arg[1] == '-')
            rc = take_long(p, arg + 2);
        else
            rc = take_letters(p, arg + 1);
        if (rc)
            return rc;
    }
    return 0;
}

static int check_words(struct parser *p)
{
    const struct command_args *a = p->args;
    if (!a->command)
        return usage(p, "no command is given");
    if (a->word_count < a->command->min_words)
        return usage(p, "`%s` needs more: syncd %s %s", a->command->name, a->command->name,
                     a->command->arguments);
    if (a->word_count > a->command->max_words)
        return usage(p, "\"%.64s\" is one too many for `%s`", a->words[a->command->max_words],
                     a->command->name);
    return 0;
}

int args_parse(const struct command *table, int argc, char *const argv[], struct command_args *ret,
               struct err *e)
{
    static const char *const no_words[] = {NULL};
    OWN_ARGS struct command_args a = {.given = mem_alloc(1, sizeof(struct args_given))};
    if (!a.given)
        return err_nomem(e);
    struct parser p = {
        .table = table, .argc = argc, .at = MIN(1, argc), .argv = argv, .args = &a, .e = e};
    int rc = add_options(a.given, global_options, e);
    if (!rc)
        rc = take_all(&p);
    a.words = a.given->words ? a.given->words : no_words;
    if (!rc && !args_flag(&a, "help") && !args_flag(&a, "version"))
        rc = check_words(&p);
    if (rc) {
        *ret = (struct command_args){.command = a.command};
        return rc;
    }
    *ret = a;
    a = (struct command_args){0};
    return 0;
}

void args_free(struct command_args *a)
{
    if (!a->given)
        return;
    for (size_t i = 0; i < a->given->count; i++)
        free(a->given->options[i].values);
    free(a->given->options);
    free(a->given->words);
    free(a->given);
    *a = (struct command_args){0};
}

static const struct given_option *known(const struct command_args *a, const char *name)
{
    const struct given_option *g = find_long(a->given, name, strlen(name));
    assert(g || !a->command);
    return g;
}

size_t args_count(const struct command_args *a, const char *name)
{
    const struct given_option *g = known(a, name);
    return g ? g->count : 0;
}

bool args_flag(const struct command_args *a, const char *name)
{
    return args_count(a, name) > 0;
}

const char *const *args_values(const struct command_args *a, const char *name)
{
    static const char *const none[] = {NULL};
    const struct given_option *g = known(a, name);
    return g && g->values ? g->values : none;
}

const char *args_value(const struct command_args *a, const char *name)
{
    return args_values(a, name)[0];
}

const char *args_config_path(const struct command_args *a)
{
    const char *given = args_value(a, "config");
    if (given)
        return given;
    const char *from_environment = getenv("SYNCD_CONFIG");
    return from_environment && *from_environment ? from_environment : "/etc/syncd/syncd.conf";
}

bool args_want_json(int argc, char *const argv[])
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--json") == 0)
            return true;
    return false;
}
