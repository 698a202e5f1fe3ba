/* Servers that fall silent, die, fill up or lie: nothing may hang, and nothing may be taken for
 * stored that is not. */
#include "tests/unit/transport/contract.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "syncd/base/clock.h"
#include "tests/unit/transport/worker.h"

#define MB (1024 * 1024)

struct faulty {
    struct sshd worker;
    char root[64];
};

static int setup_with(void **state, const char *config)
{
    struct faulty *t = calloc(1, sizeof *t);
    *state = t;
    snprintf(t->root, sizeof t->root, "/tmp/syncd-test-faults-XXXXXX");
    if (!mkdtemp(t->root))
        return -1;
    sshd_start(&t->worker, config);
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, NULL);
}

/* The SFTP server's output ends in the middle of a message, while sshd and TCP live on. */
static int setup_cut_short(void **state)
{
    return setup_with(state, "Subsystem sftp /usr/lib/openssh/sftp-server | dd bs=1 count=200000");
}

static int setup_no_sftp(void **state)
{
    return setup_with(state, "Subsystem sftp-not /bin/false");
}

static int setup_noise(void **state)
{
    return setup_with(state, "Subsystem sftp echo Welcome to this machine, have a nice day");
}

static int setup_ciphers(void **state)
{
    return setup_with(state, "Ciphers aes256-gcm@openssh.com,chacha20-poly1305@openssh.com");
}

static int teardown(void **state)
{
    struct faulty *t = *state;
    char folder[96];
    snprintf(folder, sizeof folder, "%s/small", t->root);
    umount2(folder, MNT_DETACH); /* where a test mounted something and then failed */
    sshd_stop(&t->worker);
    test_remove_tree(t->root);
    free(t);
    return 0;
}

static struct store *open_at(struct faulty *t, int timeout_s, const int *cancel_fd)
{
    struct store_options o = worker_options(&t->worker, NULL, t->root);
    o.timeout_s = timeout_s;
    o.cancel_fd = cancel_fd;
    return worker_open(&o);
}

static void assert_took(int64_t start_us, int64_t least_ms, int64_t most_ms)
{
    int64_t took_ms = (clock_mono_us() - start_us) / US_PER_MS;
    if (took_ms < least_ms || took_ms > most_ms)
        fail_msg("it took %d ms", (int)took_ms);
}

static void a_port_without_an_answer(void **state)
{
    (void)state;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 1), 0); /* connections succeed, and nobody says a word */
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    struct sshd nobody = {.port = ntohs(a.sin_port), .key = "/x", .known_hosts = "/x"};
    struct store_options o = worker_options(&nobody, NULL, "/x");
    o.timeout_s = 1;
    int64_t start_us = clock_mono_us();
    worker_refuses(&o, ERR_TIMEOUT, "no answer for 1 s", "is it sshd");
    assert_took(start_us, 900, 4000);
    struct host_key key;
    assert_int_equal(store_host_key(&o, &key, NULL), ERR_TIMEOUT);
    close(fd);
    worker_refuses(&o, ERR_CONNECT, "refused", "sshd running");
    o = worker_options(&nobody, NULL, "/x");
    snprintf(o.url.host, sizeof o.url.host, "no-such-host.invalid");
    worker_refuses(&o, ERR_CONNECT, "no-such-host.invalid", "name");
}

static void something_that_is_not_ssh(void **state)
{
    (void)state;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int c = accept(fd, NULL, NULL);
        static const char answer[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
        if (write(c, answer, sizeof answer - 1) > 0)
            shutdown(c, SHUT_WR);
        while (read(c, &c, 1) > 0)
            continue;
        _exit(0);
    }
    close(fd);
    struct sshd nobody = {.port = ntohs(a.sin_port), .key = "/x", .known_hosts = "/x"};
    struct store_options o = worker_options(&nobody, NULL, "/x");
    o.timeout_s = 5;
    worker_refuses(&o, ERR_CONNECT, "no SSH server", "port");
    kill(pid, SIGKILL);
}

