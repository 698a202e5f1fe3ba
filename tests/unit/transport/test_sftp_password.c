/* Logging in by password, and a key enrolled that way which then logs in by itself. sshd asks the
 * system for passwords, so this needs a throw-away user of the system, and so root. */
#include "tests/unit/transport/contract.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/transport/worker.h"

#define PASSWORD "correct horse"
#define PASSWORD_HASH                                                                              \
    "$6$syncdtest$rdjnwbZ4QfqTq8TiayfXQB/Eir3iOKJI8.VcDHyt.t9/"                                    \
    "6ElEiPU0RrmvbXDnjxdgZB1nFA9Kzu/5qAc4XLZEk0"

/* The first line of a kind in sshd_config counts, so these go before the test's own. */
static const char plain_config[] = "PasswordAuthentication yes\n"
                                   "AuthorizedKeysFile .ssh/authorized_keys";
static const char asking_config[] = "PasswordAuthentication no\nKbdInteractiveAuthentication yes\n"
                                    "UsePAM yes";

static char user[32], home[64];

static int make_user(void **state)
{
    (void)state;
    if (geteuid() != 0)
        return 0;
    snprintf(user, sizeof user, "syncdt%d", (int)getpid());
    snprintf(home, sizeof home, "/tmp/syncd-test-user-XXXXXX");
    if (!mkdtemp(home))
        return -1;
    const char *const add[] = {"useradd",     "-M", "-d",      home, "-p",
                               PASSWORD_HASH, "-s", "/bin/sh", user, NULL};
    const char *const own[] = {"chown", user, home, NULL};
    return test_run(add) || test_run(own) ? -1 : 0;
}

static int remove_user(void **state)
{
    (void)state;
    if (geteuid() != 0)
        return 0;
    const char *const argv[] = {"userdel", "-f", user, NULL};
    test_run(argv);
    test_remove_tree(home);
    return 0;
}

static void need_root(void)
{
    if (geteuid() == 0)
        return;
    print_message("NOTICE: not root, so no user can be made and no password was tried\n");
    skip();
}

static void try_passwords(const char *config)
{
    need_root();
    struct sshd worker;
    sshd_start(&worker, config);
    struct store_options o = worker_options(&worker, user, "/~/repository");
    o.identity_file = NULL;
    o.password = "wrong";
    worker_refuses(&o, ERR_AUTH, "does not accept the password", "user");
    o.password = PASSWORD;
    struct store *s = worker_open(&o);
    struct err e = ERR_INIT;
    assert_int_equal(store_make_root(s, &e), 0);
    assert_int_equal(store_write_file(s, "f", "x", 1, &e), 0);
    assert_int_equal(store_remove(s, "f", &e), 0);
    store_close(s);
    o.identity_file = "/nonexistent/key"; /* setup: the key comes later */
    store_close(worker_open(&o));
    sshd_stop(&worker);
}

static void the_server_takes_a_password(void **state)
{
    (void)state;
    try_passwords(plain_config);
}

static void the_server_asks_for_it(void **state)
{
    (void)state;
    try_passwords(asking_config);
}

static void an_enrolled_key_logs_in(void **state)
{
    (void)state;
    need_root();
    struct sshd worker;
    char key[160], line[1200], path[192];
    struct err e = ERR_INIT;
    sshd_start(&worker, plain_config);
    worker_keygen(worker.folder, "enrolled", "ed25519", "", NULL, key);
    struct store_options o = worker_options(&worker, user, "/~");
    o.identity_file = key;
    worker_refuses(&o, ERR_AUTH, "does not accept the key", "");
    o.password = PASSWORD; /* the key is refused, and so the password's turn */
    struct store *s = worker_open(&o);
    snprintf(path, sizeof path, "%s.pub", key);
    snprintf(line, sizeof line, "restrict,command=\"internal-sftp\" %s", worker_text(path));
    line[strcspn(line, "\n")] = '\0';
    assert_int_equal(store_enrol_key(s, line, &e), 0);
    store_close(s);
    o.password = NULL;
    s = worker_open(&o);
    assert_int_equal(store_write_file(s, "by-key", "x", 1, &e), 0);
    store_close(s);
    sshd_stop(&worker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_server_takes_a_password),
        cmocka_unit_test(the_server_asks_for_it),
        cmocka_unit_test(an_enrolled_key_logs_in),
    };
    return cmocka_run_group_tests(tests, make_user, remove_user);
}
