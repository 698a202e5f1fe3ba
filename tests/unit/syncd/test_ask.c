#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "syncd/ask.h"
#include "syncd/base/err.h"
#include "syncd/signals.h"
#include "terminal.h"

/* Exit codes by which the children tell what they got. */
enum { YES = 10, NO, NOBODY, CANCELLED, OTHER };

static int code_of(int rc)
{
    return rc == 0               ? YES
           : rc == ERR_REFUSED   ? NO
           : rc == ERR_USAGE     ? NOBODY
           : rc == ERR_CANCELLED ? CANCELLED
                                 : OTHER;
}

static int ask_one(bool answered)
{
    struct err e = ERR_INIT;
    if (signals_start(&e))
        return 1;
    int rc = ask_yes("Lead \033[31mnow?", "--lead", answered, &e);
    if (rc == ERR_USAGE)
        fprintf(stderr, "%s|%s\n", e.message, e.hint);
    return code_of(rc);
}

static int ask_open(void)
{
    return ask_one(false);
}

static int ask_answered(void)
{
    return ask_one(true);
}

static int answer(const char *text)
{
    struct terminal t;
    terminal_start(&t, 80, ask_open);
    terminal_expect(&t, 0, "Lead \\x1b[31mnow? [y/N] ");
    terminal_type(&t, text);
    return terminal_end(&t);
}

static void only_yes_is_yes(void **state)
{
    (void)state;
    assert_int_equal(answer("y\n"), YES);
    assert_int_equal(answer("YES\n"), YES);
    assert_int_equal(answer("n\n"), NO);
    assert_int_equal(answer("\n"), NO);
    assert_int_equal(answer("yesterday\n"), NO);
    assert_int_equal(answer("\004"), NO); /* end of the input */
}

static void the_flag_answers_without_a_question(void **state)
{
    (void)state;
    struct terminal t;
    terminal_start(&t, 80, ask_answered);
    assert_int_equal(terminal_end(&t), YES);
    assert_int_equal(t.len, 0);
    terminal_start(&t, 0, ask_answered);
    assert_int_equal(terminal_end(&t), YES);
}

static void without_a_terminal_the_flag_is_named(void **state)
{
    (void)state;
    struct terminal t;
    terminal_start(&t, 0, ask_open);
    terminal_expect(&t, 0, "|answer with --lead");
    assert_int_equal(terminal_end(&t), NOBODY);
}

static void a_signal_ends_the_question(void **state)
{
    (void)state;
    struct terminal t;
    terminal_start(&t, 80, ask_open);
    terminal_expect(&t, 0, "[y/N] ");
    kill(t.pid, SIGTERM);
    assert_int_equal(terminal_end(&t), CANCELLED);
    assert_int_equal(answer("\003"), CANCELLED); /* Ctrl-C */
}

static int ask_secret(void)
{
    struct err e = ERR_INIT;
    char *secret = NULL;
    if (signals_start(&e))
        return 1;
    int rc = ask_password("Password", "--password-file", &secret, &e);
    if (rc == 0)
        printf("got <%zu %s>\n", strlen(secret), strcmp(secret, "p\xc3\xa4ss w") ? "other" : "it");
    fflush(stdout);
    ask_wipe(&secret);
    return secret ? 1 : code_of(rc);
}

static void a_password_is_not_shown(void **state)
{
    (void)state;
    struct terminal t;
    terminal_start(&t, 80, ask_secret);
    terminal_expect(&t, 0, "Password: ");
    assert_false(terminal_echoes(&t));
    terminal_type(&t, "p\xc3\xa4ss w\n");
    terminal_expect(&t, 0, "got <7 it>");
    bool echoes = terminal_echoes(&t);
    assert_int_equal(terminal_end(&t), YES);
    assert_true(echoes);
    assert_null(strstr(t.seen, "ss w"));
}

static void an_empty_password_is_none(void **state)
{
    (void)state;
    struct terminal t;
    terminal_start(&t, 80, ask_secret);
    terminal_expect(&t, 0, "Password: ");
    terminal_type(&t, "\n");
    assert_int_equal(terminal_end(&t), NO);
}

static int ask_secret_and_wait(void)
{
    int code = ask_secret();
    fprintf(stderr, "asked\n");
    char line[8];
    return fgets(line, sizeof line, stdin) ? code : 1; /* until the test has looked */
}

static void a_signal_gives_the_terminal_back(void **state)
{
    (void)state;
    struct terminal t;
    terminal_start(&t, 80, ask_secret_and_wait);
    terminal_expect(&t, 0, "Password: ");
    assert_false(terminal_echoes(&t));
    kill(t.pid, SIGINT);
    terminal_expect(&t, 0, "asked");
    bool echoes = terminal_echoes(&t);
    terminal_type(&t, "\n");
    assert_int_equal(terminal_end(&t), CANCELLED);
    assert_true(echoes);
}

static int ask_text(void)
{
    struct err e = ERR_INIT;
    char *first = NULL, *second = NULL;
    if (signals_start(&e) || ask_line("Name", "leader", "--name", &first, &e))
        return 1;
    int rc = ask_line("URL", NULL, "URL", &second, &e);
    printf("<%s %s>\n", first, second ? second : "none");
    fflush(stdout);
    free(first);
    free(second);
    return code_of(rc);
}

static void a_line_has_a_default_or_is_asked_again(void **state)
{
    (void)state;
    struct terminal t;
    terminal_start(&t, 80, ask_text);
    size_t at = terminal_expect(&t, 0, "Name [leader]: ");
    terminal_type(&t, "\n");
    at = terminal_expect(&t, at, "URL: ");
    terminal_type(&t, "\n");
    at = terminal_expect(&t, at, "URL: ");
    terminal_type(&t, "sftp://x\n");
    terminal_expect(&t, at, "<leader sftp://x>");
    assert_int_equal(terminal_end(&t), YES);
}

static void too_long_an_answer_is_refused(void **state)
{
    (void)state;
    static char line[2001];
    memset(line, 'y', sizeof line - 2);
    line[sizeof line - 2] = '\n';
    assert_int_equal(answer(line), OTHER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_yes_is_yes),
        cmocka_unit_test(the_flag_answers_without_a_question),
        cmocka_unit_test(without_a_terminal_the_flag_is_named),
        cmocka_unit_test(a_signal_ends_the_question),
        cmocka_unit_test(a_password_is_not_shown),
        cmocka_unit_test(an_empty_password_is_none),
        cmocka_unit_test(a_signal_gives_the_terminal_back),
        cmocka_unit_test(a_line_has_a_default_or_is_asked_again),
        cmocka_unit_test(too_long_an_answer_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
