/* Is it the right server, and does it let us in: every way, and what each refusal says. */
#include "tests/unit/transport/contract.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "syncd/base/clock.h"
#include "tests/unit/transport/worker.h"

/* libssh2 1.10 forgets one number of an ECDSA key that is in OpenSSH's format. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:CRYPTO_zalloc";
}

static struct sshd worker;
static char home[128]; /* the login's home folder, as SFTP shows it */

static int start_worker(void **state)
{
    (void)state;
    char config[256];
    snprintf(home, sizeof home, "/tmp/syncd-test-home-XXXXXX");
    if (!mkdtemp(home))
        return -1;
    snprintf(config, sizeof config, "Subsystem sftp internal-sftp -d %s", home);
    sshd_start(&worker, config);
    return 0;
}

static int stop_worker(void **state)
{
    (void)state;
    sshd_stop(&worker);
    test_remove_tree(home);
    return 0;
}

static void lets_in(const struct store_options *o)
{
    struct store *s = worker_open(o);
    struct store_stat st;
    struct err e = ERR_INIT;
    assert_int_equal(store_stat(s, "", &st, &e), 0);
    store_close(s);
}

static struct store_options plain(void)
{
    return worker_options(&worker, NULL, "/~");
}

static struct store_options known_by(const char *text, char path[static 160])
{
    struct store_options o = plain();
    worker_put(worker.folder, "known", text, 0600, path);
    o.known_hosts = path;
    return o;
}

/* "[127.0.0.1]:port <the host key of this type>" */
static const char *host_line(const char *type)
{
    static char line[1024];
    char path[160];
    snprintf(path, sizeof path, "%s/host_%s.pub", worker.folder, type);
    snprintf(line, sizeof line, "[127.0.0.1]:%u %s", (unsigned)worker.port, worker_text(path));
    return line;
}

static void an_unknown_host_is_refused(void **state)
{
    (void)state;
    char path[160], line[1200];
    struct host_key key;
    struct err e = ERR_INIT;
    struct store_options o = known_by("", path);
    assert_int_equal(store_host_key(&o, &key, &e), 0);
    assert_string_equal(key.type, "ssh-ed25519");
    assert_false(key.known);
    worker_refuses(&o, ERR_HOST_KEY, "not known", "syncd setup");
    worker_refuses(&o, ERR_HOST_KEY, key.sha256, "");
    o.known_hosts = "/nonexistent/known_hosts";
    worker_refuses(&o, ERR_HOST_KEY, key.sha256, "");
    o.known_hosts = NULL;
    worker_refuses(&o, ERR_HOST_KEY, key.sha256, "");
    snprintf(line, sizeof line, "[127.0.0.1]:1 %s", strchr(host_line("ed25519"), ' ') + 1);
    o = known_by(line, path);
    worker_refuses(&o, ERR_HOST_KEY, "not known", "");
    snprintf(line, sizeof line, "@cert-authority %s", host_line("ed25519"));
    o = known_by(line, path);
    worker_refuses(&o, ERR_HOST_KEY, "not known", "");
}

static void a_changed_host_key_is_refused(void **state)
{
    (void)state;
    char path[160], other[160], line[1200];
    worker_keygen(worker.folder, "other", "ed25519", "", NULL, other);
    snprintf(line, sizeof line, "%s.pub", other);
    snprintf(path, sizeof path, "[127.0.0.1]:%u ", (unsigned)worker.port);
    char key[1000];
    snprintf(key, sizeof key, "%s", worker_text(line));
    snprintf(line, sizeof line, "%s%s", path, key);
    struct store_options o = known_by(line, path);
    worker_refuses(&o, ERR_HOST_KEY, "has changed", "ssh-keygen -R");
    struct host_key shown;
    assert_int_equal(store_host_key(&o, &shown, NULL), ERR_HOST_KEY);
    o.host_key_sha256 = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    worker_refuses(&o, ERR_HOST_KEY, "has changed", "");
    o.known_hosts = NULL;
    worker_refuses(&o, ERR_HOST_KEY, "has changed", "");
    /* The same host without its port says nothing about this port. */
    snprintf(line, sizeof line, "127.0.0.1 %s", key);
    o = known_by(line, path);
    worker_refuses(&o, ERR_HOST_KEY, "not known", "");
}

static void a_revoked_host_key_is_refused(void **state)
{
    (void)state;
    char path[160], line[2400], known[1100];
    snprintf(known, sizeof known, "%s", host_line("ed25519"));
    snprintf(line, sizeof line, "%s@revoked %s", known, known);
    struct store_options o = known_by(line, path);
    worker_refuses(&o, ERR_HOST_KEY, "revoked", "");
}

