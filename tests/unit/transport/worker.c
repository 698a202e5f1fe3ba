#include "tests/unit/transport/worker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

struct store_options worker_options(const struct sshd *w, const char *user, const char *path)
{
    struct store_options o = {
        .name = "w1", .identity_file = w->key, .known_hosts = w->known_hosts, .timeout_s = 10};
    char text[512];
    struct err e = ERR_INIT;
    snprintf(text, sizeof text, "sftp://%s%s127.0.0.1:%u%s", user ? user : "", user ? "@" : "",
             (unsigned)w->port, path);
    if (url_parse(text, &o.url, &e))
        fail_msg("%s", e.message);
    return o;
}

struct store *worker_open(const struct store_options *o)
{
    struct store *s;
    struct err e = ERR_INIT;
    if (store_open_url(o, &s, &e))
        fail_msg("%s (%s)", e.message, e.hint);
    return s;
}

void worker_refuses(const struct store_options *o, int code, const char *message, const char *hint)
{
    struct store *s;
    struct err e = ERR_INIT;
    int rc = store_open_url(o, &s, &e);
    if (rc == 0)
        fail_msg("it was let in");
    if (rc != code || e.code != code || !strstr(e.message, message) || !strstr(e.hint, hint))
        fail_msg("%s: %s\n(%s)", err_name(rc), e.message, e.hint);
    if (!strstr(e.message, "w1"))
        fail_msg("the message does not name the worker: %s", e.message);
}

void worker_put(const char *folder, const char *name, const char *text, unsigned mode,
                char ret_path[static 160])
{
    snprintf(ret_path, 160, "%s/%s", folder, name);
    FILE *f = fopen(ret_path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(ret_path, mode), 0);
}

const char *worker_text(const char *path)
{
    static char text[8192];
    FILE *f = fopen(path, "r");
    if (!f)
        fail_msg("cannot open %s", path);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    return text;
}

void worker_keygen(const char *folder, const char *name, const char *type, const char *passphrase,
                   const char *extra, char ret_path[static 160])
{
    snprintf(ret_path, 160, "%s/%s", folder, name);
    const char *argv[14] = {"ssh-keygen", "-q", "-t", type, "-N", passphrase, "-f", ret_path};
    int n = 8;
    if (strcmp(type, "rsa") == 0) {
        argv[n++] = "-b";
        argv[n++] = "2048";
    }
    if (extra) {
        argv[n++] = "-m";
        argv[n++] = extra;
    }
    assert_int_equal(test_run(argv), 0);
}

void worker_admit(const struct sshd *w, const char *key_path)
{
    char path[192];
    snprintf(path, sizeof path, "%s.pub", key_path);
    const char *line = worker_text(path);
    snprintf(path, sizeof path, "%s/authorized_keys", w->folder);
    FILE *f = fopen(path, "a");
    assert_non_null(f);
    fputs(line, f);
    fclose(f);
}
