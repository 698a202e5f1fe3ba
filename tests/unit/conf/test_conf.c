#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/check.h"
#include "conf/conf.h"
#include "syncd/base/err.h"
#include "syncd/base/mem.h"

static struct conf *parse_or_fail(const char *text)
{
    struct conf *c = NULL;
    struct err e = ERR_INIT;
    if (conf_parse("t.conf", text, strlen(text), &c, NULL, &e))
        fail_msg("%s\n%s", e.message, text);
    return c;
}

static const char contract[] =
    "name = \"leader\"\n"
    "worker \"worker1\" { url = \"sftp://pioreactor@worker1.local/~/syncd/leader\"  "
    "identity_file = \"/etc/syncd/id_ed25519\"  known_hosts = \"/etc/syncd/known_hosts\" }\n"
    "source \"pioreactor\" { preset = \"pioreactor\"  every = \"15m\"  max_age = \"1h\" }\n"
    "source \"piri\" { postgres = \"host=/run/postgresql dbname=piri user=piri\"  schemas = "
    "{\"replicator\", \"scheduler\", \"aggregator\", \"egress_tracker\"}  every = \"1h\" }\n"
    "mqtt { host = \"localhost\"  username = \"pioreactor\"  password_file = "
    "\"/etc/syncd/mqtt.pass\"  homeassistant = true }\n";

static void the_contracts_example_is_read(void **state)
{
    (void)state;
    struct conf *c = parse_or_fail(contract);
    assert_string_equal(c->name, "leader");
    assert_string_equal(c->file, "t.conf");
    assert_int_equal(c->text_len, strlen(contract));
    assert_string_equal(c->text, contract);
    assert_int_equal(c->worker_count, 1);
    const struct conf_worker *w = conf_find_worker(c, "worker1");
    assert_string_equal(w->url, "sftp://pioreactor@worker1.local/~/syncd/leader");
    assert_string_equal(w->identity_file, "/etc/syncd/id_ed25519");
    assert_string_equal(w->known_hosts, "/etc/syncd/known_hosts");
    assert_int_equal(c->source_count, 2);
    const struct conf_source *s = conf_find_source(c, "pioreactor");
    assert_string_equal(s->preset, "pioreactor");
    assert_int_equal(s->every_s, 900);
    assert_int_equal(s->interval_s, 900);
    assert_int_equal(s->max_age_s, 3600);
    s = conf_find_source(c, "piri");
    assert_string_equal(s->postgres, "host=/run/postgresql dbname=piri user=piri");
    assert_string_equal(s->schemas[0], "replicator");
    assert_string_equal(s->schemas[3], "egress_tracker");
    assert_null(s->schemas[4]);
    assert_int_equal(s->max_age_s, 7200);
    assert_true(c->mqtt.given && c->mqtt.homeassistant);
    assert_string_equal(c->mqtt.password_file, "/etc/syncd/mqtt.pass");
    assert_null(conf_find_source(c, "worker1"));
    assert_null(conf_find_worker(c, "piri"));
    conf_free(c);
}

