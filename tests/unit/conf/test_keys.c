/* The table of keys, and that the example file keeps up with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"
#include "conf/keys.h"
#include "syncd/base/buf.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"

static void each_key_is_found_and_explained(void **state)
{
    (void)state;
    for (int i = 0; i < CONF_KEY_COUNT; i++) {
        const struct conf_key *k = &conf_keys[i];
        assert_int_equal(conf_key_find(k->section, k->name, strlen(k->name)), i);
        assert_string_equal(conf_key_nearest(k->section, k->name, strlen(k->name)), k->name);
        assert_true(strlen(k->explanation) > 10);
        assert_true(strchr(k->explanation, '\n') == NULL);
        assert_true(k->explanation[strlen(k->explanation) - 1] != '.');
        assert_true(strlen(conf_type_expected(k->type)) > 4);
    }
    assert_int_equal(conf_key_find(CONF_GLOBAL, "names", 5), -1);
    assert_int_equal(conf_key_find(CONF_GLOBAL, "nam", 3), -1);
    assert_int_equal(conf_key_find(CONF_WORKER, "every", 5), -1);
    assert_int_equal(conf_section_find("source", 6), CONF_SOURCE);
    assert_int_equal(conf_section_find("", 0), -1);
}

static void near_words_are_near(void **state)
{
    (void)state;
    static const struct {
        enum conf_section section;
        const char *word, *want;
    } cases[] = {
        {CONF_SOURCE, "evrey", "every"},
        {CONF_SOURCE, "maxage", "max_age"},
        {CONF_SOURCE, "shedule", "schedule"},
        {CONF_SOURCE, "kepp_last", "keep_last"},
        {CONF_WORKER, "knownhosts", "known_hosts"},
        {CONF_WORKER, "uri", "url"},
        {CONF_MQTT, "user_name", "username"},
        {CONF_GLOBAL, "wroker", "worker"},
        {CONF_GLOBAL, "loglevel", "log_level"},
        {CONF_SOURCE, "zzz", NULL},
        {CONF_SOURCE, "", NULL},
        {CONF_MQTT, "postgres", NULL},
        {CONF_SOURCE, "a_word_that_is_longer_than_any_key_there_is", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *got = conf_key_nearest(cases[i].section, cases[i].word, strlen(cases[i].word));
        if (!got != !cases[i].want || (got && strcmp(got, cases[i].want) != 0))
            fail_msg("%s: %s", cases[i].word, got ? got : "nothing");
    }
}

static void read_example(struct buf *ret)
{
    struct err e = ERR_INIT;
    if (io_read_file(SYNCD_SOURCE_DIR "/conf/syncd.conf.example", CONF_FILE_LIMIT, ret, &e))
        fail_msg("%s", e.message);
}

/* A commented-out key is `#key = `, with no blank before the key; prose has one. */
static bool is_commented_key(const char *line)
{
    line += strspn(line, " ");
    if (line[0] != '#' || !islower((unsigned char)line[1]))
        return false;
    size_t n = strspn(line + 1, "abcdefghijklmnopqrstuvwxyz_");
    return strncmp(line + 1 + n, " = ", 3) == 0;
}

static void uncomment(char *text)
{
    for (char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (is_commented_key(line))
            line[strspn(line, " ")] = ' ';
    }
}

static struct conf *parse(const char *text)
{
    struct conf *c = NULL;
    struct conf_errors more;
    struct err e = ERR_INIT;
    if (conf_parse("example", text, strlen(text), &c, &more, &e))
        fail_msg("%s (and %zu more)", e.message, more.count);
    return c;
}

static void the_example_is_read_as_it_is(void **state)
{
    (void)state;
    OWN_BUF struct buf text = BUF_INIT;
    read_example(&text);
    struct conf *c = parse(buf_cstr(&text));
    assert_int_equal(conf_require(c, NULL), 0);
    assert_int_equal(c->worker_count, 2);
    conf_free(c);
}

