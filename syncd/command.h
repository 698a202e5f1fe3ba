/* The command line: one table of commands, each with its table of options; reading argv by them.
 *
 * Help (help.h), man pages, completion and tests come from the same tables. A row without a
 * function is a command that is not there yet: it is neither found nor listed.
 *
 * The options of every command (-c --json -q -v --yes --help --version) may stand before or after
 * the command's word, a command's own only after it. `--name VALUE`, `--name=VALUE`, `-c VALUE`,
 * `-cVALUE` and `-qv` are understood, `--` ends the options, names are never abbreviated. */
#ifndef SYNCD_COMMAND_H
#define SYNCD_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

struct command_args;
struct err;
struct report;

enum option_kind {
    OPTION_FLAG,          /* takes no value; giving it twice is fine */
    OPTION_VALUE,         /* --name VALUE, once */
    OPTION_VALUES,        /* --name VALUE, any number of times */
    OPTION_VALUE_OPTIONAL /* --name or --name=VALUE, once */
};

struct command_option {
    const char *name; /* without the dashes; NULL ends a table */
    char letter;      /* its short form, or 0 */
    enum option_kind kind;
    const char *argument; /* how help calls the value; NULL for a flag */
    const char *help;     /* one sentence, wrapped by help */
};

/* Does a command's work and answers its exit code (enum exit_code). Errors go into the report. */
typedef int command_fn(const struct command_args *args, struct report *report);

struct command {
    const char *name;      /* NULL ends a table */
    command_fn *run;       /* NULL: not there yet */
    const char *arguments; /* the words after it, as help shows them: "[SOURCE...]"; "" for none */
    size_t min_words, max_words;
    const struct command_option *options; /* its own */
    bool stays_root;      /* started by root, it does not go on as the owner of state_dir */
    bool is_quiet;        /* it gives way to what else the machine does (manners.h) */
    const char *summary;  /* one line of the list of commands */
    const char *details;  /* paragraphs of its help, separated by \n\n */
    const char *examples; /* whole lines, each ends in \n; "" for none */
};

#define COMMAND_WORDS_MAX 4096

extern const struct command command_table[];         /* command_table.c */
extern const struct command_option global_options[]; /* the options of every command */

/* The row of that name that has a function; NULL when there is none. */
const struct command *command_find(const struct command *table, const char *name);

/* What argv said. The strings are argv's own. */
struct command_args {
    const struct command *command; /* NULL: none given (--help, --version) */
    const char *const *words;      /* NULL-terminated: what is no option */
    size_t word_count;
    struct args_given *given; /* args_value and the like read this */
};

/* Reads argv. ERR_USAGE with one line and, where one is near, "did you mean"; ERR_NOMEM. With
 * --help or --version among the arguments nothing is checked but that the options exist. On failure
 * only ret->command is set, if that much was understood. */
int args_parse(const struct command *table, int argc, char *const argv[], struct command_args *ret,
               struct err *e);
void args_free(struct command_args *a);
#define OWN_ARGS __attribute__((cleanup(args_free)))

/* By the option's long name, which must be one of the command's or of every command (asserted). */
bool args_flag(const struct command_args *a, const char *name); /* given, with or without value */
size_t args_count(const struct command_args *a, const char *name);      /* how often given */
const char *args_value(const struct command_args *a, const char *name); /* NULL: none given */

/* All values in their order, NULL-terminated, owned by a; never NULL. */
const char *const *args_values(const struct command_args *a, const char *name);

/* -c, else $SYNCD_CONFIG, else "/etc/syncd/syncd.conf". */
const char *args_config_path(const struct command_args *a);

/* Whether argv asks for JSON, also when it cannot be parsed. */
bool args_want_json(int argc, char *const argv[]);

#endif