static void what_is_not_given_has_its_default(void **state)
{
    (void)state;
    struct conf *c = parse_or_fail("worker \"w\" { url = \"file:///mnt/usb/syncd\" }\n"
                                   "source \"s\" { path = \"/srv\" }\nmqtt { host = \"h\" }\n");
    assert_true(conf_name_is_valid(c->name));
    assert_string_equal(c->state_dir, "/var/lib/syncd");
    assert_string_equal(c->log_level, "notice");
    assert_null(c->scratch_dir);
    assert_null(c->prometheus_file);
    const struct conf_worker *w = &c->workers[0];
    assert_true(w->min_free_is_percent);
    assert_int_equal(w->min_free, 10);
    assert_int_equal(w->max_rate, 0);
    assert_null(w->identity_file);
    assert_null(w->known_hosts);
    assert_null(w->password_file);
    const struct conf_source *s = &c->sources[0];
    struct conf_keep keep = {.last = 4, .hourly = 24, .daily = 14, .weekly = 8, .monthly = 12};
    assert_memory_equal(&s->keep, &keep, sizeof keep);
    assert_int_equal(s->verify_every_s, 7 * 86400);
    assert_int_equal(s->drill_every_s, 7 * 86400);
    assert_int_equal(s->hook_timeout_s, 60);
    assert_int_equal(s->every_s, 0);
    assert_int_equal(s->interval_s, 0);
    assert_int_equal(s->max_age_s, 0);
    assert_false(s->secrets);
    assert_false(s->globals);
    assert_null(s->exclude);
    assert_null(s->schemas);
    assert_null(s->before);
    assert_null(s->schedule);
    assert_int_equal(c->mqtt.port, 1883);
    assert_string_equal(c->mqtt.topic, "syncd");
    assert_string_equal(c->mqtt.discovery_prefix, "homeassistant");
    assert_false(c->mqtt.homeassistant);
    conf_free(c);

    c = parse_or_fail("");
    assert_int_equal(c->worker_count, 0);
    assert_int_equal(c->source_count, 0);
    assert_false(c->mqtt.given);
    conf_free(c);
}

static void one_keep_sets_the_others_to_zero(void **state)
{
    (void)state;
    struct conf *c = parse_or_fail("source \"a\" { path = \"/a\" keep_daily = 3 }\n"
                                   "source \"b\" { path = \"/a\" keep_within = \"2d\" }\n");
    struct conf_keep daily = {.daily = 3}, within = {.within_s = 2 * 86400};
    assert_memory_equal(&c->sources[0].keep, &daily, sizeof daily);
    assert_memory_equal(&c->sources[1].keep, &within, sizeof within);
    conf_free(c);
}

static void every_kind_of_value_is_read(void **state)
{
    (void)state;
    struct conf *c = parse_or_fail(
        "# comment \" { \n// another\n/* and\n one { */ log_level = \"debug\"\r\n"
        "worker 'w' { url = \"sftp://[::1]:2222/data//x/\" max_rate = \"2M\" min_free = \"2G\" }\n"
        "worker \"v\" { url = \"sftp://h/~/x\" min_free = \"5%\" max_rate = \"0\" }\n"
        "source \"s\" {\n  path = {\"/a//b/\", '/c\\d', \"/e\\\\f\\\"g\\${h}\",}\n"
        "  exclude = \"*.tmp\" before = {} after = {\"logger\", \"\", \"two words # no comment\"}\n"
        "  schedule = \"0 */6 * * *\" keep_last = 0 keep_yearly = 100000\n"
        "  verify_every = \"0\" hook_timeout = \"2m\" on_change = {\"/bin/true\"} }\n"
        "source \"t\" { preset = \"piri\" path = \"/data\" secrets = on }\n"
        "mqtt { host = \"h\" port = 1 topic = \"a/b$\" ca_file = \"/ca\" homeassistant = no }\n");
    assert_string_equal(c->log_level, "debug");
    assert_string_equal(c->workers[0].name, "w");
    assert_int_equal(c->workers[0].max_rate, 2 << 20);
    assert_false(c->workers[0].min_free_is_percent);
    assert_true(c->workers[0].min_free == UINT64_C(2) << 30);
    assert_int_equal(c->workers[1].min_free, 5);
    const struct conf_source *s = &c->sources[0];
    assert_string_equal(s->path[0], "/a/b");
    assert_string_equal(s->path[1], "/c\\d");
    assert_string_equal(s->path[2], "/e\\f\"g${h}");
    assert_null(s->path[3]);
    assert_string_equal(s->exclude[0], "*.tmp");
    assert_null(s->exclude[1]);
    assert_non_null(s->before);
    assert_null(s->before[0]);
    assert_string_equal(s->after[1], "");
    assert_string_equal(s->after[2], "two words # no comment");
    assert_null(s->after[3]);
    assert_string_equal(s->schedule, "0 */6 * * *");
    assert_in_range(s->interval_s, 6 * 3600, 7 * 3600); /* 7 h where clocks change */
    assert_int_equal(s->max_age_s, 2 * s->interval_s);
    assert_int_equal(s->keep.yearly, 100000);
    assert_int_equal(s->verify_every_s, 0);
    assert_int_equal(s->hook_timeout_s, 120);
    assert_true(c->sources[1].secrets);
    assert_int_equal(c->mqtt.port, 1);
    conf_free(c);

    c = parse_or_fail("mqtt { host = \"h\" ca_file = \"/ca\" }");
    assert_int_equal(c->mqtt.port, 8883);
    conf_free(c);
}

