#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "syncd/base/err.h"
#include "syncd/base/mem.h"
#include "syncd/command.h"

static int do_nothing(const struct command_args *args, struct report *report)
{
    (void)args;
    (void)report;
    return 0;
}

static const struct command_option copy_options[] = {
    {"target", 't', OPTION_VALUE, "DIR", "Where to."},
    {"path", 0, OPTION_VALUES, "GLOB", "Which."},
    {"read-data", 0, OPTION_VALUE_OPTIONAL, "PERCENT", "How much."},
    {"in-place", 0, OPTION_FLAG, NULL, "Here."},
    {.name = NULL},
};

static const struct command table[] = {
    {.name = "copy",
     .run = do_nothing,
     .arguments = "FROM [TO]",
     .min_words = 1,
     .max_words = 2,
     .options = copy_options},
    {.name = "check", .run = do_nothing, .arguments = "", .options = NULL},
    {.name = "later", .run = NULL, .arguments = "", .options = NULL},
    {.name = NULL},
};

static struct err last;

/* Parses "syncd" and the arguments up to a NULL. */
static int parse(struct command_args *ret, ...)
{
    char *argv[32] = {(char[]){"syncd"}};
    int argc = 1;
    va_list ap;
    va_start(ap, ret);
    for (char *arg; (arg = va_arg(ap, char *)) && argc < 31;)
        argv[argc++] = arg;
    va_end(ap);
    last = ERR_INIT;
    return args_parse(table, argc, argv, ret, &last);
}

static void options_of_every_command_stand_anywhere(void **state)
{
    (void)state;
    OWN_ARGS struct command_args a = {0};
    assert_int_equal(parse(&a, "--json", "-c", "one", "copy", "x", "-vqv", "--yes", NULL), 0);
    assert_string_equal(a.command->name, "copy");
    assert_true(args_flag(&a, "json"));
    assert_true(args_flag(&a, "yes"));
    assert_true(args_flag(&a, "quiet"));
    assert_int_equal(args_count(&a, "verbose"), 2);
    assert_string_equal(args_config_path(&a), "one");
    assert_int_equal(a.word_count, 1);
    assert_string_equal(a.words[0], "x");
    assert_null(a.words[1]);
    args_free(&a);
    assert_int_equal(parse(&a, "copy", "x", "-ctwo", NULL), 0);
    assert_string_equal(args_config_path(&a), "two");
    args_free(&a);
    assert_int_equal(parse(&a, "copy", "x", "--config=three=3", NULL), 0);
    assert_string_equal(args_config_path(&a), "three=3");
}

static void config_comes_from_the_environment_next(void **state)
{
    (void)state;
    OWN_ARGS struct command_args a = {0};
    assert_int_equal(parse(&a, "check", NULL), 0);
    setenv("SYNCD_CONFIG", "/from/environment", 1);
    assert_string_equal(args_config_path(&a), "/from/environment");
    setenv("SYNCD_CONFIG", "", 1);
    assert_string_equal(args_config_path(&a), "/etc/syncd/syncd.conf");
    unsetenv("SYNCD_CONFIG");
    assert_string_equal(args_config_path(&a), "/etc/syncd/syncd.conf");
}

static void values_are_kept_in_order(void **state)
{
    (void)state;
    OWN_ARGS struct command_args a = {0};
    assert_int_equal(parse(&a, "copy", "--path", "1", "x", "--path=2", "--target", "-", "--path",
                           "-3", "--in-place", "--path=--4", "--path=5", "--path=6", "--path=7",
                           "--path=8", "--path=9", NULL),
                     0);
    const char *const *paths = args_values(&a, "path");
    static const char *const want[] = {"1", "2", "-3", "--4", "5", "6", "7", "8", "9"};
    for (size_t i = 0; i < ARRAY_LEN(want); i++)
        assert_string_equal(paths[i], want[i]);
    assert_null(paths[ARRAY_LEN(want)]);
    assert_string_equal(args_value(&a, "target"), "-");
    assert_true(args_flag(&a, "in-place"));
    assert_false(args_flag(&a, "read-data"));
    assert_null(args_value(&a, "read-data"));
    assert_null(args_values(&a, "read-data")[0]);
}

static void an_optional_value_needs_its_sign(void **state)
{
    (void)state;
    OWN_ARGS struct command_args a = {0};
    assert_int_equal(parse(&a, "copy", "--read-data", "x", NULL), 0);
    assert_true(args_flag(&a, "read-data"));
    assert_null(args_value(&a, "read-data"));
    assert_string_equal(a.words[0], "x");
    args_free(&a);
    assert_int_equal(parse(&a, "copy", "--read-data=10", "x", NULL), 0);
    assert_string_equal(args_value(&a, "read-data"), "10");
}

static void two_dashes_end_the_options(void **state)
{
    (void)state;
    OWN_ARGS struct command_args a = {0};
    assert_int_equal(parse(&a, "copy", "--", "--json", "-", NULL), 0);
    assert_false(args_flag(&a, "json"));
    assert_string_equal(a.words[0], "--json");
    assert_string_equal(a.words[1], "-");
}