static void a_server_that_falls_silent(void **state)
{
    struct faulty *t = *state;
    struct err e = ERR_INIT;
    struct store_stat st;
    struct store_file *f;
    static const char zeros[4 * MB];
    struct store *s = open_at(t, 1, NULL);
    assert_int_equal(store_create(s, "f", &f, &e), 0);
    sshd_signal_sessions(&t->worker, SIGSTOP);
    int64_t start_us = clock_mono_us();
    int rc = 0;
    for (int i = 0; i < 16 && rc == 0; i++) /* beyond what any buffer takes in */
        rc = store_write(f, zeros, sizeof zeros, &e);
    assert_int_equal(rc, ERR_TIMEOUT);
    assert_non_null(strstr(e.message, "no answer for 1 s"));
    assert_took(start_us, 900, 8000);
    start_us = clock_mono_us();
    assert_int_equal(store_stat(s, "f", &st, &e), ERR_TIMEOUT); /* at once: it is broken */
    assert_int_equal(store_publish(f, "f", "g", -1, &e), ERR_TIMEOUT);
    assert_int_equal(store_close_file(f, &e), ERR_TIMEOUT);
    store_close(s);
    assert_took(start_us, 0, 500);
    sshd_signal_sessions(&t->worker, SIGCONT);
}

static void a_question_without_an_answer(void **state)
{
    struct faulty *t = *state;
    struct err e = ERR_INIT;
    struct store_stat st;
    struct store *s = open_at(t, 1, NULL);
    sshd_signal_sessions(&t->worker, SIGSTOP);
    int64_t start_us = clock_mono_us();
    assert_int_equal(store_stat(s, "f", &st, &e), ERR_TIMEOUT);
    assert_took(start_us, 900, 5000);
    store_close(s);
    sshd_signal_sessions(&t->worker, SIGCONT);
}

static void a_server_that_dies_under_a_write(void **state)
{
    struct faulty *t = *state;
    struct err e = ERR_INIT;
    struct store_file *f;
    static const char zeros[4 * MB];
    struct store *s = open_at(t, 10, NULL);
    assert_int_equal(store_create(s, "f", &f, &e), 0);
    assert_int_equal(store_write(f, zeros, sizeof zeros, &e), 0);
    sshd_kill(&t->worker);
    int64_t start_us = clock_mono_us();
    int rc = 0;
    for (int i = 0; i < 16 && rc == 0; i++)
        rc = store_write(f, zeros, sizeof zeros, &e);
    assert_int_equal(rc, ERR_CONNECT);
    assert_int_equal(store_publish(f, "f", "g", -1, &e), ERR_CONNECT);
    store_close_file(f, &e);
    store_close(s);
    assert_took(start_us, 0, 3000);
    sshd_restart(&t->worker); /* and opened anew, the work can be done again */
    s = open_at(t, 10, NULL);
    assert_int_equal(store_remove(s, "f", &e), 0);
    assert_int_equal(store_write_file(s, "g", "x", 1, &e), 0);
    store_close(s);
}

static void a_server_that_dies_under_a_read(void **state)
{
    struct faulty *t = *state;
    struct err e = ERR_INIT;
    struct store_file *f;
    static char data[8 * MB];
    size_t n = 0;
    struct store *s = open_at(t, 10, NULL);
    assert_int_equal(store_write_file(s, "g", data, sizeof data, &e), 0);
    assert_int_equal(store_open(s, "g", &f, &e), 0);
    assert_int_equal(store_read_at(f, 0, data, 30000, &n, &e), 0);
    sshd_kill(&t->worker);
    assert_int_equal(store_read_at(f, 30000, data, sizeof data - 30000, &n, &e), ERR_CONNECT);
    assert_int_equal(n, 30000);
    store_close_file(f, &e);
    store_close(s);
}

static void a_message_that_is_cut_short(void **state)
{
    struct faulty *t = *state;
    struct err e = ERR_INIT;
    struct store_file *f;
    static char data[4 * MB];
    size_t n = 0;
    struct store *s = open_at(t, 5, NULL);
    assert_int_equal(store_write_file(s, "g", data, sizeof data, &e), 0);
    assert_int_equal(store_open(s, "g", &f, &e), 0);
    int64_t start_us = clock_mono_us();
    assert_int_equal(store_read_at(f, 0, data, sizeof data, &n, &e), ERR_CONNECT);
    assert_took(start_us, 0, 4000); /* libssh2 by itself would spin here for ever */
    store_close_file(f, &e);
    store_close(s);
}

static int cancel_after_ms(long ms)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    struct itimerspec when = {.it_value.tv_nsec = ms * 1000000};
    assert_int_equal(timerfd_settime(fd, 0, &when, NULL), 0);
    return fd;
}