static void comments_may_stand_anywhere(void **state)
{
    (void)state;
    struct conf *c = parse_or_fail("# \"\nsource /* } */ \"s\" // {\n{ # x\n path /**/ = # y\n {"
                                   "# first\n\"/a#b\", // second\r\n \"/c\" # third\n, '/d'#\n}"
                                   "keep_last/* */=/* */3#4\n}#");
    assert_string_equal(c->sources[0].path[0], "/a#b");
    assert_string_equal(c->sources[0].path[1], "/c");
    assert_string_equal(c->sources[0].path[2], "/d");
    assert_null(c->sources[0].path[3]);
    assert_int_equal(c->sources[0].keep.last, 3);
    assert_non_null(strstr(c->text, "# first")); /* the kept text is the file's */
    conf_free(c);
}

/* The first message of a file that must be refused. */
static void assert_refused(const char *text, const char *message_part)
{
    struct conf *c = NULL;
    struct err e = ERR_INIT;
    int rc = conf_parse("t.conf", text, strlen(text), &c, NULL, &e);
    if (rc != ERR_CONFIG || c)
        fail_msg("rc %d (%s) for\n%s", rc, e.message, text);
    if (!strstr(e.message, message_part))
        fail_msg("\"%s\" does not say \"%s\"", e.message, message_part);
}