static void refuse(const char *part, int rc)
{
    assert_int_equal(rc, ERR_USAGE);
    assert_int_equal(last.code, ERR_USAGE);
    if (!strstr(last.message, part))
        fail_msg("\"%s\" is not in \"%s\"", part, last.message);
}

static void what_is_wrong_is_said(void **state)
{
    (void)state;
    OWN_ARGS struct command_args a = {0};
    refuse("no command", parse(&a, NULL));
    refuse("no command", parse(&a, "--json", NULL));
    refuse("did you mean \"copy\"", parse(&a, "cpoy", NULL));
    refuse("unknown command \"frobnicate\"", parse(&a, "frobnicate", NULL));
    refuse("unknown command \"later\"", parse(&a, "later", NULL)); /* has no function yet */
    refuse("unknown command", parse(&a, "", NULL));
    refuse("did you mean \"--target\"", parse(&a, "copy", "--traget", "x", NULL));
    refuse("did you mean \"--json\"", parse(&a, "--jsn", "copy", NULL));
    refuse("go after its word", parse(&a, "--target", "x", "copy", "x", NULL));
    refuse("of `check`", parse(&a, "check", "--target", "x", NULL));
    refuse("unknown option \"-z\"", parse(&a, "copy", "-vz", NULL));
    refuse("--target needs a value: --target DIR", parse(&a, "copy", "x", "--target", NULL));
    refuse("needs a value", parse(&a, "copy", "x", "--target", "--json", NULL));
    refuse("needs a value", parse(&a, "copy", "x", "-t", NULL));
    refuse("given twice", parse(&a, "copy", "x", "--target=1", "--target=2", NULL));
    refuse("given twice", parse(&a, "copy", "x", "--read-data", "--read-data=2", NULL));
    refuse("takes no value", parse(&a, "copy", "x", "--in-place=yes", NULL));
    refuse("needs more", parse(&a, "copy", NULL));
    refuse("\"3\" is one too many", parse(&a, "copy", "1", "2", "3", NULL));
    refuse("one too many", parse(&a, "check", "1", NULL));
    assert_null(a.given);
}

static void help_and_version_need_nothing_else(void **state)
{
    (void)state;
    OWN_ARGS struct command_args a = {0};
    assert_int_equal(parse(&a, "--help", NULL), 0);
    assert_null(a.command);
    assert_false(args_flag(&a, "version"));
    assert_null(a.words[0]);
    args_free(&a);
    assert_int_equal(parse(&a, "copy", "-h", NULL), 0);
    assert_string_equal(a.command->name, "copy");
    args_free(&a);
    assert_int_equal(parse(&a, "--version", NULL), 0);
    assert_true(args_flag(&a, "version"));
    args_free(&a);
    refuse("unknown option", parse(&a, "--help", "--nope", NULL));
}

static void a_long_argument_is_no_danger(void **state)
{
    (void)state;
    OWN_ARGS struct command_args a = {0};
    static char word[100000];
    memset(word, 'x', sizeof word - 1);
    refuse("unknown command", parse(&a, word, NULL));
    word[0] = word[1] = '-';
    refuse("unknown option", parse(&a, "copy", word, NULL));
    refuse("unknown option", parse(&a, word, NULL));
}

static void json_is_wanted_also_when_nothing_fits(void **state)
{
    (void)state;
    char *with[] = {(char[]){"syncd"}, (char[]){"--nope"}, (char[]){"--json"}, NULL};
    char *after[] = {(char[]){"syncd"}, (char[]){"--"}, (char[]){"--json"}, NULL};
    assert_true(args_want_json(3, with));
    assert_false(args_want_json(2, with));
    assert_false(args_want_json(3, after));
}

/* Rules that the real tables must keep. */
static void the_tables_are_sound(void **state)
{
    (void)state;
    for (const struct command *c = command_table; c->name; c++) {
        assert_non_null(c->arguments);
        assert_non_null(c->summary);
        assert_non_null(c->details);
        assert_non_null(c->examples);
        assert_true(c->min_words <= c->max_words);
        assert_true((c->max_words > 0) == (*c->arguments != '\0'));
        for (const struct command_option *o = c->options; o->name; o++) {
            assert_true((o->kind == OPTION_FLAG) == (o->argument == NULL));
            for (const struct command_option *g = global_options; g->name; g++) {
                assert_string_not_equal(o->name, g->name);
                assert_true(!o->letter || o->letter != g->letter);
            }
            for (const struct command_option *other = c->options; other < o; other++)
                assert_string_not_equal(o->name, other->name);
        }
        for (const struct command *other = command_table; other < c; other++)
            assert_string_not_equal(c->name, other->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_of_every_command_stand_anywhere),
        cmocka_unit_test(config_comes_from_the_environment_next),
        cmocka_unit_test(values_are_kept_in_order),
        cmocka_unit_test(an_optional_value_needs_its_sign),
        cmocka_unit_test(two_dashes_end_the_options),
        cmocka_unit_test(what_is_wrong_is_said),
        cmocka_unit_test(help_and_version_need_nothing_else),
        cmocka_unit_test(a_long_argument_is_no_danger),
        cmocka_unit_test(json_is_wanted_also_when_nothing_fits),
        cmocka_unit_test(the_tables_are_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
