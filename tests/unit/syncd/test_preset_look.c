#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/preset.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/preset_look.h"

static char dir[] = "/tmp/syncd-preset-XXXXXX";

/* "<dir>/<name>", in one of some buffers. */
static const char *at(const char *name)
{
    static char paths[8][256];
    static unsigned next;
    char *path = paths[next++ % ARRAY_LEN(paths)];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

static void put(const char *name, const char *text)
{
    struct err e = ERR_INIT;
    if (io_replace_file(at(name), text, strlen(text), 0600, &e))
        fail_msg("%s", e.message);
}

static char toml[256], keys[256];
static const struct preset_place places[] = {{.what = "the data",
                                              .env = "SYS_DIR",
                                              .file = toml,
                                              .section = "repo",
                                              .key = "data_dir",
                                              .path = "~/.sys",
                                              .empty_is_memory = true},
                                             {.what = "the jobs", .env = "SYS_JOBS"},
                                             {.what = "the keys", .path = keys, .secret = true},
                                             {.what = NULL}};

static int set_up(void **state)
{
    (void)state;
    static const char *const folders[] = {"home", "home/.sys", "data", "data/in", "keys"};
    if (!mkdtemp(dir))
        return -1;
    for (size_t i = 0; i < ARRAY_LEN(folders); i++)
        mkdir(at(folders[i]), 0700);
    snprintf(toml, sizeof toml, "%s", at("system.toml"));
    snprintf(keys, sizeof keys, "%s", at("keys"));
    put("data/one-node.db", "x");
    unsetenv("SUDO_USER");
    return setenv("HOME", at("home"), 1);
}

static int tear_down(void **state)
{
    (void)state;
    static const char *const names[] = {"system.toml", "data/machines", "data/one-node.db",
                                        "home/.sys",   "home",          "data/in",
                                        "data",        "keys",          ""};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        remove(at(names[i]));
    return 0;
}

static const struct preset sys = {.name = "sys",
                                  .system = "Sys",
                                  .places = places,
                                  .workers_file = "machines",
                                  .workers_section = "cluster.addresses"};

static void look(bool secrets, struct preset_found *ret)
{
    struct err e = ERR_INIT;
    if (preset_look(&sys, secrets, ret, &e))
        fail_msg("%s", e.message);
}

static void fails(int code, const char *says)
{
    struct preset_found f;
    struct err e = ERR_INIT;
    assert_int_equal(preset_look(&sys, false, &f, &e), code);
    if (!strstr(e.message, says))
        fail_msg("%s", e.message);
    assert_int_equal(f.count, 0);
}

static void a_place_is_named_by_variable_config_or_habit(void **state)
{
    (void)state;
    struct preset_found f;
    look(false, &f);
    assert_int_equal(f.count, 1);
    assert_string_equal(f.places[0].path, at("home/.sys"));
    assert_null(f.places[0].from);
    preset_found_free(&f);
    char text[512];
    snprintf(text, sizeof text, "[repo]\ndata_dir = \"%s/data//\" # here\n", dir);
    put("system.toml", text);
    look(true, &f);
    assert_int_equal(f.count, 2);
    assert_string_equal(f.places[0].path, at("data"));
    assert_non_null(strstr(f.places[0].from, "data_dir in "));
    assert_string_equal(f.places[1].path, at("keys"));
    preset_found_free(&f);
    setenv("SYS_DIR", at("home"), 1);
    setenv("SYS_JOBS", at("home/.sys"), 1); /* lies in it */
    look(false, &f);
    assert_int_equal(f.count, 1);
    assert_string_equal(f.places[0].path, at("home"));
    assert_string_equal(f.places[0].from, "SYS_DIR");
    preset_found_free(&f);
    setenv("SYS_JOBS", at("data/one-node.db"), 1);
    look(false, &f);
    assert_int_equal(f.count, 2);
    assert_string_equal(f.places[1].path, at("data/one-node.db"));
    preset_found_free(&f);
    unsetenv("SYS_DIR");
    unsetenv("SYS_JOBS");
}

static void what_is_missing_or_in_memory_is_named(void **state)
{
    (void)state;
    setenv("SYS_DIR", at("nowhere"), 1);
    fails(ERR_NOT_FOUND, "named by SYS_DIR");
    setenv("SYS_DIR", "relative", 1);
    fails(ERR_CONFIG, "no plain absolute path");
    setenv("SYS_DIR", "", 1);
    fails(ERR_UNSUPPORTED, "SYS_DIR is empty: Sys keeps its state in memory");
    unsetenv("SYS_DIR");
    put("system.toml", "[repo]\ndata_dir = \"\"\n");
    fails(ERR_UNSUPPORTED, "data_dir in ");
    setenv("SYS_JOBS", at("nowhere"), 1);
    setenv("SYS_DIR", at("data"), 1);
    fails(ERR_NOT_FOUND, "the jobs");
    unsetenv("SYS_JOBS");
    unsetenv("SYS_DIR");
}

static void a_database_is_found_under_any_of_its_names(void **state)
{
    (void)state;
    const struct preset_store store = {.what = "the jobs",
                                       .globs = {"in/state.db", "*-node.db"},
                                       .env = "SYS_JOBS",
                                       .type_env = "SYS_TYPE"};
    char *home[] = {(char *)(uintptr_t)at("home"), NULL};
    char *both[] = {home[0], (char *)(uintptr_t)at("data"), NULL};
    assert_int_equal(preset_store_look(&store, home), PRESET_STORE_MISSING);
    assert_int_equal(preset_store_look(&store, both), PRESET_STORE_THERE);
    setenv("SYS_JOBS", at("data/one-node.db"), 1);
    assert_int_equal(preset_store_look(&store, home), PRESET_STORE_THERE);
    setenv("SYS_TYPE", "InMemory", 1);
    assert_int_equal(preset_store_look(&store, both), PRESET_STORE_MEMORY);
    unsetenv("SYS_TYPE");
    unsetenv("SYS_JOBS");
}

static void machines_are_chosen_by_name(void **state)
{
    (void)state;
    struct preset_worker *w = NULL;
    size_t count = 0, all = 0;
    struct err e = ERR_INIT;
    assert_int_equal(preset_workers(&sys, at("home"), 2, &w, &count, &all, &e), ERR_NOT_FOUND);
    put("data/machines", "[cluster.topology]\nleader_hostname=boss\nleader_address=10.0.0.9\n"
                         "[cluster.addresses]\nc=10.0.0.3\nboss=10.0.0.1\nz=10.0.0.9\n"
                         "l=127.0.0.1\nbad=a b;c\nb=fd00::2\na=a.local\n");
    assert_int_equal(preset_workers(&sys, at("data"), 2, &w, &count, &all, &e), 0);
    assert_int_equal(count, 2);
    assert_int_equal(all, 3);
    assert_string_equal(w[0].name, "a");
    assert_string_equal(w[0].address, "a.local");
    assert_string_equal(w[1].name, "b");
    assert_string_equal(w[1].address, "fd00::2");
    preset_workers_free(w, count);
    put("data/machines", "[cluster.addresses]\n");
    assert_int_equal(preset_workers(&sys, at("data"), 2, &w, &count, &all, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.message, "no machine but this one"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_place_is_named_by_variable_config_or_habit),
        cmocka_unit_test(what_is_missing_or_in_memory_is_named),
        cmocka_unit_test(a_database_is_found_under_any_of_its_names),
        cmocka_unit_test(machines_are_chosen_by_name),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