static void libconfuses_silence_is_broken(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"name = \"a\"\nname = \"b\"", "t.conf:2: found name a second time (first in line 1)"},
        {"mqtt { host = \"a\" }\nmqtt { host = \"b\" }", "t.conf:2: found a second mqtt block"},
        {"source \"s\" { path = \"/a\" }\n\nsource \"s\" { path = \"/b\" }",
         "t.conf:3: found source \"s\" a second time (first in line 1)"},
        {"worker \"a\" { url = \"file:///a\" }\nworker \"b\" { url = \"file:///b\" }\n"
         "worker \"c\" { url = \"file:///c\" }",
         "t.conf:3: found a third worker"},
        {"state_dir = /a/b#c", "t.conf:1: state_dir: found /a/b#c without quotes"},
        {"worker \"w\" { url = sftp://u@h/x }", "url: found sftp://u@h/x without quotes"},
        {"source \"s\" { path = \"/a\" every = 15m }", "every: found 15m without quotes"},
        {"source \"s\" { path = \"/a\" keep_last = 014 }",
         "found 014, expected an integer without a 0 before it"},
        {"source \"s\" { path = \"/a\" keep_last = \"4\" }",
         "keep_last: found \"4\", expected an integer without quotes"},
        {"source \"s\" { path = \"/a\" keep_last = -1 }", "keep_last: found -1"},
        {"source \"s\" { path = \"/a\" keep_last = 4x }", "keep_last: found 4x"},
        {"source \"s\" { path = \"/a\" keep_last = 0x10 }", "keep_last: found 0x10"},
        {"source \"s\" { path = \"/a\" keep_last = 99999999999999999999 }",
         "keep_last: found 9999"},
        {"source \"s\" { path = \"/a\" keep_last = 100001 }",
         "expected an integer from 0 to 100000"},
        {"source \"s\" { path = \"/a\" secrets = \"true\" }", "expected true or false, without"},
        {"source \"s\" { path = \"/a\" secrets = 1 }", "secrets: found 1, expected true or false"},
        {"state_dir = \"${HOME}/x\"", "found \"${\": variables are not replaced"},
        {"state_dir = \"/a\\d\"", "found \"\\d\" in a string"},
        {"state_dir = \"/a\\\nb\"", "found a string without its closing \""},
        {"state_dir = '/a\nb'", "t.conf:1: found a string without its closing '"},
        {"state_dir = \"/a\tb\"", "found a control character (9)"},
        {"name += \"x\"", "found +=, expected = (a key is given once)"},
        {"source \"s\" { path = {\"/a\" \"/b\"} }",
         "path: found \"/b\" in a list, expected , or }"},
        {"source \"s\" { path = {\"/a\", /b} }", "path: found /b without quotes"},
        {"source \"s\" { path = {\"/a\", {\"/b\"}} }", "path: found {, expected"},
        {"source \"s\" { path = ", "path: found the end of the file, expected"},
        {"source \"s\" { path = }", "path: found }, expected"},
        {"name = {\"a\"}", "name: found {, expected a name"},
        {"source \"s\" { path = \"/a\"\n", "t.conf:1: found a source block that never ends"},
        {"source \"s\" {\npath = \"/a\"\nsource \"t\" { path = \"/b\" }\n",
         "t.conf:3: found a source block inside of the source block that begins in line 1"},
        {"}", "found a } that closes nothing"},
        {"name = \"a\";", "found ;, expected nothing there"},
        {"include(\"x\")", "include"},
        {"source { path = \"/a\" }", "found { after source, expected its name in quotes"},
        {"source s { path = \"/a\" }", "found s after source, expected its name in quotes"},
        {"source \"S\" { path = \"/a\" }", "found the source name \"S\""},
        {"worker \"tmp\" { url = \"file:///a\" }", "not tmp or epoch"},
        {"source \"012345678901234567890123456789012\" { }", "found the source name"},
        {"mqtt \"m\" { host = \"h\" }", "found \"m\" after mqtt, expected {"},
        {"source = \"s\"", "unknown key source"},
        {"name \"a\"", "found \"a\" after the key name, expected ="},
        {"/* never ends", "found a comment that begins with /* and has no */"},
        {"\xef\xbb\xbfname = \"a\"", "byte order mark"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_refused(cases[i][0], cases[i][1]);
}

static void unknown_words_get_a_suggestion(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"nmae = \"x\"", "found the unknown key nmae; did you mean name?"},
        {"statedir = \"/x\"", "did you mean state_dir?"},
        {"source \"s\" {\npath = \"/a\"\nkeep_hours = 3\n}",
         "t.conf:3: found the unknown key keep_hours in source \"s\"; did you mean keep_hourly?"},
        {"source \"s\" { paths = {\"/a\"} }", "did you mean path?"},
        {"worker \"w\" { identity = \"/a\" }", "did you mean identity_file?"},
        {"worker \"w\" { colour = \"/a\" }", "expected one that syncd.conf(5) names"},
        {"every = \"1h\"", "found the key every outside of the blocks, expected it in a source"},
        {"mqtt { name = \"x\" }", "found the key name in mqtt, expected it outside of the blocks"},
        {"sorce \"s\" { path = \"/a\" }", "found the unknown block sorce; did you mean source?"},
        {"zebra { }", "found the unknown block zebra, expected worker, source or mqtt"},
        {"qqqqqqqqqq = 3", "expected one that syncd.conf(5) names"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_refused(cases[i][0], cases[i][1]);
}

