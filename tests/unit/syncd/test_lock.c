#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "syncd/base/clock.h"
#include "syncd/base/err.h"
#include "syncd/base/io.h"
#include "syncd/base/mem.h"
#include "syncd/lock.h"
#include "syncd/signals.h"
#include "terminal.h"

static char folder[] = "/tmp/syncd-lock-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"piri.lock", "piri.turn", "link", "file",
                                        "open/deep", "open",      "given"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        if (unlink(path))
            rmdir(path);
    }
    return rmdir(folder);
}

static int take(const char *what, bool wait, struct lock **ret, struct err *e)
{
    struct lock_options o = {.state_dir = folder, .source = "piri", .what = what, .wait = wait};
    return lock_take(&o, ret, e);
}

static void a_second_is_told_who_holds_it(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct lock *one = NULL, *two = NULL;
    assert_int_equal(take("sync", false, &one, &e), 0);
    assert_int_equal(take("backup", false, &two, &e), ERR_BUSY);
    assert_null(two);
    char holder[64];
    snprintf(holder, sizeof holder, "sync, process %ld", (long)getpid());
    assert_non_null(strstr(e.message, holder));
    lock_release(one);
    assert_int_equal(take("backup", false, &two, &e), 0);
    lock_release(two);
    lock_release(NULL);
}

static void tell(void *arg, const char *source, const char *holder)
{
    (void)arg;
    fprintf(stderr, "%s waits for %s.\n", source, holder);
}

static int wait_for_it(void)
{
    struct err e = ERR_INIT;
    struct lock *l = NULL;
    struct lock_options o = {
        .state_dir = folder, .source = "piri", .what = "backup", .wait = true, .waiting = tell};
    if (signals_start(&e))
        return 1;
    int rc = lock_take(&o, &l, &e);
    fprintf(stderr, rc ? "no: %s\n" : "mine%s\n", rc ? e.message : "");
    if (rc)
        return rc == ERR_CANCELLED ? 3 : 4;
    lock_release(l);
    return 0;
}

static void waiting_tells_once_and_ends(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct lock *l = NULL;
    assert_int_equal(take("sync", false, &l, &e), 0);
    struct terminal t;
    terminal_start(&t, 0, wait_for_it);
    size_t at = terminal_expect(&t, 0, "piri waits for sync, process ");
    usleep(200000); /* some tries more */
    lock_release(l);
    at = terminal_expect(&t, at, "mine");
    assert_null(strstr(t.seen + at, "waits"));
    assert_int_equal(terminal_end(&t), 0);
    assert_non_null(strstr(t.seen, "waits"));
    assert_null(strstr(strstr(t.seen, "waits") + 1, "waits"));
}

static void a_signal_ends_the_wait(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct lock *l = NULL;
    assert_int_equal(take("sync", false, &l, &e), 0);
    struct terminal t;
    terminal_start(&t, 0, wait_for_it);
    terminal_expect(&t, 0, "waits");
    kill(t.pid, SIGTERM);
    assert_int_equal(terminal_end(&t), 3);
    lock_release(l);
}

/* A job that takes the lock again and again lets the one who waits go before it. */
static void who_waits_goes_first(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct lock *l = NULL;
    assert_int_equal(take("sync", true, &l, &e), 0);
    struct terminal t;
    terminal_start(&t, 0, wait_for_it);
    terminal_expect(&t, 0, "waits");
    lock_release(l);
    assert_int_equal(take("sync", true, &l, &e), 0); /* comes back only after the other's turn */
    terminal_expect(&t, 0, "mine");
    lock_release(l);
    assert_int_equal(terminal_end(&t), 0);
}

static int take_and_die(void)
{
    struct err e = ERR_INIT;
    struct lock *l = NULL;
    if (take("backup", false, &l, &e))
        return 1;
    fprintf(stderr, "taken\n");
    raise(SIGKILL);
    return 2;
}

static void the_lock_goes_with_its_process(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct lock *l = NULL;
    struct terminal t;
    terminal_start(&t, 0, take_and_die);
    assert_int_equal(terminal_end(&t), 128 + SIGKILL);
    assert_int_equal(take("sync", false, &l, &e), 0);
    lock_release(l);
}

static void strange_names_are_no_locks(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct lock *l = NULL;
    struct lock_options o = {.state_dir = folder, .source = "../piri", .what = "x"};
    assert_int_equal(lock_take(&o, &l, &e), ERR_INTERNAL);
}

static void state_dir_is_made_and_checked(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct stat st;
    char path[128], deep[128];
    snprintf(path, sizeof path, "%s/open", folder);
    snprintf(deep, sizeof deep, "%s/open/deep", folder);
    assert_int_equal(state_dir_check(deep, &e), 0);
    assert_int_equal(stat(deep, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(state_dir_check(deep, &e), 0);
    assert_int_equal(chmod(deep, 0720), 0);
    assert_int_equal(state_dir_check(deep, &e), ERR_PERMISSION);
    assert_non_null(strstr(e.hint, "chmod 700"));
    assert_int_equal(chmod(deep, 0755), 0); /* what systemd's StateDirectory makes */
    assert_int_equal(state_dir_check(deep, &e), 0);
    snprintf(path, sizeof path, "%s/file", folder);
    int fd = io_open(path, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    io_close(fd);
    assert_int_equal(state_dir_check(path, &e), ERR_PERMISSION);
}

static int check_as_nobody(void)
{
    struct err e = ERR_INIT;
    if (setgid(65534) || setuid(65534))
        return 1;
    int rc = state_dir_check(folder, &e);
    fprintf(stderr, "%s|%s\n", e.message, e.hint);
    return rc == ERR_PERMISSION ? 5 : 6;
}

static void another_users_state_dir_is_refused(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    struct terminal t;
    terminal_start(&t, 0, check_as_nobody);
    terminal_expect(&t, 0, "belongs to user 0, this is user 65534|run this as its owner");
    assert_int_equal(terminal_end(&t), 5);
}

static void root_gives_what_it_makes_to_the_owner(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    struct err e = ERR_INIT;
    struct stat st;
    int fd = -1;
    assert_int_equal(chown(folder, 65534, 65534), 0);
    assert_int_equal(state_dir_check(folder, &e), 0);
    assert_int_equal(state_dir_open_file(folder, "given", O_RDWR, &fd, &e), 0);
    assert_int_equal(fstat(fd, &st), 0);
    io_close(fd);
    assert_int_equal(chown(folder, 0, 0), 0);
    assert_int_equal(st.st_uid, 65534);
    assert_int_equal(st.st_mode & 07777, 0600);
}

static void symlinks_are_not_followed(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    char path[128];
    int fd = -1;
    snprintf(path, sizeof path, "%s/link", folder);
    assert_int_equal(symlink("/tmp/elsewhere", path), 0);
    assert_int_not_equal(state_dir_open_file(folder, "link", O_RDWR, &fd, &e), 0);
    assert_int_equal(fd, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_second_is_told_who_holds_it),
        cmocka_unit_test(waiting_tells_once_and_ends),
        cmocka_unit_test(a_signal_ends_the_wait),
        cmocka_unit_test(who_waits_goes_first),
        cmocka_unit_test(the_lock_goes_with_its_process),
        cmocka_unit_test(strange_names_are_no_locks),
        cmocka_unit_test(state_dir_is_made_and_checked),
        cmocka_unit_test(another_users_state_dir_is_refused),
        cmocka_unit_test(root_gives_what_it_makes_to_the_owner),
        cmocka_unit_test(symlinks_are_not_followed),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