static void a_known_host_is_accepted(void **state)
{
    (void)state;
    char path[160], line[1200], text[2400];
    struct err e = ERR_INIT;
    struct host_key key;
    /* A server that offers ed25519 first is asked for the type that is known. */
    struct store_options o = known_by(host_line("ecdsa"), path);
    lets_in(&o);
    snprintf(text, sizeof text, "# comment\n\nnonsense\nhost ssh-new AAAA\r\n%s",
             host_line("ed25519"));
    text[strlen(text) - 1] = '\0'; /* no newline at the end */
    o = known_by(text, path);
    lets_in(&o);
    snprintf(line, sizeof line, "127.0.0.1 %s", strchr(host_line("ed25519"), ' ') + 1);
    o = known_by(line, path);
    lets_in(&o);
    o = known_by(host_line("ed25519"), path);
    const char *const hash[] = {"ssh-keygen", "-q", "-H", "-f", path, NULL};
    assert_int_equal(test_run(hash), 0);
    assert_null(strstr(worker_text(path), "127.0.0.1"));
    lets_in(&o);
    assert_int_equal(store_host_key(&o, &key, &e), 0);
    assert_true(key.known);
    o = known_by("", path);
    o.host_key_sha256 = key.sha256;
    lets_in(&o);
    o = known_by(key.known_hosts_line, path); /* what setup writes is what is then accepted */
    lets_in(&o);
    assert_int_equal(strlen(key.sha256), strlen("SHA256:") + 43);
}

static void keys_that_work(void **state)
{
    (void)state;
    static const char *const kinds[][3] = {{"k_ec256", "ecdsa", NULL}, {"k_pem", "ecdsa", "PEM"}};
    for (size_t i = 0; i < 2; i++) {
        char path[160];
        struct store_options o = plain();
        worker_keygen(worker.folder, kinds[i][0], kinds[i][1], "", kinds[i][2], path);
        worker_admit(&worker, path);
        o.identity_file = path;
        lets_in(&o);
    }
}

static void keys_that_do_not_work_say_why(void **state)
{
    (void)state;
    char path[160], pub[192];
    struct store_options o = plain();
    o.identity_file = path;
    worker_keygen(worker.folder, "k_stranger", "ed25519", "", NULL, path);
    worker_refuses(&o, ERR_AUTH, "does not accept the key", "authorized_keys");
    assert_int_equal(chmod(path, 0640), 0);
    worker_refuses(&o, ERR_PERMISSION, "read by others", "chmod 600");
    worker_keygen(worker.folder, "k_rsa", "rsa", "", NULL, path);
    worker_admit(&worker, path);
    worker_refuses(&o, ERR_AUTH, "RSA", "ed25519");
    worker_keygen(worker.folder, "k_rsa_pem", "rsa", "", "PEM", path);
    worker_refuses(&o, ERR_AUTH, "RSA", "ed25519");
    worker_keygen(worker.folder, "k_locked", "ed25519", "secret", NULL, path);
    worker_admit(&worker, path);
    worker_refuses(&o, ERR_AUTH, "passphrase", "ssh-agent");
    worker_keygen(worker.folder, "k_locked_pem", "ecdsa", "secret", "PEM", path);
    worker_refuses(&o, ERR_AUTH, "passphrase", "");
    snprintf(pub, sizeof pub, "%s.pub", worker.key);
    assert_int_equal(chmod(pub, 0600), 0);
    o.identity_file = pub;
    worker_refuses(&o, ERR_AUTH, "public key", "without .pub");
    o.identity_file = path;
    worker_put(worker.folder, "k_nonsense", "hello\n", 0600, path);
    worker_refuses(&o, ERR_AUTH, "no private key", "");
    worker_put(worker.folder, "k_empty", "", 0600, path);
    worker_refuses(&o, ERR_AUTH, "no private key", "");
    o.identity_file = "/nonexistent/key";
    worker_refuses(&o, ERR_NOT_FOUND, "/nonexistent/key", "syncd setup");
    o.identity_file = NULL;
    worker_refuses(&o, ERR_AUTH, "nothing to log in", "identity_file");
    o.password = "wrong"; /* this sshd takes none */
    worker_refuses(&o, ERR_AUTH, "no login by password", "PasswordAuthentication");
}

