#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "conf/conf.h"
#include "conf/keys.h"
#include "conf/preset.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

static struct conf *parse(const char *text)
{
    struct conf *c = NULL;
    struct err e = ERR_INIT;
    if (conf_parse("t.conf", text, strlen(text), &c, NULL, &e))
        fail_msg("%s\n%s", e.message, text);
    return c;
}

static bool has(conf_list list, const char *text)
{
    for (; list && *list; list++)
        if (strcmp(*list, text) == 0)
            return true;
    return false;
}

static size_t length(conf_list list)
{
    size_t n = 0;
    while (list && list[n])
        n++;
    return n;
}

static void a_preset_stands_for_its_places(void **state)
{
    (void)state;
    struct conf *c = parse("source \"p\" { preset = \"pioreactor\" every = \"15m\" }");
    const struct conf_source *s = &c->sources[0];
    assert_ptr_equal(s->known, preset_find("pioreactor"));
    assert_int_equal(length(s->path), 1);
    assert_string_equal(s->path[0], "/home/pioreactor/.pioreactor");
    assert_true(has(s->exclude, "storage/pioreactor.sqlite.backup*"));
    assert_true(has(s->exclude, ".ssh/id_*"));
    conf_free(c);
}

static void secrets_are_taken_when_wanted(void **state)
{
    (void)state;
    struct conf *c = parse("source \"p\" { preset = \"pioreactor\" secrets = true }");
    assert_true(has(c->sources[0].path, "/home/pioreactor/.ssh"));
    assert_false(has(c->sources[0].exclude, ".ssh/id_*"));
    conf_free(c);
}

static void own_paths_and_excludes_stay(void **state)
{
    (void)state;
    struct conf *c = parse("source \"p\" { preset = \"piri\" path = \"/data/piri\" exclude = "
                           "{\"journal/\"} secrets = true }\n"
                           "source \"q\" { preset = \"piri\" path = \"/data/piri\" exclude = {} }\n"
                           "source \"r\" { path = \"/data/piri\" }");
    const struct conf_source *s = &c->sources[0];
    assert_int_equal(length(s->path), 1);
    assert_string_equal(s->path[0], "/data/piri");
    assert_string_equal(s->exclude[0], "journal/");
    assert_true(has(s->exclude, "blobs/"));
    assert_false(has(s->exclude, "wallet/"));
    assert_true(has(c->sources[1].exclude, "wallet/"));
    assert_null(c->sources[2].known);
    assert_null(c->sources[2].exclude);
    conf_free(c);
}

static void what_makes_no_sense_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"source \"p\" { preset = \"piri\" }", "setup --preset piri"},
        {"source \"p\" {\n preset = \"bacalhau\"\n}", "t.conf:2:"},
        {"source \"p\" { preset = \"pioreacter\" }", "\"pioreactor\", \"piri\" or \"bacalhau\""},
        {"worker \"w\" { url = \"file:///home/pioreactor/.pioreactor/x\" }\n"
         "source \"p\" { preset = \"pioreactor\" }",
         "t.conf:2:"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct conf *c = NULL;
        struct err e = ERR_INIT;
        assert_int_equal(conf_parse("t.conf", cases[i].text, strlen(cases[i].text), &c, NULL, &e),
                         ERR_CONFIG);
        if (!strstr(e.message, cases[i].says))
            fail_msg("%s: %s", cases[i].text, e.message);
    }
}

/* What the messages name, and what each row must have. */
static void the_table_is_whole(void **state)
{
    (void)state;
    for (const struct preset *p = preset_table; p->name; p++) {
        assert_non_null(strstr(conf_type_expected(CONF_TYPE_PRESET), p->name));
        assert_true(conf_name_is_valid(p->name));
        assert_true(p->places[0].what && p->places[0].path && !p->places[0].secret);
        assert_true(p->stores[0].what && p->outside[0] && p->services[0] && p->leaves[0].glob);
        for (const struct preset_store *s = p->stores; s->what; s++)
            assert_null(s->globs[PRESET_STORE_GLOBS - 1]);
        for (const struct preset_place *place = p->places; place->what; place++)
            assert_true(place->path || place->env);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_preset_stands_for_its_places),
        cmocka_unit_test(secrets_are_taken_when_wanted),
        cmocka_unit_test(own_paths_and_excludes_stay),
        cmocka_unit_test(what_makes_no_sense_is_refused),
        cmocka_unit_test(the_table_is_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