static void the_example_is_read_with_all_keys_live(void **state)
{
    (void)state;
    OWN_BUF struct buf text = BUF_INIT;
    read_example(&text);
    assert_non_null(buf_cstr(&text));
    uncomment((char *)text.data);
    struct conf *c = parse((const char *)text.data);
    /* What the comments show as defaults are the defaults. */
    struct conf *bare =
        parse("worker \"w\" { url = \"file:///a\" } source \"s\" { path = \"/b\" }");
    assert_string_equal(c->state_dir, bare->state_dir);
    assert_memory_equal(&c->sources[0].keep, &bare->sources[0].keep, sizeof(struct conf_keep));
    assert_int_equal(c->sources[0].hook_timeout_s, bare->sources[0].hook_timeout_s);
    assert_int_equal(c->sources[0].verify_every_s, bare->sources[0].verify_every_s);
    assert_int_equal(c->sources[0].drill_every_s, bare->sources[0].drill_every_s);
    assert_int_equal(c->workers[0].min_free, bare->workers[0].min_free);
    conf_free(bare);
    conf_free(c);
}

/* Whether `text`, one block's lines, has the key live. */
static bool has_key(const char *text, const char *end, const char *key)
{
    size_t n = strlen(key);
    for (const char *line = text; line && line < end; line = strchr(line, '\n')) {
        line += *line == '\n';
        const char *word = line + strspn(line, " ");
        if (strncmp(word, key, n) == 0 && strncmp(word + n, " = ", 3) == 0)
            return true;
    }
    return false;
}

/* The blocks of a section, or for the global one what stands before the first block. */
static bool section_has_key(const char *text, const struct conf_key *key)
{
    char begin[32];
    if (key->section == CONF_GLOBAL)
        return has_key(text, strstr(text, "\nworker "), key->name);
    snprintf(begin, sizeof begin, "\n%s ", conf_section_word(key->section));
    for (const char *block = strstr(text, begin); block; block = strstr(block + 1, begin))
        if (has_key(block, strstr(block, "\n}\n"), key->name))
            return true;
    return false;
}

static void the_example_names_every_key(void **state)
{
    (void)state;
    OWN_BUF struct buf text = BUF_INIT;
    read_example(&text);
    assert_non_null(buf_cstr(&text));
    uncomment((char *)text.data);
    for (size_t i = 0; i < CONF_KEY_COUNT; i++)
        if (!section_has_key((const char *)text.data, &conf_keys[i]))
            fail_msg("the example lacks %s %s", conf_section_word(conf_keys[i].section),
                     conf_keys[i].name);
}

/* A default in the table is a value that the file would accept, and is what one gets without it. */
static void defaults_of_the_table_can_be_written(void **state)
{
    (void)state;
    static const char *const around[CONF_SECTION_COUNT] = {
        "%s = %s", "worker \"w\" { url = \"file:///a\" %s = %s }",
        "source \"s\" { path = \"/a\" keep_last = 1 %s = %s }",
        "mqtt { host = \"h\" %s = %s homeassistant = true }"};
    for (size_t i = 0; i < CONF_KEY_COUNT; i++) {
        const struct conf_key *k = &conf_keys[i];
        bool clashes = i == CONF_KEY_SOURCE_keep_last || i == CONF_KEY_MQTT_homeassistant ||
                       i == CONF_KEY_SOURCE_globals || i == CONF_KEY_SOURCE_secrets;
        if (k->default_text[0] == '\0' || k->default_text[0] == '(' || clashes)
            continue;
        const char *at = around[k->section];
        const char *name = strstr(at, "%s");
        const char *value = strstr(name + 2, "%s");
        OWN_BUF struct buf text = BUF_INIT;
        buf_put(&text, at, (size_t)(name - at));
        buf_put_str(&text, k->name);
        buf_put(&text, name + 2, (size_t)(value - name - 2));
        buf_put_str(&text, k->default_text);
        buf_put_str(&text, value + 2);
        conf_free(parse(buf_cstr(&text)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_key_is_found_and_explained),
        cmocka_unit_test(near_words_are_near),
        cmocka_unit_test(the_example_is_read_as_it_is),
        cmocka_unit_test(the_example_is_read_with_all_keys_live),
        cmocka_unit_test(the_example_names_every_key),
        cmocka_unit_test(defaults_of_the_table_can_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
