#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "syncd/base/err.h"
#include "syncd/base/log.h"
#include "syncd/command.h"
#include "syncd/program.h"
#include "syncd/report.h"
#include "terminal.h"

static int say_words(const struct command_args *args, struct report *report)
{
    for (size_t i = 0; i < args->word_count; i++)
        report_say(report, "%s\n", args->words[i]);
    report_set(report, "words", json_integer((json_int_t)args->word_count));
    log_msg(LOG_LEVEL_INFO, "told more");
    return EXIT_PARTLY;
}

static int fail_always(const struct command_args *args, struct report *report)
{
    (void)args;
    struct err e = ERR_INIT;
    err_set(&e, ERR_CONFIG, "syncd.conf", "syncd.conf:3: nothing is right");
    return report_error(report, &e);
}

static int be_stopped(const struct command_args *args, struct report *report)
{
    raise(args->word_count ? SIGINT : SIGTERM);
    struct err e = ERR_INIT;
    err_set(&e, ERR_CANCELLED, NULL, "stopped");
    return report_error(report, &e);
}

static int end_by_signal(const struct command_args *args, struct report *report)
{
    (void)args;
    (void)report;
    raise(SIGTERM);
    return EXIT_DONE;
}

static const struct command_option none[] = {{.name = NULL}};
#define ROW(n, f, max)                                                                             \
    {                                                                                              \
        .name = n, .run = f, .arguments = "[WORD...]", .max_words = max, .options = none,          \
        .summary = "Summary of " n ".", .details = "Details of " n ".", .examples = ""             \
    }
static const struct command table[] = {ROW("words", say_words, 9),
                                       ROW("fail", fail_always, 0),
                                       ROW("stop", be_stopped, 1),
                                       ROW("end", end_by_signal, 0),
                                       {.name = NULL}};

static char *argv[8];
static int argc;

static int child(void)
{
    dup2(2, 1);
    return program_run(table, argc, argv);
}

/* Runs `line` (words apart by blanks); *t has what went to stdout and stderr. */
static int run(struct terminal *t, const char *line)
{
    static char copy[256];
    snprintf(copy, sizeof copy, "syncd %s", line);
    argc = 0;
    char *rest = copy;
    for (char *word; (word = strsep(&rest, " ")) && argc < 8;)
        if (*word)
            argv[argc++] = word;
    terminal_start(t, 0, child);
    return terminal_end(t);
}

static void a_command_runs_and_its_code_is_the_exit(void **state)
{
    (void)state;
    struct terminal t;
    assert_int_equal(run(&t, "words a b"), 3);
    assert_string_equal(t.seen, "a\nb\n");
    assert_int_equal(run(&t, "-q words a b"), 3);
    assert_string_equal(t.seen, "");
    assert_int_equal(run(&t, "words -v a"), 3);
    assert_non_null(strstr(t.seen, "told more"));
}

/* stdout and stderr together are exactly one JSON object. */
static json_t *json_of(const struct terminal *t)
{
    json_error_t error;
    json_t *o = json_loads(t->seen, JSON_REJECT_DUPLICATES, &error);
    if (!o)
        fail_msg("%s: %s", error.text, t->seen);
    assert_string_equal(json_string_value(json_object_get(o, "syncd")), SYNCD_VERSION);
    return o;
}

static const char *error_code(json_t *o)
{
    json_t *errors = json_object_get(o, "errors");
    assert_int_equal(json_array_size(errors), 1);
    return json_string_value(json_object_get(json_array_get(errors, 0), "code"));
}

static void json_is_all_there_is(void **state)
{
    (void)state;
    struct terminal t;
    assert_int_equal(run(&t, "words a --json"), 3);
    json_t *o = json_of(&t);
    assert_string_equal(json_string_value(json_object_get(o, "command")), "words");
    assert_int_equal(json_integer_value(json_object_get(o, "exit")), 3);
    assert_int_equal(json_integer_value(json_object_get(o, "words")), 1);
    json_decref(o);

    assert_int_equal(run(&t, "--json fail"), 2);
    o = json_of(&t);
    assert_string_equal(error_code(o), "config");
    json_decref(o);

    assert_int_equal(run(&t, "wrods --json"), 2);
    o = json_of(&t);
    assert_string_equal(error_code(o), "usage");
    assert_true(json_is_null(json_object_get(o, "command")));
    assert_int_equal(json_integer_value(json_object_get(o, "exit")), 2);
    json_decref(o);

    assert_int_equal(run(&t, "--json --version"), 0);
    o = json_of(&t);
    assert_string_equal(json_string_value(json_object_get(o, "text")), "syncd " SYNCD_VERSION "\n");
    json_decref(o);
}

static void usage_errors_are_one_line(void **state)
{
    (void)state;
    struct terminal t;
    assert_int_equal(run(&t, "wrods"), 2);
    assert_string_equal(
        t.seen, "syncd: unknown command \"wrods\", did you mean \"words\"? (see `syncd --help`)\n");
    assert_int_equal(run(&t, ""), 2);
    assert_string_equal(t.seen, "syncd: no command is given (see `syncd --help`)\n");
    assert_int_equal(run(&t, "fail word"), 2);
    assert_string_equal(t.seen,
                        "syncd: \"word\" is one too many for `fail` (see `syncd fail --help`)\n");
}

static void help_and_version_are_answers(void **state)
{
    (void)state;
    struct terminal t;
    assert_int_equal(run(&t, "--version"), 0);
    assert_string_equal(t.seen, "syncd " SYNCD_VERSION "\n");
    assert_int_equal(run(&t, "--help"), 0);
    assert_non_null(strstr(t.seen, "Summary of words."));
    assert_int_equal(run(&t, "fail --help -q"), 0);
    assert_non_null(strstr(t.seen, "Usage: syncd fail"));
    assert_non_null(strstr(t.seen, "Details of fail."));
}

static void a_signal_has_the_last_word(void **state)
{
    (void)state;
    struct terminal t;
    assert_int_equal(run(&t, "stop"), 143);
    assert_string_equal(t.seen, ""); /* the user knows */
    assert_int_equal(run(&t, "stop now"), 130);
    assert_int_equal(run(&t, "end"), 0);
    assert_int_equal(run(&t, "stop --json"), 143);
    json_t *o = json_of(&t);
    assert_string_equal(error_code(o), "cancelled");
    assert_int_equal(json_integer_value(json_object_get(o, "exit")), 143);
    json_decref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_command_runs_and_its_code_is_the_exit),
        cmocka_unit_test(json_is_all_there_is),
        cmocka_unit_test(usage_errors_are_one_line),
        cmocka_unit_test(help_and_version_are_answers),
        cmocka_unit_test(a_signal_has_the_last_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