static void bad_values_are_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"name = \"Leader\"", "t.conf:1: name: found \"Leader\""},
        {"name = \"\"", "name: found \"\""},
        {"name = \"epoch\"", "not tmp or epoch"},
        {"state_dir = \"var\"", "expected an absolute path"},
        {"state_dir = \"~/x\"", "~ is not replaced here"},
        {"state_dir = \"/a/../b\"", "without . and .."},
        {"log_level = \"verbose\"", "expected \"error\", \"warning\""},
        {"worker \"w\" { url = \"ssh://h/x\" }", "expected sftp://"},
        {"worker \"w\" { url = \"sftp://u:secret@h/x\" }", "found a password in the URL"},
        {"worker \"w\" { url = \"sftp:///x\" }", "without a host"},
        {"worker \"w\" { url = \"sftp://@h/x\" }", "without a user"},
        {"worker \"w\" { url = \"sftp://h:0/x\" }", "expected a port"},
        {"worker \"w\" { url = \"sftp://h:65536/x\" }", "expected a port"},
        {"worker \"w\" { url = \"sftp://h:backup/x\" }", "expected a port"},
        {"worker \"w\" { url = \"sftp://[]/x\" }", "IPv6"},
        {"worker \"w\" { url = \"sftp://h\" }", "without a folder"},
        {"worker \"w\" { url = \"sftp://h/~/\" }", "without a folder"},
        {"worker \"w\" { url = \"sftp://h/a b\" }", "found a blank"},
        {"worker \"w\" { url = \"file://mnt/x\" }", "expected file:///folder"},
        {"worker \"w\" { url = \"file:///\" }", "expected file:///folder"},
        {"worker \"w\" { url = \"file:///a\" max_rate = \"2m\" }", "one unit of K M G T"},
        {"worker \"w\" { url = \"file:///a\" min_free = \"10\" }", "expected a unit"},
        {"worker \"w\" { url = \"file:///a\" min_free = \"100%\" }", "\"0%\" to \"99%\""},
        {"worker \"w\" { url = \"file:///a\" min_free = \"%\" }", "\"0%\" to \"99%\""},
        {"source \"s\" { preset = \"pireactor\" }", "expected \"pioreactor\", \"piri\""},
        {"source \"s\" { path = {} }", "path: found an empty list"},
        {"source \"s\" { path = {\"/a\", \"/a/\"} }", "found \"/a\" twice"},
        {"source \"s\" { path = {\"/a\", \"\"} }", "path: found \"\""},
        {"source \"s\" { path = \"/a\" every = \"0s\" }", "expected a duration above 0"},
        {"source \"s\" { path = \"/a\" every = \"15\" }", "one unit of s m h d w"},
        {"source \"s\" { path = \"/a\" schedule = \"0 25 * * *\" }", "for the hour"},
        {"source \"s\" { path = \"/a\" before = \"logger\" }", "expected a list of a program"},
        {"source \"s\" { path = \"/a\" before = {\"logger hello\"} }", "each argument by itself"},
        {"source \"s\" { path = \"/a\" before = {\"./x\", \"y\"} }", "absolute path, or its name"},
        {"source \"s\" { path = \"/a\" before = {\"\", \"y\"} }", "found \"\" in the list"},
        {"source \"s\" { postgres = \"piri\" }", "\"host=/run/postgresql dbname=piri\""},
        {"source \"s\" { postgres = \"dbname=x\" schemas = {\"a/b\"} }", "without /"},
        {"mqtt { host = \"a b\" }", "expected no blanks"},
        {"mqtt { host = \"h\" port = 0 }", "from 1 to 65535"},
        {"mqtt { host = \"h\" topic = \"a/#\" }", "expected a topic"},
        {"mqtt { host = \"h\" topic = \"/a\" }", "expected a topic"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_refused(cases[i][0], cases[i][1]);
}