static void an_agent_signs(void **state)
{
    (void)state;
    char socket_path[160], stranger[160], rsa[160];
    struct store_options o = plain();
    o.identity_file = NULL;
    o.use_agent = true;
    o.timeout_s = 2;
    unsetenv("SSH_AUTH_SOCK");
    worker_refuses(&o, ERR_AUTH, "SSH_AUTH_SOCK", "");
    snprintf(socket_path, sizeof socket_path, "%s/agent", worker.folder);
    const char *const start[] = {"sh", "-c",        "ssh-agent -a \"$1\" >\"$1.env\"",
                                 "sh", socket_path, NULL};
    assert_int_equal(test_run(start), 0);
    setenv("SSH_AUTH_SOCK", socket_path, 1);
    worker_refuses(&o, ERR_AUTH, "none of the ssh-agent's keys", "ssh-add -l");
    worker_keygen(worker.folder, "a_stranger", "ed25519", "", NULL, stranger);
    worker_keygen(worker.folder, "a_rsa", "rsa", "", NULL, rsa);
    const char *const add[] = {"ssh-add", "-q", rsa, stranger, worker.key, NULL};
    assert_int_equal(test_run(add), 0);
    lets_in(&o);
    o.identity_file = stranger; /* refused, and so the agent's turn */
    lets_in(&o);
    const char *const end[] = {
        "sh", "-c", ". \"$1.env\" >/dev/null; ssh-agent -k >/dev/null", "sh", socket_path, NULL};
    assert_int_equal(test_run(end), 0);
}

static void a_stuck_agent_is_given_up(void **state)
{
    (void)state;
    struct store_options o = plain();
    o.identity_file = NULL;
    o.use_agent = true;
    o.timeout_s = 1;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%.90s/stuck", worker.folder);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 4), 0);
    setenv("SSH_AUTH_SOCK", address.sun_path, 1);
    int64_t start_us = clock_mono_us();
    struct store *s;
    struct err e = ERR_INIT;
    assert_int_equal(store_open_url(&o, &s, &e), ERR_AUTH);
    assert_non_null(strstr(e.message, "does not answer"));
    assert_true(clock_mono_us() - start_us < 5 * US_PER_S);
    unsetenv("SSH_AUTH_SOCK");
    close(fd);
}

static void paths_under_home(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct store_stat st;
    char path[256];
    struct store_options o = worker_options(&worker, NULL, "/~/a/b%20c");
    struct store *s = worker_open(&o);
    assert_int_equal(store_stat(s, "", &st, &e), ERR_NOT_FOUND);
    assert_int_equal(store_make_root(s, &e), 0);
    assert_int_equal(store_make_root(s, &e), 0);
    assert_int_equal(store_write_file(s, "f", "x", 1, &e), 0);
    snprintf(path, sizeof path, "%s/a/b c/f", home);
    assert_string_equal(worker_text(path), "x");
    store_close(s);
}

static void a_key_is_enrolled_once(void **state)
{
    (void)state;
    static const char line[] =
        "restrict,command=\"internal-sftp\" ssh-ed25519 "
        "AAAAC3NzaC1lZDI1NTE5AAAAIJc4p1Z0yB0rYl7o2oP3mM1m8u0s9Wn1yX5y7s0Q2h3k syncd@leader";
    struct err e = ERR_INIT;
    struct stat st;
    char path[256], folder[192];
    struct store_options o = plain();
    struct store *s = worker_open(&o);
    snprintf(folder, sizeof folder, "%s/.ssh", home);
    snprintf(path, sizeof path, "%s/authorized_keys", folder);
    assert_int_equal(store_enrol_key(s, line, &e), 0);
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(store_enrol_key(s, line, &e), 0);
    assert_int_equal(st.st_size, sizeof line);
    assert_int_equal(strncmp(worker_text(path), line, sizeof line - 1), 0);
    /* An older file without a newline at its end, where the key stands behind a '#'. */
    char scratch[160];
    worker_put(folder, "authorized_keys", "# not: ", 0600, scratch);
    FILE *f = fopen(path, "a");
    fputs(strstr(line, "ssh-ed25519"), f);
    fclose(f);
    assert_int_equal(store_enrol_key(s, line, &e), 0);
    const char *text = worker_text(path);
    assert_int_equal(strncmp(text, "# not: ssh-ed25519", 18), 0);
    assert_non_null(strstr(text, "leader\nrestrict,"));
    assert_int_equal(store_enrol_key(s, "no key in here", &e), ERR_INTERNAL);
    assert_int_equal(store_enrol_key(s, "two\nlines AAAA", &e), ERR_INTERNAL);
    store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unknown_host_is_refused),
        cmocka_unit_test(a_changed_host_key_is_refused),
        cmocka_unit_test(a_revoked_host_key_is_refused),
        cmocka_unit_test(a_known_host_is_accepted),
        cmocka_unit_test(keys_that_work),
        cmocka_unit_test(keys_that_do_not_work_say_why),
        cmocka_unit_test(an_agent_signs),
        cmocka_unit_test(a_stuck_agent_is_given_up),
        cmocka_unit_test(paths_under_home),
        cmocka_unit_test(a_key_is_enrolled_once),
    };
    return cmocka_run_group_tests(tests, start_worker, stop_worker);
}
