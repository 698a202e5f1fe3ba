#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "syncd/base/buf.h"
#include "syncd/command.h"
#include "syncd/help.h"

static int do_nothing(const struct command_args *args, struct report *report)
{
    (void)args;
    (void)report;
    return 0;
}

static void assert_fits(const char *name, const char *text)
{
    for (const char *line = text; *line;) {
        size_t len = strcspn(line, "\n");
        if (len > HELP_COLUMNS)
            fail_msg("%s: wider than %d: %.*s", name, HELP_COLUMNS, (int)len, line);
        if (len && line[len - 1] == ' ')
            fail_msg("%s: blanks at the end: %.*s", name, (int)len, line);
        line += len;
        assert_true(*line == '\n');
        line++;
    }
    assert_null(strstr(text, "\n\n\n"));
}

static void every_command_fits_and_names_its_options(void **state)
{
    (void)state;
    for (const struct command *c = command_table; c->name; c++) {
        OWN_BUF struct buf b = BUF_INIT;
        help_command(c, &b);
        const char *text = buf_cstr(&b);
        assert_fits(c->name, text);
        const struct command_option *const both[] = {c->options, global_options};
        for (size_t i = 0; i < 2; i++)
            for (const struct command_option *o = both[i]; o->name; o++) {
                char needle[64];
                snprintf(needle, sizeof needle, "--%s", o->name);
                assert_non_null(strstr(text, needle));
            }
        /* Nothing of the paragraphs is lost on the way. */
        assert_non_null(strstr(text, c->details + strlen(c->details) - 5));
    }
}

static void commands_without_a_function_are_not_listed(void **state)
{
    (void)state;
    static const struct command table[] = {
        {.name = "there", .run = do_nothing, .summary = "Is there."},
        {.name = "absent", .run = NULL, .summary = "Is not."},
        {.name = NULL},
    };
    OWN_BUF struct buf b = BUF_INIT;
    help_overview(table, &b);
    const char *text = buf_cstr(&b);
    assert_fits("overview", text);
    assert_non_null(strstr(text, "  there      Is there.\n"));
    assert_null(strstr(text, "absent"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_command_fits_and_names_its_options),
        cmocka_unit_test(commands_without_a_function_are_not_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