static void secrets_in_the_config_are_refused_and_not_repeated(void **state)
{
    (void)state;
    static const char *const conninfos[] = {
        "host=h password=hush",
        "password = hush dbname=x",
        "host=h sslpassword=hush",
        "PASSWORD=hush",
        "postgres://u:hush@h/db",
        "postgresql://h/db?password=hush",
        "postgresql://h/db?a=b&password=hush",
    };
    for (size_t i = 0; i < ARRAY_LEN(conninfos); i++) {
        char text[200];
        struct conf *c = NULL;
        struct err e = ERR_INIT;
        snprintf(text, sizeof text, "source \"s\" { postgres = \"%s\" }", conninfos[i]);
        assert_int_equal(conf_parse("t.conf", text, strlen(text), &c, NULL, &e), ERR_CONFIG);
        assert_non_null(strstr(e.message, "found a password"));
        assert_null(strstr(e.message, "hush"));
    }
    conf_free(
        parse_or_fail("source \"s\" { postgres = \"host=h passfile=/etc/p dbname=password\" }"));
    conf_free(parse_or_fail("source \"s\" { postgres = \"postgres://u@h:5432/db\" }"));
}

static void combinations_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"source \"s\" { every = \"1h\" }", "t.conf:1: source \"s\" names nothing to protect"},
        {"source \"s\" { path = \"/a\" postgres = \"dbname=x\" }", "found path beside postgres"},
        {"source \"s\" { preset = \"piri\" postgres = \"dbname=x\" }", "found preset beside"},
        {"source \"s\" { postgres = \"dbname=x\" exclude = \"a\" }", "found exclude in a postgres"},
        {"source \"s\" { path = \"/a\" secrets = true }", "found secrets without preset"},
        {"source \"s\" { path = \"/a\"\nglobals = true }", "t.conf:2: found globals without"},
        {"source \"s\" { path = \"/a\" schemas = {\"x\"} }", "found schemas without postgres"},
        {"source \"s\" { path = \"/a\" drill_database = \"dbname=x\" }", "found drill_database"},
        {"source \"s\" { postgres = \"dbname=x\" drill_database = \"dbname=x\" }", "is the source"},
        {"source \"s\" { path = \"/a\" every = \"1h\"\nschedule = \"0 * * * *\" }",
         "t.conf:2: found schedule and every"},
        {"source \"s\" { path = \"/a\" keep_last = 0 }", "would keep nothing"},
        {"worker \"w\" { max_rate = \"1M\" }", "worker \"w\" has no url"},
        {"worker \"w\" { url = \"file:///a\" identity_file = \"/k\" }", "is a local folder"},
        {"worker \"a\" { url = \"file:///a\" } worker \"b\" { url = \"file:///a\" }", "same url"},
        {"worker \"a\" { url = \"file:///a/b\" } source \"s\" { path = \"/a\" }",
         "lies in the path"},
        {"mqtt { topic = \"x\" }", "mqtt has no host"},
        {"mqtt { host = \"h\" password_file = \"/p\" }", "password_file without username"},
        {"mqtt { host = \"h\" ca_file = \"/a\" cert_file = \"/b\" }", "cert_file without key_file"},
        {"mqtt { host = \"h\" ca_file = \"/a\" key_file = \"/b\" }", "key_file without cert_file"},
        {"mqtt { host = \"h\" cert_file = \"/a\" key_file = \"/b\" }", "cert_file without ca_file"},
        {"mqtt { host = \"h\" discovery_prefix = \"x\" }", "without homeassistant"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_refused(cases[i][0], cases[i][1]);
    conf_free(
        parse_or_fail("worker \"a\" { url = \"file:///ab\" } source \"s\" { path = \"/a\" }"));
}

static void several_mistakes_are_told_at_once(void **state)
{
    (void)state;
    char text[30 * 8 + 1];
    for (size_t i = 0; i < 30; i++)
        memcpy(text + 8 * i, "bad = 1\n", 9);
    struct conf *c = NULL;
    struct conf_errors more;
    struct err e = ERR_INIT;
    assert_int_equal(conf_parse("t.conf", text, strlen(text), &c, &more, &e), ERR_CONFIG);
    assert_non_null(strstr(e.message, "t.conf:1:"));
    assert_int_equal(more.count, 9);
    assert_non_null(strstr(more.line[8], "t.conf:10:"));

    const char *two = "name = \"A\"\nworker \"w\" {}\n";
    assert_int_equal(conf_parse("t.conf", two, strlen(two), &c, &more, &e), ERR_CONFIG);
    assert_int_equal(more.count, 1);
    assert_non_null(strstr(more.line[0], "t.conf:2: worker \"w\" has no url"));
    assert_int_equal(conf_parse("t.conf", two, strlen(two), &c, NULL, NULL), ERR_CONFIG);
}