static void whatever_waits_can_be_cancelled(void **state)
{
    struct faulty *t = *state;
    struct err e = ERR_INIT;
    struct store_stat st;
    int fd = -1;
    struct store *s = open_at(t, 30, &fd);
    sshd_signal_sessions(&t->worker, SIGSTOP);
    fd = cancel_after_ms(200);
    int64_t start_us = clock_mono_us();
    assert_int_equal(store_stat(s, "f", &st, &e), ERR_CANCELLED);
    assert_took(start_us, 150, 3000);
    store_close(s);
    close(fd);
    sshd_signal_sessions(&t->worker, SIGCONT);

    static const char zeros[MB];
    struct store_file *f;
    struct store_options o = worker_options(&t->worker, NULL, t->root);
    fd = -1;
    o.cancel_fd = &fd;
    o.max_rate = 1000;
    s = worker_open(&o);
    assert_int_equal(store_create(s, "f", &f, &e), 0);
    fd = cancel_after_ms(200);
    start_us = clock_mono_us();
    assert_int_equal(store_write(f, zeros, sizeof zeros, &e), ERR_CANCELLED);
    assert_took(start_us, 150, 3000);
    assert_int_equal(store_close_file(f, &e), ERR_CANCELLED);
    store_close(s);
    close(fd);
}

static void a_worker_without_sftp(void **state)
{
    struct faulty *t = *state;
    struct store_options o = worker_options(&t->worker, NULL, t->root);
    o.timeout_s = 2;
    worker_refuses(&o, ERR_UNSUPPORTED, "SFTP", "Subsystem sftp");
}

static void a_worker_with_other_ciphers(void **state)
{
    struct faulty *t = *state;
    struct store_options o = worker_options(&t->worker, NULL, t->root);
    worker_refuses(&o, ERR_CONNECT, "in common", "aes256-ctr");
}

static void a_disk_that_fills_up(void **state)
{
    struct faulty *t = *state;
    struct err e = ERR_INIT;
    struct store_file *f;
    static const char zeros[4 * MB];
    char folder[96];
    snprintf(folder, sizeof folder, "%s/small", t->root);
    struct store *s = open_at(t, 10, NULL);
    assert_int_equal(store_make_dir(s, "small", &e), 0);
    store_close(s);
    if (mount("syncd-test", folder, "tmpfs", 0, "size=3m") < 0) {
        print_message("NOTICE: no tmpfs can be mounted here, so no full disk was tried\n");
        skip();
    }
    struct store_options o = worker_options(&t->worker, NULL, folder);
    s = worker_open(&o);
    assert_int_equal(store_create(s, "f", &f, &e), 0);
    int rc = store_write(f, zeros, sizeof zeros, &e);
    if (rc == 0)
        rc = store_publish(f, "f", "g", -1, &e);
    assert_int_equal(rc, ERR_NO_SPACE);
    assert_non_null(strstr(e.message, "full"));
    assert_int_equal(store_write(f, "x", 1, &e), ERR_NO_SPACE); /* for good */
    assert_int_equal(store_publish(f, "f", "g", -1, &e), ERR_NO_SPACE);
    assert_int_equal(store_close_file(f, &e), ERR_NO_SPACE);
    assert_int_equal(store_remove(s, "f", &e), 0); /* the store itself is well */
    assert_int_equal(store_write_file(s, "g", "x", 1, &e), 0);
    store_close(s);
    assert_int_equal(umount(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_port_without_an_answer),
        cmocka_unit_test(something_that_is_not_ssh),
        cmocka_unit_test_setup_teardown(a_server_that_falls_silent, setup, teardown),
        cmocka_unit_test_setup_teardown(a_question_without_an_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(a_server_that_dies_under_a_write, setup, teardown),
        cmocka_unit_test_setup_teardown(a_server_that_dies_under_a_read, setup, teardown),
        cmocka_unit_test_setup_teardown(a_message_that_is_cut_short, setup_cut_short, teardown),
        cmocka_unit_test_setup_teardown(whatever_waits_can_be_cancelled, setup, teardown),
        cmocka_unit_test_setup_teardown(a_worker_without_sftp, setup_no_sftp, teardown),
        cmocka_unit_test_setup_teardown(a_worker_without_sftp, setup_noise, teardown),
        cmocka_unit_test_setup_teardown(a_worker_with_other_ciphers, setup_ciphers, teardown),
        cmocka_unit_test_setup_teardown(a_disk_that_fills_up, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