static void bytes_that_are_no_text_are_refused(void **state)
{
    (void)state;
    static const char nul[] = "name = \"a\"\n\0state_dir = \"/x\"\n";
    struct conf *c = NULL;
    struct err e = ERR_INIT;
    assert_int_equal(conf_parse("t.conf", nul, sizeof nul - 1, &c, NULL, &e), ERR_CONFIG);
    assert_non_null(strstr(e.message, "NUL"));
    char *big = malloc(CONF_FILE_LIMIT + 1);
    assert_non_null(big);
    memset(big, '\n', CONF_FILE_LIMIT + 1);
    assert_int_equal(conf_parse("t.conf", big, CONF_FILE_LIMIT + 1, &c, NULL, &e), ERR_CONFIG);
    assert_int_equal(conf_parse("t.conf", big, CONF_FILE_LIMIT, &c, NULL, &e), 0);
    conf_free(c);
    free(big);
}

static void workers_and_sources_are_required_by_name(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct conf *c = parse_or_fail("source \"s\" { path = \"/a\" }");
    assert_int_equal(conf_require(c, &e), ERR_CONFIG);
    assert_non_null(strstr(e.hint, "setup"));
    conf_free(c);
    c = parse_or_fail("worker \"w\" { url = \"file:///a\" }");
    assert_int_equal(conf_require(c, &e), ERR_CONFIG);
    assert_non_null(strstr(e.message, "no source"));
    conf_free(c);
    c = parse_or_fail(contract);
    assert_int_equal(conf_require(c, &e), 0);
    conf_free(c);
}

static void a_host_name_becomes_a_name(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"leader", "leader"},
        {"Leader.example.org", "leader"},
        {"My Pi!", "my-pi-"},
        {"-x", "x"},
        {"", "leader"},
        {"tmp", "leader"},
        {"...", "leader"},
        {"p_1", "p_1"},
        {"\xc3\xa9t\xc3\xa9", "t--"},
        {"0123456789012345678901234567890123456789", "01234567890123456789012345678901"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        OWN_MEM char *name = check_default_name(cases[i][0]);
        assert_string_equal(name, cases[i][1]);
    }
}

static void a_missing_file_is_not_found(void **state)
{
    (void)state;
    struct conf *c = NULL;
    struct err e = ERR_INIT;
    assert_int_equal(conf_read("/nonexistent/syncd.conf", &c, NULL, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.message, "/nonexistent/syncd.conf"));
    assert_non_null(strstr(e.hint, "-c"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_contracts_example_is_read),
        cmocka_unit_test(what_is_not_given_has_its_default),
        cmocka_unit_test(one_keep_sets_the_others_to_zero),
        cmocka_unit_test(every_kind_of_value_is_read),
        cmocka_unit_test(comments_may_stand_anywhere),
        cmocka_unit_test(libconfuses_silence_is_broken),
        cmocka_unit_test(unknown_words_get_a_suggestion),
        cmocka_unit_test(bad_values_are_refused),
        cmocka_unit_test(secrets_in_the_config_are_refused_and_not_repeated),
        cmocka_unit_test(combinations_that_make_no_sense_are_refused),
        cmocka_unit_test(several_mistakes_are_told_at_once),
        cmocka_unit_test(bytes_that_are_no_text_are_refused),
        cmocka_unit_test(workers_and_sources_are_required_by_name),
        cmocka_unit_test(a_host_name_becomes_a_name),
        cmocka_unit_test(a_missing_file_is_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
